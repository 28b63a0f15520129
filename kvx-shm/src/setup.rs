//! How two sides of a lane come to share memory, and what they say on their socket. Not what they
//! then write to their rings.
//!
//! Each says in a [`Greeting`] where its pids mean something, which process it is, where its ring is,
//! and a challenge. The other, if that is its own place too, writes its answer into its ring and says
//! so ([`READY`]). Now each takes the other's ring out of that process, looks for the answer there,
//! and reads it out of the process's memory: what a copy needs, the probe does. Then it says whether
//! that went well ([`FINE`], [`REFUSED`]). A lane that was refused on one side is over on both, once each
//! has said so.
//!
//! # Why the answer is in the ring
//! A side that may read many processes must not be talked into reading another than the one that it
//! speaks with. The answer is made of the challenge, the lane's key and the side that gives it, so that
//! nobody else knows it, and no answer to another challenge, lane or side is it. It stands in memory
//! that is sealed, is its owner's by its file's uid, is held by the process as a descriptor, and is
//! mapped there: a process that somebody else has sent the answer to has it in none such.

use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use kvx_core::error::LaneError;
use kvx_core::proto::LaneKey;
use kvx_io::Sight;
use rustix::net::{SendFlags, send};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use zerocopy::little_endian::{I32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::host::Place;
use crate::ring::{Own, Theirs};
use crate::sys::{Token, peek};
use crate::yama;

/// The first bytes of a lane's socket, with the version of what follows.
const MAGIC: [u8; 8] = *b"KVXSHM1\n";

/// Said once by each side: its answer is in its ring.
pub(crate) const READY: u8 = 5;
/// Said once by each side after that: it reaches the other's memory.
pub(crate) const FINE: u8 = 1;
/// Said in place of either, and in answer to itself: it does not.
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

impl Greeting {
    /// The process that it names.
    fn process(&self) -> Result<Pid, LaneError> {
        let pid = Some(self.pid.get()).filter(|pid| *pid > 0);
        pid.and_then(Pid::from_raw).ok_or_else(|| unreachable("it has no pid"))
    }
}

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
    /// Threads that look at the other side's ring.
    lookers: AtomicUsize,
    /// How far messages were taken out of the other side's ring.
    taken: AtomicU64,
    /// The marks of the other side that it was rung for.
    rung_asleep: AtomicU64,
    rung_full: AtomicU64,
}

/// What is known of the other side once its memory is within reach.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) theirs: Theirs,
    pub(crate) pid: i32,
    /// The process, whatever its pid means later.
    pub(crate) process: OwnedFd,
    /// Whose it is.
    pub(crate) user: u32,
    pub(crate) token: Token,
}

impl Channel {
    /// Makes this side's ring, and greets.
    ///
    /// # Errors
    /// [`LaneError::Unreachable`]: this side cannot share memory, which the other has heard. Or the
    /// socket is over.
    pub(crate) fn open(
        socket: Arc<OwnedFd>,
        key: LaneKey,
        dialed: bool,
    ) -> Result<Self, LaneError> {
        Self::prepare(Arc::clone(&socket), key, dialed)
            .map_err(|error| {
                let _ = say(&socket, &[REFUSED]);
                refused("this side cannot share memory")(error)
            })
            .and_then(Self::greet)
    }

    fn prepare(socket: Arc<OwnedFd>, key: LaneKey, dialed: bool) -> io::Result<Self> {
        let mut challenge = [0; 16];
        getrandom::fill(&mut challenge).map_err(io::Error::other)?;
        Ok(Self {
            socket,
            place: Place::here()?,
            key,
            dialed,
            challenge,
            own: Own::new()?,
            attached: OnceLock::new(),
            lookers: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            rung_asleep: AtomicU64::new(0),
            rung_full: AtomicU64::new(0),
        })
    }

