//! Memory that two processes share, mapped: rings, and the pools of the other side. Not what is in
//! either.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, Stat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Resource, getrlimit};

/// What no one may do to shared memory any more: cut it, which would make a read of it fault; grow
/// it; write it or punch holes in it, but through the mapping that its owner has already.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE);

/// Shared memory, mapped from its first byte on.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it belongs to no thread, and stays where it is until drop.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference it is reached as atomics (`Words`), or by address alone.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(memfd: &OwnedFd, len: usize, prot: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, memfd.as_fd(), 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping, whole; nothing borrows it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Shared memory as words.
#[derive(Debug)]
pub(crate) struct Words(Mapping);

impl Words {
    /// New shared memory of so many words, all zero, that only this mapping can write.
    ///
    /// # Errors
    /// The kernel has no room, or a limit of the process forbids it.
    pub(crate) fn create(words: usize) -> io::Result<(OwnedFd, Self)> {
        let len = words * size_of::<AtomicU64>();
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < len as u64) {
            // Beyond it the kernel does not answer, it kills.
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("kvx-ring", flags)?;
        // Every page is there from now on: a store finds it, or this fails.
        rustix::fs::fallocate(&memfd, FallocateFlags::empty(), 0, len as u64)?;
        let mapping = Mapping::new(&memfd, len, ProtFlags::READ | ProtFlags::WRITE)?;
        rustix::fs::fcntl_add_seals(&memfd, SEALS)?;
        Ok((memfd, Self(mapping)))
    }

    /// The other side's, to be read only.
    ///
    /// # Errors
    /// It is not of that size, or not what [`check`] wants.
    pub(crate) fn attach(memfd: &OwnedFd, words: usize, user: u32) -> io::Result<Self> {
        let len = words * size_of::<AtomicU64>();
        if check(memfd, user)?.st_size as u64 != len as u64 {
            return Err(odd("shared memory of another size"));
        }
        Mapping::new(memfd, len, ProtFlags::READ).map(Self)
    }

    /// The words. Those of the other side's memory must not be written: a store would fault.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let Mapping { base, len } = &self.0;
        // SAFETY: the mapping is that long, page-aligned, and lives as long as `self`; the file is
        // sealed against shrinking and has all its pages, so that all of it can be read. It began as
        // zeros, a value of AtomicU64, as all values are; both sides reach it as atomics, or, were the
        // other side to do otherwise, through memory that this process's abstract machine knows
        // nothing of.
        unsafe { slice::from_raw_parts(base.as_ptr().cast(), len / size_of::<AtomicU64>()) }
    }
}

/// Shared memory of the other side, to be read by whoever knows that it changes at any time.
#[derive(Debug)]
pub(crate) struct Bytes(Mapping);

impl Bytes {
    /// # Errors
    /// It is shorter than `least`, or not what [`check`] wants; or there is no room to map it.
    pub(crate) fn attach(memfd: &OwnedFd, least: u64, user: u32) -> io::Result<Self> {
        let len = check(memfd, user)?.st_size as u64;
        if len < least || len == 0 {
            return Err(odd("shared memory that is shorter than was said"));
        }
        Mapping::new(memfd, len as usize, ProtFlags::READ).map(Self)
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.0.len as u64
    }

    /// Where `len` bytes from `offset` on are, if they are inside: readable while this lives.
    pub(crate) fn at(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        offset.checked_add(len).filter(|end| *end <= self.len())?;
        // SAFETY: inside of the mapping.
        Some(unsafe { self.0.base.add(offset as usize) })
    }
}

/// Whether shared memory can be mapped without a fault lurking in it: it is sealed, every page of it
/// is there, and so stays there; and it is this user's.
///
/// # Errors
/// It is not.
fn check(memfd: &OwnedFd, user: u32) -> io::Result<Stat> {
    let seals = rustix::fs::fcntl_get_seals(memfd).map_err(|_| odd("not shared memory"))?;
    if !seals.contains(SEALS) {
        return Err(odd("shared memory that is not sealed"));
    }
    let stat = rustix::fs::fstat(memfd)?;
    if stat.st_uid != user {
        return Err(odd("another user's shared memory"));
    }
    // stat(2) counts blocks of 512 bytes, those on a swap device too.
    if (stat.st_blocks as u64).saturating_mul(512) < stat.st_size as u64 {
        return Err(odd("shared memory with holes"));
    }
    Ok(stat)
}

fn odd(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
