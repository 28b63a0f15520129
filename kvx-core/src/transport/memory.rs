//! Registered memory as a transport reaches it: spans of host addresses, at once or after staging.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use crate::error::Refusal;
use crate::transport::LocalSpan;

/// What kind of memory a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MemoryKind {
    /// Host memory.
    Host,
    /// Memory of the CUDA device of this ordinal.
    Cuda(u32),
}

/// What a transport is about to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Gather from it, for the network.
    Gather,
    /// Scatter into it, from the network.
    Scatter,
}

/// A run of bytes that system calls of this process can reach. Not a pointer on purpose: the
/// memory may be unmapped by its owner at any time, so that only system calls, which answer
/// EFAULT, touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSpan {
    /// The address in this process.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Memory of some kind that yields host spans.
///
/// A scatter is `stage`, then system calls that fill the host spans, then `commit`; a gather is
/// `stage`, then system calls that read them, then `commit`. For host memory both steps are
/// immediate and `stage` names the memory itself. A provider for a device fills or drains pinned
/// buffers instead, and is ready when its copies are.
///
/// `Pending` means that the context's waker is called when the call should be repeated; the lane
/// serves others meanwhile.
#[allow(clippy::len_without_is_empty)]
pub trait MemoryProvider: Send + Sync + fmt::Debug {
    /// The kind.
    fn kind(&self) -> MemoryKind;

    /// Length in bytes; never 0.
    fn len(&self) -> u64;

    /// The address under which the owner knows the first byte.
    fn base(&self) -> u64;

    /// The host span of `span`, where the memory can be reached in place and at once.
    /// `None` sends the lane through [`MemoryProvider::stage`].
    fn host(&self, span: LocalSpan) -> Option<HostSpan>;

    /// The shared memory that this is, from its first byte to its last: a memfd whose pages are all
    /// there, sealed against whatever would take them away (F_SEAL_SHRINK) or change them but through
    /// this process's mapping (F_SEAL_FUTURE_WRITE). Others may map it to read; and here it stays
    /// mapped where [`MemoryProvider::host`] says as long as the provider lives, so that loads and
    /// stores reach it as well as system calls. `None` for all other memory.
    fn memfd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Makes host spans for `spans` (all of this region, in order) ready. Memory that answers
    /// [`MemoryProvider::host`] is never asked.
    fn stage(&self, _access: Access, _spans: &[LocalSpan], _cx: &mut Context<'_>) -> Poll<Staging> {
        Poll::Ready(Err(Refusal::MemoryFault))
    }
}

/// What staging gives.
pub type Staging = Result<Box<dyn Staged>, Refusal>;

/// Host memory that stands for spans of a region until it is committed or dropped. Dropping it
/// uncommitted leaves the region as it was.
pub trait Staged: Send + fmt::Debug {
    /// One host span for each span that was staged, of the same length, in the same order.
    fn spans(&self) -> &[HostSpan];

    /// After a scatter: moves the bytes to the region, and is ready when every one is there.
    /// After a gather: gives the staging memory back.
    fn commit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>>;
}

/// Host memory at a fixed address.
#[derive(Clone, Copy, Debug)]
pub struct HostMemory {
    base: u64,
    len: u64,
}

impl HostMemory {
    /// Memory of `len` bytes at `base`; `None` if it is empty or wraps around.
    pub fn new(base: u64, len: u64) -> Option<Self> {
        base.checked_add(len).filter(|_| len > 0)?;
        Some(Self { base, len })
    }
}

impl MemoryProvider for HostMemory {
    fn kind(&self) -> MemoryKind {
        MemoryKind::Host
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn base(&self) -> u64 {
        self.base
    }

    fn host(&self, span: LocalSpan) -> Option<HostSpan> {
        Some(HostSpan { address: self.base + span.offset, len: u64::from(span.len) })
    }
}
