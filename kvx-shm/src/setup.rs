//! How two sides of a lane come to share memory, and what they say on their socket. Not what they
//! then write to their rings.
//!
//! Each says in a [`Greeting`] where its pids mean something, which process it is, where its ring is,
//! and a challenge. The other, if that is its own place too, writes its answer into its ring and says
//! so ([`READY`]). Now each takes the other's ring out of that process, looks for the answer there,
//! and reads it out of the process's memory: what a copy needs, the probe does. Then it says whether
//! that went well ([`FINE`], [`REFUSED`]). A lane that was refused on one side is over on both.
//!
//! # Why the answer is in the ring
//! A side that may read many processes must not be talked into reading another than the one that it
//! speaks with. The answer is made of the challenge, the lane's key and the side that gives it, so that
//! nobody else knows it, and no answer to another challenge, lane or side is it. It stands in memory
//! that is sealed, is its owner's by its file's uid, is held by the process as a descriptor, and is
//! mapped there: a process that somebody else has sent the answer to has it in none such.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use kvx_core::error::LaneError;
use kvx_core::proto::LaneKey;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use zerocopy::little_endian::{I32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::host::Place;
use crate::ring::{Own, Theirs};
use crate::sys::{Token, peek};

/// The first bytes of a lane's socket, with the version of what follows.
const MAGIC: [u8; 8] = *b"KVXSHM1\n";

/// Said once by each side: its answer is in its ring.
pub(crate) const READY: u8 = 5;
/// Said once by each side after that: it reaches the other's memory.
pub(crate) const FINE: u8 = 1;
/// Said in its place: it does not.
pub(crate) const REFUSED: u8 = 2;
/// Said any number of times after that: there is something in the ring, or room.
pub(crate) const BELL: u8 = 3;
/// Said last: memory that was named in the ring is not there.
pub(crate) const SOURCE_GONE: u8 = 4;

/// What each side says first.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Greeting {
    magic: [u8; 8],
    boot: [u8; 16],
    pids_device: U64,
    pids_inode: U64,
    pid: I32,
    ring: I32,
    answer_address: U64,
    challenge: [u8; 16],
}

/// Bytes of a greeting.
pub(crate) const GREETING: usize = size_of::<Greeting>();

/// What the halves of one lane share.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Arc<OwnedFd>,
    place: Place,
    key: LaneKey,
    dialed: bool,
    challenge: [u8; 16],
    pub(crate) own: Own,
    attached: OnceLock<Attached>,
    /// The marks of the other side that it was rung for.
    rung_asleep: AtomicU64,
    rung_full: AtomicU64,
}

/// What is known of the other side once its memory is within reach.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) theirs: Theirs,
    pub(crate) pid: i32,
    pub(crate) token: Token,
}

