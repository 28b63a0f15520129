//! Memory that the engine allocates: a sealed memfd, so that a same-host transport can map it. It does not register itself.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use kvx_core::error::{Cause, Invalid};
use kvx_core::transport::{HostSpan, LocalSpan, MemoryKind, MemoryProvider};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Resource, getrlimit};

use super::available::available;
use super::words::Words;

/// Host memory allocated by the engine: zeroed, page-aligned, resident.
///
/// It is a memfd of exactly [`len`](Self::len) bytes, sealed so that no one can cut it, grow it or
/// write it through the descriptor: a peer that is handed the descriptor can map it to read, and
/// can do nothing that makes an access here fail. Clones share the memory; it is unmapped when the
/// last clone and the last region registered over it are gone.
///
/// The safe methods copy. What they find is what was there at some moment: while a transfer
/// writes the same bytes, a read gives old and new ones in any mixture. After a fork both
/// processes have the same memory, not copies of it.
///
/// ```
/// use kvx::memory::Buffer;
///
/// let buffer = Buffer::allocate(1 << 20)?;
/// buffer.write(4096, b"block")?;
/// let mut bytes = [0; 5];
/// buffer.read(4096, &mut bytes)?;
/// assert_eq!(&bytes, b"block");
/// # Ok::<(), kvx_core::error::Cause>(())
/// ```
#[derive(Clone)]
pub struct Buffer {
    mapping: Arc<Mapping>,
}

impl Buffer {
    /// Allocates `len` bytes.
    ///
    /// All pages are there when it returns, so that no later access fails for lack of memory.
    ///
    /// # Errors
    /// [`Invalid::Empty`] for no bytes; [`Cause::OutOfMemory`] when the machine, the control
    /// group or a limit of the process (RLIMIT_FSIZE, RLIMIT_AS) leaves no room for as much; [`Cause::Io`] when the kernel refuses for another reason.
    pub fn allocate(len: u64) -> Result<Self, Cause> {
        if len == 0 {
            return Err(Invalid::Empty("buffer").into());
        }
        Ok(Self { mapping: Arc::new(Mapping::new(len)?) })
    }

    /// Length in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> u64 {
        self.mapping.len as u64
    }

    /// The first byte, aligned to a page. Valid as long as this buffer or a clone lives; peers
    /// may change what it points to at any time.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.base.as_ptr()
    }

    /// The address of the first byte in this process.
    pub fn address(&self) -> u64 {
        self.as_ptr() as u64
    }

    /// The descriptor, close-on-exec. Whoever gets it can read the memory and cannot write it.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.mapping.memfd.as_fd()
    }

    /// Copies `bytes` into the buffer.
    ///
    /// # Errors
    /// [`Invalid::OutOfBounds`]; nothing is written then.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Invalid> {
        let offset = self.mapping.range(offset, bytes.len() as u64)?;
        self.mapping.words().write(offset, bytes);
        Ok(())
    }

    /// Copies from the buffer into `bytes`.
    ///
    /// # Errors
    /// [`Invalid::OutOfBounds`]; nothing is read then.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Invalid> {
        let offset = self.mapping.range(offset, bytes.len() as u64)?;
        self.mapping.words().read(offset, bytes);
        Ok(())
    }

    /// Sets `len` bytes to `byte`.
    ///
    /// # Errors
    /// [`Invalid::OutOfBounds`]; nothing is written then.
    pub fn fill(&self, offset: u64, len: u64, byte: u8) -> Result<(), Invalid> {
        let offset = self.mapping.range(offset, len)?;
        // `range` found offset + len within the mapping, whose length is a usize.
        self.mapping.words().fill(offset, len as usize, byte);
        Ok(())
    }

    /// The buffer as bytes, without a copy.
    ///
    /// # Safety
    /// While the slice lives nobody writes the memory: no transfer into it is open, no grant
    /// covers it, no peer holds a region key that allows writing it, and no other thread calls
    /// [`write`](Self::write), [`fill`](Self::fill) or [`as_mut_slice`](Self::as_mut_slice).
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping has `len` initialised bytes, lives as long as `self`, and is not
        // written while the slice lives, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.mapping.len) }
    }

    /// The buffer as bytes that may be changed, without a copy.
    ///
    /// # Safety
    /// While the slice lives nobody else reads or writes the memory: no transfer in or out of it
    /// is open, no grant covers it, no peer holds a region key of it, and no other thread or clone
    /// uses the buffer.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the caller promises that nobody else accesses the memory.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.mapping.len) }
    }

    /// The memory as regions hold it. It stays mapped as long as the provider lives.
    pub(crate) fn provider(&self) -> Arc<dyn MemoryProvider> {
        Arc::clone(&self.mapping) as Arc<dyn MemoryProvider>
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("base", &self.as_ptr()).field("len", &self.len()).finish()
    }
}

