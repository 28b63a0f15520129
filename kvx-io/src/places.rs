//! The registered memory of one frame as system calls see it: host spans in payload order, some
//! of them staging memory. Not the system calls, and not the gates: the halves of a lane hold
//! those.

use std::sync::Arc;
use std::task::{Context, Poll};

use kvx_core::error::Refusal;
use kvx_core::region::Region;
use kvx_core::transport::{Access, HostSpan, LocalSpan, Staged};

/// Where the bytes of one frame come from or go to. Kept by a lane and filled anew for each frame.
#[derive(Debug, Default)]
pub struct Places {
    /// One for each span of the frame, in payload order. Those before `first` are done, the one
    /// at `first` begins at its first byte that is not.
    hosts: Vec<HostSpan>,
    first: usize,
    /// The sum of the lengths from `first` on.
    left: u64,
    /// All regions are memory that stays mapped.
    lasts: bool,
    /// The regions that cannot be reached in place. Their hosts are of use once `held` is there.
    staged: Vec<StagedRegion>,
}

/// The spans of one region that must be staged.
#[derive(Debug)]
struct StagedRegion {
    /// Index into the frame's regions.
    region: usize,
    spans: Vec<LocalSpan>,
    /// For each span its index in `hosts`.
    positions: Vec<usize>,
    /// The staging memory, once it is ready. Keeps the host spans valid.
    held: Option<Box<dyn Staged>>,
}

impl Places {
    /// Takes up `spans`, which must add up to `len`, checking each against its region.
    ///
    /// # Errors
    /// When they do not fit: the spans come from the host, so that this is its mistake.
    pub fn fill(
        &mut self,
        regions: &[Arc<Region>],
        spans: &[LocalSpan],
        len: u64,
    ) -> Result<(), Refusal> {
        self.clear();
        self.lasts = regions.iter().all(|region| region.memory.memfd().is_some());
        self.hosts.try_reserve(spans.len()).map_err(|_| Refusal::Busy)?;
        for (position, span) in spans.iter().enumerate() {
            let region = span.region as usize;
            let memory = &regions.get(region).ok_or(Refusal::MemoryFault)?.memory;
            let span_len = u64::from(span.len);
            span.offset
                .checked_add(span_len)
                .filter(|end| *end <= memory.len())
                .ok_or(Refusal::OutOfBounds)?;
            let host = match memory.host(*span) {
                Some(host) if host.len == span_len => host,
                Some(_) => return Err(Refusal::MemoryFault),
                None => {
                    self.defer(region, position, *span);
                    HostSpan { address: 0, len: span_len }
                }
            };
            self.hosts.push(host);
            // At most 2^32 a span: it takes 2^32 spans to wrap.
            self.left += span_len;
        }
        if self.left == len { Ok(()) } else { Err(Refusal::Inconsistent) }
    }

    fn defer(&mut self, region: usize, position: usize, span: LocalSpan) {
        let known = self.staged.iter().position(|staged| staged.region == region);
        let index = known.unwrap_or_else(|| {
            self.staged.push(StagedRegion {
                region,
                spans: Vec::new(),
                positions: Vec::new(),
                held: None,
            });
            self.staged.len() - 1
        });
        let staged = &mut self.staged[index];
        staged.spans.push(span);
        staged.positions.push(position);
    }

    /// Whether some memory must be staged, or committed.
    pub fn is_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Asks each region that must be staged, by one call, until all are ready.
    pub fn poll_stage(
        &mut self,
        access: Access,
        regions: &[Arc<Region>],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Refusal>> {
        let mut pending = false;
        for staged in self.staged.iter_mut().filter(|staged| staged.held.is_none()) {
            let memory = &regions.get(staged.region).ok_or(Refusal::MemoryFault)?.memory;
            match memory.stage(access, &staged.spans, cx)? {
                Poll::Ready(held) => {
                    staged.name_hosts(&mut self.hosts, held.spans())?;
                    staged.held = Some(held);
                }
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Commits all staging memory, and lets go of it.
    pub fn poll_commit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let mut index = 0;
        while let Some(staged) = self.staged.get_mut(index) {
            let done = match &mut staged.held {
                Some(held) => held.commit(cx)?.is_ready(),
                None => true,
            };
            if done {
                self.staged.swap_remove(index);
            } else {
                index += 1;
            }
        }
        if self.is_staged() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// The places of the bytes that are not done.
    pub fn rest(&self) -> &[HostSpan] {
        self.hosts.get(self.first..).unwrap_or_default()
    }

    /// Whether all of it stays mapped while the regions live, so that it can be reached by loads and
    /// stores: [`MemoryProvider::memfd`](kvx_core::transport::MemoryProvider::memfd).
    pub fn lasts(&self) -> bool {
        self.lasts
    }

    /// The number of bytes that are not done.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next `bytes` bytes are done; at most `left`.
    pub fn advance(&mut self, mut bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        while let Some(host) = self.hosts.get_mut(self.first) {
            if bytes < host.len {
                host.address = host.address.wrapping_add(bytes);
                host.len -= bytes;
                break;
            }
            bytes -= host.len;
            self.first += 1;
        }
    }

    /// Lets go of everything; staging memory that was not committed is dropped.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.first = 0;
        self.left = 0;
        self.lasts = false;
        self.staged.clear();
    }
}

impl StagedRegion {
    /// Puts the staging memory's spans where those of the region belong.
    fn name_hosts(&self, hosts: &mut [HostSpan], staged: &[HostSpan]) -> Result<(), Refusal> {
        if staged.len() != self.positions.len() {
            return Err(Refusal::MemoryFault);
        }
        for (position, span) in self.positions.iter().zip(staged) {
            let host = hosts.get_mut(*position).ok_or(Refusal::MemoryFault)?;
            if host.len != span.len {
                return Err(Refusal::MemoryFault);
            }
            *host = *span;
        }
        Ok(())
    }
}