impl Channel {
    /// Makes this side's ring, and greets.
    ///
    /// # Errors
    /// The kernel has no room, or the socket is over.
    pub(crate) fn open(socket: Arc<OwnedFd>, key: LaneKey, dialed: bool) -> io::Result<Self> {
        let mut challenge = [0; 16];
        getrandom::fill(&mut challenge).map_err(io::Error::other)?;
        let channel = Self {
            socket,
            place: Place::here()?,
            key,
            dialed,
            challenge,
            own: Own::new()?,
            attached: OnceLock::new(),
            rung_asleep: AtomicU64::new(0),
            rung_full: AtomicU64::new(0),
        };
        let greeting = channel.greeting();
        // A socket that has carried no more than a handshake has room for as much.
        if channel.say(greeting.as_bytes())? < GREETING {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(channel)
    }

    fn greeting(&self) -> Greeting {
        Greeting {
            magic: MAGIC,
            boot: self.place.boot,
            pids_device: self.place.pids.0.into(),
            pids_inode: self.place.pids.1.into(),
            pid: std::process::id().cast_signed().into(),
            ring: self.own.number().into(),
            answer_address: self.own.answer_address().into(),
            challenge: self.challenge,
        }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Answers the other side's challenge.
    ///
    /// # Errors
    /// [`LaneError::Unreachable`]: it is somewhere else.
    pub(crate) fn answer(&self, greeting: &Greeting) -> Result<(), LaneError> {
        if greeting.magic != MAGIC {
            return Err(unreachable("the other side speaks another version"));
        }
        if greeting.boot != self.place.boot {
            return Err(unreachable("it is on another host"));
        }
        if (greeting.pids_device.get(), greeting.pids_inode.get()) != self.place.pids {
            return Err(unreachable("it lives in another pid namespace"));
        }
        self.own.answer(&self.answer_of(self.dialed, &greeting.challenge));
        Ok(())
    }

    /// The first half of what a side answers to a challenge: no more is compared.
    fn answer_of(&self, dialed: bool, challenge: &[u8; 16]) -> [u8; 16] {
        let mut answer = [0; 16];
        let whole = self.key.answer(b"kvx 1 shm", dialed, challenge);
        answer.copy_from_slice(&whole[..16]);
        answer
    }

    /// Reaches for the other side's memory.
    ///
    /// # Errors
    /// [`LaneError::Unreachable`], with the reason; [`LaneError::Closed`] where it has died.
    pub(crate) fn reach(&self, greeting: &Greeting) -> Result<Attached, LaneError> {
        let pid = greeting.pid.get();
        // A negative one is no pid, and Pid does not take it.
        let process = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw);
        let process = process.ok_or_else(|| unreachable("it has no pid"))?;
        let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(refused("pidfd_open"))?;
        let number = Some(greeting.ring.get()).filter(|number| *number >= 0);
        let number = number.ok_or_else(|| unreachable("its ring has no descriptor"))?;
        let memfd = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())
            .map_err(refused("pidfd_getfd"))?;
        // The owner of /proc/PID is the process's user, unless it may not be looked into at all.
        let user = fs::metadata(format!("/proc/{pid}")).map_err(refused("its user"))?.uid();
        let theirs = Theirs::attach(&memfd, user).map_err(refused("its ring"))?;
        let value = self.answer_of(!self.dialed, &self.challenge);
        if theirs.answer() != value {
            return Err(unreachable("the process that it names is not the one it speaks for"));
        }
        let token = Token { address: greeting.answer_address.get(), value };
        let mut probed = [0; 16];
        match peek(pid, &mut probed, token.address, token) {
            Ok(read) if read == probed.len() => Ok(Attached { theirs, pid, token }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(refused("process_vm_readv")(error))
            }
            _ => Err(unreachable("its ring is not in its memory")),
        }
    }

    /// The other side is within reach, and so is this one for it.
    pub(crate) fn attach(&self, attached: Attached) {
        let _ = self.attached.set(attached);
    }

    /// The other side, once it is.
    pub(crate) fn attached(&self) -> Option<&Attached> {
        self.attached.get()
    }

    /// Something was written: rings if the other side sleeps, and was not rung since.
    pub(crate) fn ring_if_asleep(&self, attached: &Attached) {
        self.ring_for(attached.theirs.asleep(), &self.rung_asleep);
    }

    /// Something was read: rings if the other side waits for room, and was not rung since.
    pub(crate) fn ring_if_full(&self, attached: &Attached) {
        self.ring_for(attached.theirs.full(), &self.rung_full);
    }

    fn ring_for(&self, mark: u64, rung: &AtomicU64) {
        if rung.swap(mark, Ordering::AcqRel) != mark {
            // No room for it is room full of bells. A socket that is over says so itself.
            let _ = self.say(&[BELL]);
        }
    }

    /// Says something on the socket, never blocking.
    pub(crate) fn say(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::io::retry_on_intr(|| send(&self.socket, bytes, flags))?)
    }
}

/// What the kernel says of reaching for a process. One that has just died is no reason to do without
/// the transport.
fn refused<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> LaneError {
    move |error| {
        let error: io::Error = error.into();
        if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) {
            return LaneError::Closed;
        }
        unreachable(format!("{what}: {error}"))
    }
}

pub(crate) fn unreachable(why: impl Into<Arc<str>>) -> LaneError {
    LaneError::Unreachable(why.into())
}
