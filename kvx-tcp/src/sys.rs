//! The system calls that reach registered memory: the only unsafe code of this crate.
//!
//! Not a socket library: bytes of the crate's own buffers go through rustix.
//!
//! # Why these functions are not `unsafe fn`
//! [`gather`] and [`scatter`] hand addresses to the kernel that no reference vouches for. Who
//! does:
//! - The address of a place comes from a [`MemoryProvider`](kvx_core::transport::MemoryProvider)
//!   and lies inside its region ([`kvx_io::Places`] checks the bounds). Whoever registered the
//!   memory promised, in an unsafe call of the engine, that system calls may read and write it
//!   until the region's gate is closed and drained, and that nothing of it is borrowed meanwhile.
//! - The caller shows [`Leases`] on the gates of all regions concerned: none of them has drained.
//! - Memory that is unmapped all the same is not touched: the kernel answers EFAULT. No reference
//!   or `IoSlice` to registered memory is ever formed.
#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use kvx_core::region::Leases;
use kvx_core::transport::HostSpan;
use libc::{c_int, c_void, iovec, msghdr};

/// Entries of one vectored call at most: UIO_MAXIOV of readv(2), EMSGSIZE beyond.
const VECTOR_LEN: usize = 1024;

/// Sends `prefix` and then bytes of `places`, never blocking: as many as the socket takes, and of
/// the places at most `limit`. Gives the number of bytes sent.
///
/// A closed peer is EPIPE, without a signal.
pub(crate) fn gather(
    socket: BorrowedFd<'_>,
    _held: &Leases<'_>,
    prefix: &[u8],
    places: &[HostSpan],
    limit: usize,
) -> io::Result<usize> {
    let mut vector = Vector::new();
    vector.push(prefix.as_ptr().cast_mut().cast(), prefix.len());
    vector.push_places(places, limit);
    let message = vector.message();
    retry(|| {
        // SAFETY: `message` points to `vector`, whose first `msg_iovlen` entries are filled in;
        // both live on. sendmsg(2) only reads what they point to: `prefix`, which is borrowed,
        // and places, for which the module's invariant stands.
        unsafe {
            libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        }
    })
}

/// What a call has received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// 0 is the end of the stream.
    pub(crate) bytes: usize,
    /// Nothing more was there when the call returned: neither bytes nor the end of the stream.
    /// Only known where the socket tells ([`tell_rest`]).
    pub(crate) last: bool,
}

/// Receives into `places` and, if `limit` covers all of them, further into `tail`, never blocking.
pub(crate) fn scatter(
    socket: BorrowedFd<'_>,
    _held: &Leases<'_>,
    places: &[HostSpan],
    tail: &mut [u8],
    limit: usize,
) -> io::Result<Arrived> {
    let mut vector = Vector::new();
    if vector.push_places(places, limit) {
        vector.push(tail.as_mut_ptr().cast(), tail.len());
    }
    receive(socket, vector)
}

/// Receives into a buffer of this process, never blocking.
pub(crate) fn read(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Arrived> {
    let mut vector = Vector::new();
    vector.push(buffer.as_mut_ptr().cast(), buffer.len());
    receive(socket, vector)
}

/// Receives into what `vector` names: memory that is borrowed mutably, or places.
fn receive(socket: BorrowedFd<'_>, mut vector: Vector) -> io::Result<Arrived> {
    let mut control = Control::new();
    let mut message = vector.message();
    let bytes = retry(|| {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = mem::size_of::<Control>();
        // SAFETY: `message` points to `vector`, whose first `msg_iovlen` entries are filled in,
        // and to `control`; all live on. recvmsg(2) writes to `control`, and to what the entries
        // name: the callers borrow it mutably, or it is places, for which the module's invariant
        // stands. No name is given.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) }
    })?;
    let told = message.msg_controllen >= Control::LEN && control.is_rest();
    Ok(Arrived { bytes, last: told && control.rest == 0 })
}

/// Makes the socket tell with each call how much is left in it. Where the kernel cannot (before
/// Linux 4.18), each call goes without.
pub(crate) fn tell_rest(socket: BorrowedFd<'_>) {
    let on: c_int = 1;
    // SAFETY: the option's value is the int that `on` is, which lives on, and as long as said.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_INQ,
            (&raw const on).cast(),
            mem::size_of::<c_int>() as libc::socklen_t,
        )
    };
}

/// TCP_INQ and TCP_CM_INQ of linux/tcp.h, one number.
const TCP_INQ: c_int = 36;

/// The one control message that a lane's socket sends: cmsg(3), as linux/tcp.h fills it for
/// TCP_INQ. An end of the stream that is due counts as a byte.
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    rest: c_int,
    padding: c_int,
}

impl Control {
    /// CMSG_LEN of its int.
    const LEN: usize = mem::offset_of!(Self, padding);

    fn new() -> Self {
        Self { len: 0, level: 0, kind: 0, rest: 0, padding: 0 }
    }

    fn is_rest(&self) -> bool {
        self.len == Self::LEN && self.level == libc::IPPROTO_TCP && self.kind == TCP_INQ
    }
}

/// Drops at most `len` bytes that have arrived, inside the kernel: with MSG_TRUNC, tcp(7), nothing
/// is copied anywhere. Gives the number of bytes dropped; 0 is the end of the stream.
pub(crate) fn discard(socket: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    const FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    retry(|| {
        // SAFETY: a null buffer names no memory: TCP writes nothing under MSG_TRUNC, and anything
        // that did would be answered EFAULT.
        unsafe { libc::recv(socket.as_raw_fd(), ptr::null_mut(), len, FLAGS) }
    })
}

/// The vector of one call, on the stack.
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

    /// Appends one entry, unless it is empty; `false` if there is no room.
    fn push(&mut self, base: *mut c_void, len: usize) -> bool {
        if len == 0 {
            return true;
        }
        let Some(entry) = self.entries.get_mut(self.len) else {
            return false;
        };
        entry.write(iovec { iov_base: base, iov_len: len });
        self.len += 1;
        true
    }

    /// Appends places until `limit` bytes or the vector are full, the last one in part if need be;
    /// `true` if all of them found room.
    fn push_places(&mut self, places: &[HostSpan], limit: usize) -> bool {
        let mut room = limit;
        for place in places {
            // Both conversions keep the value: the crate is built for 64 bits only.
            let (address, len) = (place.address as usize, place.len as usize);
            let part = len.min(room);
            if part == 0 || !self.push(ptr::with_exposed_provenance_mut(address), part) {
                return false;
            }
            room -= part;
            if part < len {
                return false;
            }
        }
        true
    }

    /// The message header that names the entries. It holds a pointer to `self`.
    fn message(&mut self) -> msghdr {
        // SAFETY: all fields of msghdr are integers and pointers, for which zero is a value.
        let mut message: msghdr = unsafe { mem::zeroed() };
        message.msg_iov = self.entries.as_mut_ptr().cast();
        message.msg_iovlen = self.len;
        message
    }
}

/// The result of a call that answers -1 and errno, called again while a signal interrupts it.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
