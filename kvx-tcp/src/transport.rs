//! The transport: its I/O threads, and the sockets that lanes are opened on. Not how the sockets
//! came to be: the engine dials, accepts and authenticates.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kvx_core::error::LaneError;
use kvx_core::transport::{
    Capabilities, Lane, LaneHost, LaneOpen, Operations, Transport, TransportKind,
};
use rustix::net::sockopt;

use crate::counters::Counters;
use crate::doorbell::Doorbell;
use crate::io_thread::{EventLoop, IoThread, Opened};
use crate::lane::TcpLane;
use crate::options::TcpOptions;
use crate::sys;

/// Memory reached over TCP.
///
/// The stream of a lane must be a connected TCP socket; its options are set here, its descriptor
/// is closed with the lane. A transport that is dropped shuts down.
#[derive(Debug)]
pub struct TcpTransport {
    options: TcpOptions,
    /// Never empty.
    threads: Vec<Arc<IoThread>>,
    pool: Mutex<Pool>,
    /// Held by the one who shuts down, so that a second one waits as long as the first.
    stopping: Mutex<()>,
    next_token: AtomicU64,
}

/// The threads that were started.
#[derive(Debug)]
struct Pool {
    /// One for each of the transport's threads.
    handles: Vec<Option<JoinHandle<()>>>,
    is_shut_down: bool,
}

impl TcpTransport {
    /// A transport without lanes. Its threads start with the first of them.
    ///
    /// # Errors
    /// When the process has no descriptors left: two a thread are needed.
    pub fn new(options: TcpOptions) -> io::Result<Arc<Self>> {
        let threads = (0..options.io_threads)
            .map(|_| IoThread::new().map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let pool = Pool { handles: threads.iter().map(|_| None).collect(), is_shut_down: false };
        Ok(Arc::new(Self {
            options,
            threads,
            pool: Mutex::new(pool),
            stopping: Mutex::new(()),
            next_token: AtomicU64::new(0),
        }))
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

    /// The thread with the fewest lanes, started if it was not.
    fn least_loaded(&self, pool: &mut Pool) -> io::Result<&Arc<IoThread>> {
        let all = self.threads.iter().zip(&mut pool.handles).enumerate();
        let (index, (thread, handle)) =
            all.min_by_key(|(_, (thread, _))| thread.lanes()).ok_or(io::ErrorKind::NotFound)?;
        if handle.is_none() {
            let event_loop = EventLoop::new(Arc::clone(thread), self.options.turn_bytes);
            let named = thread::Builder::new().name(format!("kvx-tcp-{index}"));
            *handle = Some(named.spawn(|| event_loop.run())?);
        }
        Ok(thread)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for TcpTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Tcp
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: Operations::WRITE | Operations::READ | Operations::OWNER_CHECKS,
            lanes: self.options.lanes,
        }
    }

    fn open(&self, open: LaneOpen, host: Arc<dyn LaneHost>) -> Result<Arc<dyn Lane>, LaneError> {
        tune(&open.stream, &self.options).map_err(Arc::new)?;
        // Held until the thread has the lane, so that the next one is placed with it in mind.
        let mut pool = self.pool();
        if pool.is_shut_down {
            return Err(LaneError::Closed);
        }
        let thread = self.least_loaded(&mut pool).map_err(Arc::new)?;
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let doorbell = Arc::new(Doorbell::new(token, Arc::clone(thread)));
        let socket = Arc::new(open.stream);
        let lane = Arc::new(TcpLane::new(open.lane, host, doorbell, &socket));
        thread.open(Opened { lane: Arc::clone(&lane), socket })?;
        Ok(lane)
    }

    /// Must not be called from a [`LaneHost`]: it waits for the threads that call those.
    fn shutdown(&self) {
        let _alone = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let handles: Vec<_> = {
            let mut pool = self.pool();
            pool.is_shut_down = true;
            pool.handles.iter_mut().filter_map(Option::take).collect()
        };
        for thread in &self.threads {
            thread.stop();
        }
        for handle in handles {
            // The last owner of a transport may be a host that an I/O thread lets go of: that
            // thread ends by itself.
            if handle.thread().id() != thread::current().id() {
                // A thread that panicked has printed why.
                let _ = handle.join();
            }
        }
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Sets the socket's options. Fails for anything but a TCP socket.
fn tune(stream: &OwnedFd, options: &TcpOptions) -> io::Result<()> {
    let stream = stream.as_fd();
    rustix::io::ioctl_fionbio(stream, true)?;
    // A frame leaves in one call, and an ACK must not wait for more.
    sockopt::set_tcp_nodelay(stream, true)?;
    sys::tell_rest(stream);
    let timeout = options.peer_timeout;
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, millis)?;
    // Probes begin after a third of the time and come at a sixth of it, so that four of them are
    // unanswered when it is over. tcp(7) counts in whole seconds, at most 32,767.
    let seconds = |part: u32| (timeout / part).clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
    sockopt::set_tcp_keepidle(stream, seconds(3))?;
    sockopt::set_tcp_keepintvl(stream, seconds(6))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    sockopt::set_socket_keepalive(stream, true)?;
    if let Some(bytes) = options.send_buffer {
        sockopt::set_socket_send_buffer_size(stream, bytes)?;
    }
    if let Some(bytes) = options.receive_buffer {
        sockopt::set_socket_recv_buffer_size(stream, bytes)?;
    }
    Ok(())
}

const MIN_KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(1);
const MAX_KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(32_767);
