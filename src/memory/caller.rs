//! Memory that the caller owns and vouches for. The engine never frees it, and touches it by
//! system calls only.

use kvx_core::error::Invalid;
use kvx_core::transport::{HostMemory, HostSpan, LocalSpan, MemoryKind, MemoryProvider};

/// Host memory that belongs to the caller, ready to be registered.
#[derive(Clone, Copy, Debug)]
pub struct CallerMemory {
    host: HostMemory,
}

impl CallerMemory {
    /// The `len` bytes from `base` on.
    ///
    /// # Errors
    /// A null base, no bytes, or an end beyond the address space.
    ///
    /// # Safety
    /// From registration until deregistration has returned, for every address of the range:
    ///
    /// - The engine and, as far as the region's rights go, its peers may read and write it at any
    ///   moment. The caller keeps no `&mut` to it across that time, no `&` while it may be written,
    ///   and orders its own accesses by the ends of transfers and sessions.
    /// - It may be unmapped early (transfers then fail with
    ///   [`Refusal::MemoryFault`](kvx_core::error::Refusal::MemoryFault)), but not be given to
    ///   something else: whatever is mapped there next would be read and written in its place.
    pub unsafe fn new(base: *mut u8, len: u64) -> Result<Self, Invalid> {
        if base.is_null() {
            return Err(Invalid::Field { field: "base", why: "is null".to_owned() });
        }
        if len == 0 {
            return Err(Invalid::Empty("memory"));
        }
        let host = HostMemory::new(base as u64, len).ok_or_else(|| Invalid::Field {
            field: "len",
            why: format!("{base:p} + {len} lies beyond the address space"),
        })?;
        Ok(Self { host })
    }
}

impl MemoryProvider for CallerMemory {
    fn kind(&self) -> MemoryKind {
        self.host.kind()
    }

    fn len(&self) -> u64 {
        self.host.len()
    }

    fn base(&self) -> u64 {
        self.host.base()
    }

    fn host(&self, span: LocalSpan) -> Option<HostSpan> {
        self.host.host(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller_memory(base: usize, len: u64) -> Result<CallerMemory, Invalid> {
        // SAFETY: the tests do not register the memory, so that nobody touches it.
        unsafe { CallerMemory::new(base as *mut u8, len) }
    }

    #[test]
    fn memory_that_is_null_empty_or_wraps_around_is_refused() {
        assert!(matches!(caller_memory(0, 8), Err(Invalid::Field { field: "base", .. })));
        assert!(matches!(caller_memory(4096, 0), Err(Invalid::Empty(_))));
        assert!(matches!(
            caller_memory(usize::MAX - 7, 9),
            Err(Invalid::Field { field: "len", .. })
        ));
        assert!(matches!(caller_memory(1, u64::MAX), Err(Invalid::Field { field: "len", .. })));
    }

    #[test]
    fn a_span_is_reached_at_its_offset_from_the_base() {
        let memory = caller_memory(0x10000, 64).unwrap();
        assert_eq!((memory.base(), memory.len()), (0x10000, 64));
        let span = LocalSpan { region: 0, len: 8, offset: 56 };
        assert_eq!(memory.host(span), Some(HostSpan { address: 0x10038, len: 8 }));
    }
}