    fn greet(self) -> Result<Self, LaneError> {
        let said = self.say(self.greeting().as_bytes()).map_err(Arc::new)?;
        // A socket that has carried no more than a handshake has room for as much.
        if said < GREETING {
            return Err(Arc::new(io::Error::from(io::ErrorKind::WriteZero)).into());
        }
        Ok(self)
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

    /// Answers the other side's challenge, and lets it read this process's memory.
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
        yama::let_read(greeting.process()?);
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
    /// [`LaneError::Unreachable`], with the reason.
    pub(crate) fn reach(&self, greeting: &Greeting) -> Result<Attached, LaneError> {
        let process = greeting.process()?;
        let pid = process.as_raw_nonzero().get();
        let held = pidfd_open(process, PidfdFlags::empty()).map_err(refused("pidfd_open"))?;
        let memfd = descriptor(&held, greeting.ring.get()).map_err(refused("pidfd_getfd"))?;
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
            Ok(read) if read == probed.len() => {
                Ok(Attached { theirs, pid, process: held, user, token })
            }
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
        if let Some(mark) = attached.theirs.asleep() {
            self.ring_for(mark, &self.rung_asleep);
        }
    }

    /// Something was read: rings if the other side waits for room, and was not rung since.
    pub(crate) fn ring_if_full(&self, attached: &Attached, read: u64) {
        if let Some(mark) = attached.theirs.wants_room(read) {
            self.ring_for(mark, &self.rung_full);
        }
    }

    fn ring_for(&self, mark: u64, rung: &AtomicU64) {
        if rung.swap(mark, Ordering::AcqRel) != mark {
            // No room for it is room full of bells. A socket that is over says so itself.
            let _ = self.say(&[BELL]);
        }
    }

    /// Whether there is a message that was not taken.
    fn has_arrived(&self) -> bool {
        // What cannot be is found out by who takes it.
        let taken = self.taken.load(Ordering::Relaxed);
        self.attached().is_some_and(|side| !matches!(side.theirs.readable(taken), Ok(0)))
    }

    /// All messages up to this position were taken.
    pub(crate) fn has_taken(&self, position: u64) {
        self.taken.store(position, Ordering::Relaxed);
    }

    /// Says something on the socket, never blocking.
    pub(crate) fn say(&self, bytes: &[u8]) -> io::Result<usize> {
        say(&self.socket, bytes)
    }
}

/// Sees messages in the other side's ring, as long as the lane has its own.
#[derive(Debug)]
pub(crate) struct RingSight(Weak<Channel>);

impl RingSight {
    pub(crate) fn of(channel: &Arc<Channel>) -> Self {
        Self(Arc::downgrade(channel))
    }
}

impl Sight for RingSight {
    fn has_arrived(&self) -> bool {
        self.0.upgrade().is_some_and(|channel| channel.has_arrived())
    }

    fn look(&self) {
        if let Some(channel) = self.0.upgrade()
            && channel.lookers.fetch_add(1, Ordering::SeqCst) == 0
        {
            channel.own.mark_awake();
        }
    }

    fn sleep(&self) -> bool {
        let Some(channel) = self.0.upgrade() else {
            return false;
        };
        // Should another begin to look before the mark is left: it leaves one, too, when it sleeps,
        // and a bell too many is no harm.
        if channel.lookers.fetch_sub(1, Ordering::SeqCst) > 1 {
            return false;
        }
        channel.own.mark_asleep();
        channel.has_arrived()
    }
}

/// Takes a descriptor out of another process.
///
/// # Errors
/// There is none, or the kernel does not allow it.
pub(crate) fn descriptor(process: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?)
}

fn say(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::io::retry_on_intr(|| send(socket, bytes, flags))?)
}

fn refused<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> LaneError {
    move |error| unreachable(format!("{what}: {error}"))
}

pub(crate) fn unreachable(why: impl Into<Arc<str>>) -> LaneError {
    LaneError::Unreachable(why.into())
}
