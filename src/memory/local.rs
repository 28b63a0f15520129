//! A transfer to oneself: copies between regions of one engine, by system calls, since memory of
//! the caller may be unmapped meanwhile. It plans nothing and reports no progress.
//!
//! `process_vm_readv` on one's own process needs no privilege, takes hundreds of runs a call and
//! answers `EFAULT`. Where a sandbox forbids it, and for runs that overlap themselves, bytes go
//! through a small memfd instead, at half the speed.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use kvx_core::error::Refusal;
use kvx_core::region::{Gate, Leases, Region};
use kvx_core::transport::{HostSpan, LocalSpan};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// Where the spans of a local copy lie, and what must stay open meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalCopy<'a> {
    /// The regions to read, by the index in the source spans.
    pub(crate) sources: &'a [Arc<Region>],
    /// The regions to write, by the index in the target spans.
    pub(crate) targets: &'a [Arc<Region>],
    /// The transfer's gate, and the grant's.
    pub(crate) gates: &'a [Arc<Gate>],
}

/// Copies each source span to the target span beside it, which has the same length.
///
/// A pair may overlap itself; pairs that overlap each other are copied in any order. Leases are
/// held for one system call at a time, so that a fence waits for [`BATCH_BYTES`] at most.
///
/// # Errors
/// [`Refusal::RegionClosed`] once a region or another gate is closed, [`Refusal::OutOfBounds`] for
/// a span outside its region, [`Refusal::MemoryFault`] for memory that is not there or not host
/// memory. What was copied until then stays.
pub(crate) fn copy_local(
    copy: &LocalCopy<'_>,
    spans: impl IntoIterator<Item = (LocalSpan, LocalSpan)>,
) -> Result<(), Refusal> {
    let mut copier = Copier::new(copy);
    for (source, target) in spans {
        let piece = Piece {
            source_region: region(copy.sources, source)?,
            target_region: region(copy.targets, target)?,
            source: address(copy.sources, source)?,
            target: address(copy.targets, target)?,
            len: u64::from(source.len),
        };
        if source.len != target.len {
            return Err(Refusal::Inconsistent);
        }
        copier.copy(piece)?;
    }
    copier.flush()
}

/// Bytes under one set of leases at most: about a millisecond of copying.
const BATCH_BYTES: u64 = 4 << 20;

/// Pieces in one system call at most; UIO_MAXIOV is 1,024.
const BATCH_PIECES: usize = 512;

/// Bytes in the memfd that stands between, at most.
const BOUNCE_BYTES: u64 = 256 << 10;

/// A run, or a part of it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Index into the sources.
    source_region: usize,
    /// Index into the targets.
    target_region: usize,
    /// Address of the first byte to read.
    source: u64,
    /// Address of the first byte to write.
    target: u64,
    /// `source + len` and `target + len` are inside their regions.
    len: u64,
}

impl Piece {
    fn part(self, offset: u64, len: u64) -> Self {
        Self { source: self.source + offset, target: self.target + offset, len, ..self }
    }

    fn overlaps_itself(self) -> bool {
        self.source.abs_diff(self.target) < self.len
    }
}

#[derive(Debug)]
struct Copier<'a> {
    copy: &'a LocalCopy<'a>,
    /// Waiting to be copied by one call; none overlaps itself.
    batch: Vec<Piece>,
    /// Their lengths together; below [`BATCH_BYTES`] between calls.
    batch_bytes: u64,
    /// Created when first needed.
    bounce: Option<OwnedFd>,
    /// Whether a sandbox forbids process_vm_readv.
    forbidden: bool,
}

impl<'a> Copier<'a> {
    fn new(copy: &'a LocalCopy<'a>) -> Self {
        Self { copy, batch: Vec::new(), batch_bytes: 0, bounce: None, forbidden: false }
    }

