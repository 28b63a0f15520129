//! The memory of another process, read by system calls. Not memory that is mapped.
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
use std::ptr;

use kvx_core::region::Leases;
use kvx_core::transport::HostSpan;
use libc::{c_void, iovec};

/// Entries of one vector at most: UIO_MAXIOV of process_vm_readv(2).
const VECTOR_LEN: usize = 1024;

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
