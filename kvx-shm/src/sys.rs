//! Shared memory, and the memory of another process: the only unsafe code of this crate.
//!
//! # Why [`pull`] is not an `unsafe fn`
//! It hands addresses of this process to the kernel, to be written, that no reference vouches for.
//! Who does:
//! - The address of a place comes from a [`MemoryProvider`](kvx_core::transport::MemoryProvider)
//!   and lies inside its region ([`kvx_io::Places`] checks the bounds). Whoever registered the
//!   memory promised, in an unsafe call of the engine, that system calls may write it until the
//!   region's gate is closed and drained, and that nothing of it is borrowed meanwhile.
//! - The caller shows [`Leases`] on the gates of all regions concerned: none of them has drained.
//! - Memory that is unmapped all the same is not touched: the kernel answers EFAULT.
//!
//! Addresses of the other process are only read, whatever they are.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use kvx_core::region::Leases;
use kvx_core::transport::HostSpan;
use libc::{c_void, iovec};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Resource, getrlimit};

/// Entries of one vector at most: UIO_MAXIOV of process_vm_readv(2).
const VECTOR_LEN: usize = 1024;

/// What no one may do to shared memory any more: cut it, which would make a read of it fault; grow
/// it; write it or punch holes in it, but through the mapping that its owner has already.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE);

/// Shared memory, mapped whole, as words.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is shared, and reached as atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New shared memory of so many words, all zero, that only this mapping can write.
    ///
    /// # Errors
    /// The kernel has no room, or a limit of the process forbids it.
    pub(crate) fn create(words: usize) -> io::Result<(OwnedFd, Self)> {
        let len = (words * size_of::<AtomicU64>()) as u64;
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < len) {
            // Beyond it the kernel does not answer, it kills.
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("kvx-ring", flags)?;
        // Every page is there from now on: a store finds it, or this fails.
        rustix::fs::fallocate(&memfd, FallocateFlags::empty(), 0, len)?;
        let mapping = Self::map(&memfd, words, ProtFlags::READ | ProtFlags::WRITE)?;
        rustix::fs::fcntl_add_seals(&memfd, SEALS)?;
        Ok((memfd, mapping))
    }

    /// The other side's, to be read only.
    ///
    /// # Errors
    /// It is not of that size, not sealed, not this user's, or no shared memory at all.
    pub(crate) fn attach(memfd: &OwnedFd, words: usize, user: u32) -> io::Result<Self> {
        let len = words * size_of::<AtomicU64>();
        let odd = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let seals = rustix::fs::fcntl_get_seals(memfd).map_err(|_| odd("not shared memory"))?;
        if !seals.contains(SEALS) {
            return Err(odd("shared memory that is not sealed"));
        }
        let stat = rustix::fs::fstat(memfd)?;
        if stat.st_size as u64 != len as u64 {
            return Err(odd("shared memory of another size"));
        }
        if stat.st_uid != user {
            return Err(odd("another user's shared memory"));
        }
        Self::map(memfd, words, ProtFlags::READ)
    }

    fn map(memfd: &OwnedFd, words: usize, prot: ProtFlags) -> io::Result<Self> {
        let len = words * size_of::<AtomicU64>();
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, memfd.as_fd(), 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, words })
    }

    /// The words. Those of the other side's memory must not be written: a store would fault.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, page-aligned, and lives as long as `self`; the file is
        // sealed against shrinking, so that all of it can be read. It began as zeros, a value of
        // AtomicU64, as all values are; both sides reach it as atomics, or, were the other side to
        // do otherwise, through memory that this process's abstract machine knows nothing of.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping, made by `map`, whole; nothing borrows it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
    }
}

/// Something that lies in another process's memory, and shows that it is still that process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its address there.
    pub(crate) address: u64,
    /// What is to be found there.
    pub(crate) value: [u8; 16],
}

/// Copies from `sources` of the process `pid` into `places`, at most `limit` bytes, by one system
/// call. Gives the number of bytes that were copied out of the address space that `token` is in; 0
/// where that cannot be said of any, for some memory is not there.
///
/// # Errors
/// What the kernel answers; `NotFound` where the token is another: the process is, or the lane.
pub(crate) fn pull(
    pid: i32,
    _held: &Leases<'_>,
    places: &[HostSpan],
    sources: &[HostSpan],
    limit: usize,
    token: Token,
) -> io::Result<usize> {
    let (mut here, mut there) = (Vector::new(), Vector::new());
    let bytes = here.push_spans(places, limit);
    let bytes = there.push_spans(sources, bytes);
    // As much on both sides.
    here.clear();
    let bytes = here.push_spans(places, bytes);
    read_with_token(pid, here, there, bytes, token)
}

/// Copies from one place of the process `pid` into a buffer of this one; as [`pull`].
pub(crate) fn peek(pid: i32, buffer: &mut [u8], address: u64, token: Token) -> io::Result<usize> {
    let len = buffer.len();
    let (mut here, mut there) = (Vector::new(), Vector::new());
    here.push(buffer.as_mut_ptr().cast(), len);
    there.push_spans(&[HostSpan { address, len: len as u64 }], len);
    read_with_token(pid, here, there, len, token)
}

/// Reads `bytes` that both vectors name, and the token after them.
fn read_with_token(
    pid: i32,
    mut here: Vector,
    mut there: Vector,
    bytes: usize,
    token: Token,
) -> io::Result<usize> {
    let mut found = [0_u8; 16];
    here.push(found.as_mut_ptr().cast(), found.len());
    there.push(ptr::with_exposed_provenance_mut(token.address as usize), found.len());
    let read = loop {
        let (to, from) = (here.entries.as_ptr().cast(), there.entries.as_ptr().cast());
        // SAFETY: the first `len` entries of both vectors are filled in, and the vectors live on.
        // process_vm_readv(2) writes what `here` names: `found` and a buffer, which are borrowed
        // mutably, and places, for which the module's invariant stands.
        let read =
            unsafe { libc::process_vm_readv(pid, to, here.len as u64, from, there.len as u64, 0) };
        match usize::try_from(read) {
            Ok(read) => break read,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() == Some(libc::EFAULT) {
                    return Ok(0);
                }
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    if read < bytes + found.len() {
        return Ok(0);
    }
    if found != token.value {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(bytes)
}

/// One side's vector of a call, on the stack. Keeps an entry for the token.
struct Vector {
    /// The first `len` are filled in.
    entries: [MaybeUninit<iovec>; VECTOR_LEN],
    /// At most `VECTOR_LEN`.
    len: usize,
}

impl Vector {
    fn new() -> Self {
        Self { entries: [const { MaybeUninit::uninit() }; VECTOR_LEN], len: 0 }
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    fn push(&mut self, base: *mut c_void, len: usize) {
        if let Some(entry) = self.entries.get_mut(self.len) {
            entry.write(iovec { iov_base: base, iov_len: len });
            self.len += 1;
        }
    }

    /// Appends spans until `limit` bytes are named or one entry is left, which is the token's; the
    /// last span in part if need be. Gives the number of bytes.
    fn push_spans(&mut self, spans: &[HostSpan], limit: usize) -> usize {
        let mut room = limit;
        for span in spans {
            // Both conversions keep the value: the crate is built for 64 bits only.
            let (address, len) = (span.address as usize, span.len as usize);
            let part = len.min(room);
            if part == 0 || self.len == VECTOR_LEN - 1 {
                break;
            }
            self.push(ptr::with_exposed_provenance_mut(address), part);
            room -= part;
        }
        limit - room
    }
}

#[cfg(test)]
mod tests;