    fn copy(&mut self, run: Piece) -> Result<(), Refusal> {
        if run.overlaps_itself() {
            self.flush()?;
            return self.copy_overlapping(run);
        }
        let mut done = 0;
        while done < run.len {
            let len = (run.len - done).min(BATCH_BYTES - self.batch_bytes);
            self.batch.push(run.part(done, len));
            self.batch_bytes += len;
            done += len;
            if self.batch_bytes == BATCH_BYTES || self.batch.len() == BATCH_PIECES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        let batch = std::mem::take(&mut self.batch);
        let _leases = lease(self.copy, &batch)?;
        let direct = if self.forbidden { Err(Direct::Forbidden) } else { copy_direct(&batch) };
        match direct {
            Ok(()) => {}
            Err(Direct::Fault) => return Err(Refusal::MemoryFault),
            Err(Direct::Forbidden) => {
                self.forbidden = true;
                for piece in &batch {
                    let mut done = 0;
                    while done < piece.len {
                        let len = BOUNCE_BYTES.min(piece.len - done);
                        self.copy_through(piece.part(done, len))?;
                        done += len;
                    }
                }
            }
        }
        self.batch = batch;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    /// As memmove: the end that would be overwritten is copied first.
    fn copy_overlapping(&mut self, run: Piece) -> Result<(), Refusal> {
        let mut done = 0;
        while done < run.len {
            let len = BOUNCE_BYTES.min(run.len - done);
            let upward = run.target < run.source;
            let piece = run.part(if upward { done } else { run.len - done - len }, len);
            let _leases = lease(self.copy, &[piece])?;
            self.copy_through(piece)?;
            done += len;
        }
        Ok(())
    }

    /// Copies at most [`BOUNCE_BYTES`] through the memfd.
    fn copy_through(&mut self, piece: Piece) -> Result<(), Refusal> {
        let memfd = match &mut self.bounce {
            Some(memfd) => memfd,
            none => none.insert(
                memfd_create("kvx-bounce", MemfdFlags::CLOEXEC).map_err(|_| Refusal::Busy)?,
            ),
        };
        transfer(piece.len, |done| {
            let source = (piece.source + done) as *const libc::c_void;
            let len = (piece.len - done) as usize;
            // SAFETY: the kernel checks the source address, and memory in a region may be read as
            // long as it is leased.
            unsafe { libc::pwrite(memfd.as_raw_fd(), source, len, done as libc::off_t) }
        })?;
        transfer(piece.len, |done| {
            let target = (piece.target + done) as *mut libc::c_void;
            let len = (piece.len - done) as usize;
            // SAFETY: the kernel checks the target address, and memory in a region may be written
            // as long as it is leased.
            unsafe { libc::pread(memfd.as_raw_fd(), target, len, done as libc::off_t) }
        })
    }
}

/// Why a direct copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direct {
    /// Memory is not there.
    Fault,
    /// The system call is not allowed here; nothing was copied.
    Forbidden,
}

fn copy_direct(pieces: &[Piece]) -> Result<(), Direct> {
    let mut rest = pieces;
    // Bytes of the first piece in `rest` that are copied.
    let mut begun = 0;
    while let Some((first, others)) = rest.split_first() {
        let left =
            std::iter::once(first.part(begun, first.len - begun)).chain(others.iter().copied());
        let (targets, sources): (Vec<_>, Vec<_>) = left
            .map(|piece| (vector(piece.target, piece.len), vector(piece.source, piece.len)))
            .unzip();
        // SAFETY: both lists live through the call and are as long as said; the kernel checks every
        // address in them. The memory is in leased regions, whose owners let the engine read and
        // write it.
        let copied = unsafe {
            libc::process_vm_readv(
                std::process::id() as libc::pid_t,
                targets.as_ptr(),
                targets.len() as libc::c_ulong,
                sources.as_ptr(),
                sources.len() as libc::c_ulong,
                0,
            )
        };
        let Ok(mut copied) = u64::try_from(copied) else {
            match last_error() {
                Errno::INTR => continue,
                Errno::PERM | Errno::ACCESS | Errno::NOSYS => return Err(Direct::Forbidden),
                _ => return Err(Direct::Fault),
            }
        };
        if copied == 0 {
            return Err(Direct::Fault);
        }
        // A short count ends before memory that is not there; the next round says so.
        copied += begun;
        while let Some((first, others)) = rest.split_first() {
            if copied < first.len {
                break;
            }
            copied -= first.len;
            rest = others;
        }
        begun = copied;
    }
    Ok(())
}

/// Repeats a read or write until `len` bytes are through.
fn transfer(len: u64, mut call: impl FnMut(u64) -> libc::ssize_t) -> Result<(), Refusal> {
    let mut done = 0;
    while done < len {
        match u64::try_from(call(done)) {
            Ok(0) => return Err(Refusal::MemoryFault),
            Ok(count) => done += count,
            Err(_) => match last_error() {
                Errno::INTR => {}
                Errno::NOSPC | Errno::NOMEM => return Err(Refusal::Busy),
                _ => return Err(Refusal::MemoryFault),
            },
        }
    }
    Ok(())
}

/// Leases of everything that `pieces` touch. Neighbours mostly share their regions; a region that
/// comes back later is leased again.
fn lease<'a>(copy: &LocalCopy<'a>, pieces: &[Piece]) -> Result<Leases<'a>, Refusal> {
    let sources =
        chunks(pieces, |piece| piece.source_region).map(|index| &copy.sources[index].gate);
    let targets =
        chunks(pieces, |piece| piece.target_region).map(|index| &copy.targets[index].gate);
    let gates = copy.gates.iter().map(|gate| &**gate).chain(sources).chain(targets);
    Leases::enter(gates).map_err(|_| Refusal::RegionClosed)
}

/// `key` of the pieces in order, equal neighbours once.
fn chunks(pieces: &[Piece], key: fn(&Piece) -> usize) -> impl Iterator<Item = usize> {
    pieces.chunk_by(move |a, b| key(a) == key(b)).filter_map(move |same| same.first().map(key))
}

fn region(regions: &[Arc<Region>], span: LocalSpan) -> Result<usize, Refusal> {
    let index = span.region as usize;
    let region = regions.get(index).ok_or(Refusal::OutOfBounds)?;
    match span.offset.checked_add(u64::from(span.len)) {
        Some(end) if end <= region.memory.len() => Ok(index),
        _ => Err(Refusal::OutOfBounds),
    }
}

fn address(regions: &[Arc<Region>], span: LocalSpan) -> Result<u64, Refusal> {
    let host = regions[span.region as usize].memory.host(span);
    host.map(|HostSpan { address, .. }| address).ok_or(Refusal::MemoryFault)
}

fn vector(address: u64, len: u64) -> libc::iovec {
    libc::iovec { iov_base: address as *mut libc::c_void, iov_len: len as usize }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
