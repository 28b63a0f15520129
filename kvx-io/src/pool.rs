//! The I/O threads of one transport, and the lanes that they serve. Not how the lanes' sockets came
//! to be, nor what travels on them.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kvx_core::error::LaneError;
use kvx_core::id::LaneId;
use kvx_core::transport::{Lane, LaneHost};

use crate::counters::Counters;
use crate::doorbell::Doorbell;
use crate::io_thread::{EventLoop, IoThread, Opened};
use crate::lane::{LaneState, ReceiveHalf, SendHalf, SocketLane};

/// More I/O threads than this serve nothing but mistakes.
pub const MAX_IO_THREADS: usize = 64;

/// The smaller of 4 and the cores.
pub fn default_io_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get).min(4)
}

/// A fixed number of I/O threads, which start with the first lanes. A pool that is dropped shuts
/// down.
#[derive(Debug)]
pub struct Pool {
    /// What the threads are called, before their number.
    name: &'static str,
    turn_bytes: usize,
    /// Never empty.
    threads: Vec<Arc<IoThread>>,
    started: Mutex<Started>,
    /// Held by the one who shuts down, so that a second one waits as long as the first.
    stopping: Mutex<()>,
    next_token: AtomicU64,
}

/// The threads that were started.
#[derive(Debug)]
struct Started {
    /// One for each of the pool's threads.
    handles: Vec<Option<JoinHandle<()>>>,
    is_shut_down: bool,
}

impl Pool {
    /// A pool of so many threads, 1 to [`MAX_IO_THREADS`], called `name` and a number. A lane may
    /// move `turn_bytes` each way before the next lane of its thread has its turn.
    ///
    /// # Errors
    /// When the process has no descriptors left: two a thread are needed.
    pub fn new(name: &'static str, threads: usize, turn_bytes: usize) -> io::Result<Self> {
        let threads = (0..threads.clamp(1, MAX_IO_THREADS))
            .map(|_| IoThread::new().map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let handles = threads.iter().map(|_| None).collect();
        Ok(Self {
            name,
            turn_bytes,
            threads,
            started: Mutex::new(Started { handles, is_shut_down: false }),
            stopping: Mutex::new(()),
            next_token: AtomicU64::new(0),
        })
    }

    /// Opens a lane on a socket, which must be non-blocking; its descriptor is closed with the
    /// lane. The halves may be at work before this returns.
    ///
    /// # Errors
    /// The pool is shut down, or the system has no room for the socket or a thread.
    pub fn open(
        &self,
        id: LaneId,
        host: Arc<dyn LaneHost>,
        socket: Arc<OwnedFd>,
        sender: Box<dyn SendHalf>,
        receiver: Box<dyn ReceiveHalf>,
    ) -> Result<Arc<dyn Lane>, LaneError> {
        // Held until the thread has the lane, so that the next one is placed with it in mind.
        let mut started = self.started();
        if started.is_shut_down {
            return Err(LaneError::Closed);
        }
        let thread = self.least_loaded(&mut started).map_err(Arc::new)?;
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let doorbell = Arc::new(Doorbell::new(token, Arc::clone(thread)));
        let state = LaneState::new(id, host, doorbell, &socket);
        let lane = Arc::new(SocketLane::new(state, sender, receiver));
        thread.open(Opened { lane: Arc::clone(&lane), socket })?;
        Ok(lane)
    }

    /// What has moved so far. Cheap; the numbers are not taken at one instant.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for thread in &self.threads {
            counters.lanes += thread.lanes() as u64;
            counters.sent += thread.sent.read();
            counters.received += thread.received.read();
        }
        counters
    }

    /// Closes every lane and ends the threads. No host is called after it returns.
    ///
    /// Must not be called from a [`LaneHost`]: it waits for the threads that call those.
    pub fn shutdown(&self) {
        let _alone = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let handles: Vec<_> = {
            let mut started = self.started();
            started.is_shut_down = true;
            started.handles.iter_mut().filter_map(Option::take).collect()
        };
        for thread in &self.threads {
            thread.stop();
        }
        for handle in handles {
            // The last owner of a pool may be a host that an I/O thread lets go of: that thread
            // ends by itself.
            if handle.thread().id() != thread::current().id() {
                // A thread that panicked has printed why.
                let _ = handle.join();
            }
        }
    }

    /// The thread with the fewest lanes, started if it was not.
    fn least_loaded(&self, started: &mut Started) -> io::Result<&Arc<IoThread>> {
        let all = self.threads.iter().zip(&mut started.handles).enumerate();
        let (index, (thread, handle)) =
            all.min_by_key(|(_, (thread, _))| thread.lanes()).ok_or(io::ErrorKind::NotFound)?;
        if handle.is_none() {
            let event_loop = EventLoop::new(Arc::clone(thread), self.turn_bytes);
            let named = thread::Builder::new().name(format!("{}-{index}", self.name));
            *handle = Some(named.spawn(|| event_loop.run())?);
        }
        Ok(thread)
    }

    fn started(&self) -> MutexGuard<'_, Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shutdown();
    }
}
