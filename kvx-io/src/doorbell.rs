//! How other threads ask an I/O thread to look at a lane. Not what it then does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use crate::io_thread::IoThread;

/// The bell of one lane. Ringing it again before it was answered costs one atomic operation.
#[derive(Debug)]
pub(crate) struct Doorbell {
    /// The lane's number on its thread.
    token: u64,
    /// Whether the token is in the thread's inbox, or about to be.
    rung: AtomicBool,
    thread: Arc<IoThread>,
}

impl Doorbell {
    pub(crate) fn new(token: u64, thread: Arc<IoThread>) -> Self {
        Self { token, rung: AtomicBool::new(false), thread }
    }

    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    pub(crate) fn thread(&self) -> &Arc<IoThread> {
        &self.thread
    }

    /// Makes the thread look at the lane: after this call, at everything that was done before it.
    pub(crate) fn ring(&self) {
        // An exchange each time, not a load first: `answer` reads the last one, and so sees what
        // every ringer did before it rang, even those who found the bell ringing.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.thread.call(self.token);
        }
    }

    /// The thread is about to look at the lane: whoever rings from now on is heard again.
    pub(crate) fn answer(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// Memory providers ring when staged memory is ready.
impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