/// A sealed memfd and the only writable mapping of it.
#[derive(Debug)]
struct Mapping {
    /// Aligned to a page; `len` bytes and the rest of the last page are mapped until drop.
    base: NonNull<u8>,
    /// The memfd's length in bytes; at least 1, at most `isize::MAX` when rounded up to pages.
    len: usize,
    memfd: OwnedFd,
}

// SAFETY: the mapping belongs to no thread, and its address stays the same until drop.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference the memory is accessed by atomics (`Words`) and system calls
// only; `Buffer::as_slice` leaves it to its caller to keep others away.
unsafe impl Sync for Mapping {}

/// Pages are allocated in steps of this many bytes. A signal makes the kernel give a step's pages
/// back and start it again (EINTR), so that with a profiler's timer a step must be short; and what
/// others took meanwhile is noticed in between.
const ALLOCATION_STEP: u64 = 16 << 20;

/// Kept free beside an allocation, for page tables and for everybody else.
const SPARE: u64 = 32 << 20;

impl Mapping {
    fn new(len: u64) -> Result<Self, Cause> {
        let out_of_memory = || Cause::OutOfMemory { bytes: len };
        // Half the address space is beyond every machine, and keeps all sums below in range.
        let size = usize::try_from(len).ok().filter(|size| *size < isize::MAX as usize / 2);
        let size = size.ok_or_else(out_of_memory)?;
        let failed = |action: &'static str| {
            move |error: Errno| match error {
                Errno::NOMEM | Errno::NOSPC | Errno::FBIG => Cause::OutOfMemory { bytes: len },
                error => Cause::io(action, error.into()),
            }
        };
        if len.saturating_add(SPARE) > available() || len > file_size_limit() {
            return Err(out_of_memory());
        }
        let memfd = create_memfd().map_err(failed("memfd_create"))?;
        rustix::fs::ftruncate(&memfd, len).map_err(failed("ftruncate"))?;
        let mut done = 0;
        while done < len {
            let step = ALLOCATION_STEP.min(len - done);
            if step.saturating_add(SPARE) > available() {
                return Err(out_of_memory());
            }
            rustix::io::retry_on_intr(|| fallocate(&memfd, FallocateFlags::empty(), done, step))
                .map_err(failed("fallocate"))?;
            done += step;
        }
        // SAFETY: a fresh mapping, placed by the kernel, replaces nothing.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                &memfd,
                0,
            )
        };
        let base = base.map_err(failed("mmap"))?;
        let base = NonNull::new(base.cast()).ok_or_else(|| {
            Cause::io("mmap", io::Error::other("the kernel mapped a buffer at address 0"))
        })?;
        let mapping = Self { base, len: size, memfd };
        // FUTURE_WRITE leaves the mapping made above writable and refuses every later one.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&mapping.memfd, seals).map_err(failed("seal memfd"))?;
        Ok(mapping)
    }

    /// `offset` as an index, if the range lies inside.
    fn range(&self, offset: u64, len: u64) -> Result<usize, Invalid> {
        let region_len = self.len as u64;
        match offset.checked_add(len) {
            // Not above `len`, which is a usize.
            Some(end) if end <= region_len => Ok(offset as usize),
            _ => Err(Invalid::OutOfBounds { index: 0, offset, len, region_len }),
        }
    }

    fn words(&self) -> Words {
        // SAFETY: pages are multiples of words, so that the last, partial word of `len` bytes is
        // mapped too; the value is used within the calls of `Buffer`, which keeps the mapping.
        // Slices over the memory are ordered with these accesses by their callers' promise.
        unsafe { Words::new(self.base, self.len.div_ceil(size_of::<u64>())) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, not unmapped since, and no reference is left:
        // whoever reaches the memory holds the Arc. The call cannot fail for a whole mapping, and
        // if it did, leaking it would be the only answer.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl MemoryProvider for Mapping {
    fn kind(&self) -> MemoryKind {
        MemoryKind::Host
    }

    fn len(&self) -> u64 {
        self.len as u64
    }

    fn base(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    fn host(&self, span: LocalSpan) -> Option<HostSpan> {
        let len = u64::from(span.len);
        self.range(span.offset, len).ok()?;
        Some(HostSpan { address: self.base() + span.offset, len })
    }

    fn memfd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.memfd.as_fd())
    }
}

/// How large a file may be, a memfd too: beyond it the kernel does not only refuse (setrlimit(2),
/// RLIMIT_FSIZE), it sends SIGXFSZ, which ends a process that does not expect it.
fn file_size_limit() -> u64 {
    getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// A memfd that can be sealed and, where the kernel knows the flag (6.3), never be executed.
fn create_memfd() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("kvx-buffer", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("kvx-buffer", flags),
        result => result,
    }
}

#[cfg(test)]
mod tests;
