//! What the I/O thread's epoll watches a lane's socket for. Not the watching.
//!
//! Each change of it is a system call, and each change that leaves room in is an event, for there
//! mostly is room. So room is watched for from the moment that there is none, and no longer than
//! to the next change that is made anyway.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::epoll::EventFlags;

use crate::doorbell::Doorbell;

/// A lane's socket, and what it is watched for.
#[derive(Debug)]
pub(crate) struct Watched {
    socket: Weak<OwnedFd>,
    watch: Mutex<Watch>,
}

/// What a socket is watched for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// Bytes, or the end of the stream: unless another thread sees to them.
    arrivals: bool,
    /// Room for more bytes to send. Set whenever `full` is.
    room: bool,
    /// The last attempt to send found no room.
    full: bool,
}

impl Watched {
    /// As the socket is added to the epoll: [`Watch::AT_FIRST`].
    pub(crate) fn new(socket: Weak<OwnedFd>) -> Self {
        Self { socket, watch: Mutex::new(Watch::AT_FIRST) }
    }

    /// The socket was full: the I/O thread hears when it is not.
    pub(crate) fn is_full(&self, doorbell: &Doorbell) {
        let mut watch = self.lock();
        watch.full = true;
        if !watch.room {
            watch.room = true;
            self.apply(*watch, doorbell);
        }
    }

    /// The socket has taken bytes again.
    pub(crate) fn has_taken(&self) {
        self.lock().full = false;
    }

    /// Whether the I/O thread sees to arrivals: when it begins to, to those too that are there.
    pub(crate) fn set_arrivals(&self, arrivals: bool, doorbell: &Doorbell) {
        let mut watch = self.lock();
        watch.arrivals = arrivals;
        watch.room = watch.full;
        self.apply(*watch, doorbell);
    }

    /// The lock is held meanwhile, so that the last change made is the last one applied.
    fn apply(&self, watch: Watch, doorbell: &Doorbell) {
        if let Some(socket) = self.socket.upgrade() {
            doorbell.thread().watch(&socket, doorbell.token(), watch.flags());
        }
    }

    /// The socket, while the lane is open.
    pub(crate) fn socket(&self) -> Option<std::sync::Arc<OwnedFd>> {
        self.socket.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// For arrivals.
    pub(crate) const AT_FIRST: Self = Self { arrivals: true, room: false, full: false };

    pub(crate) fn flags(self) -> EventFlags {
        let mut flags = EventFlags::ET;
        flags.set(EventFlags::IN | EventFlags::RDHUP, self.arrivals);
        flags.set(EventFlags::OUT, self.room);
        flags
    }
}
