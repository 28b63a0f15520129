//! The transport: the sockets that lanes are opened on. Not how the sockets came to be: the engine
//! dials, accepts and authenticates.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use kvx_core::error::LaneError;
use kvx_core::transport::{
    Capabilities, Lane, LaneHost, LaneOpen, Operations, Transport, TransportKind,
};
use kvx_io::{Counters, Pool};
use rustix::net::sockopt;

use crate::options::TcpOptions;
use crate::receive::Receiver;
use crate::send::Sender;
use crate::sys;

/// Memory reached over TCP.
///
/// The stream of a lane must be a connected TCP socket; its options are set here, its descriptor
/// is closed with the lane. A transport that is dropped shuts down.
#[derive(Debug)]
pub struct TcpTransport {
    options: TcpOptions,
    pool: Pool,
}

impl TcpTransport {
    /// A transport without lanes. Its threads start with the first of them.
    ///
    /// # Errors
    /// When the process has no descriptors left: two a thread are needed.
    pub fn new(options: TcpOptions) -> io::Result<Arc<Self>> {
        let pool = Pool::new("kvx-tcp", options.io_threads, options.turn_bytes)?;
        Ok(Arc::new(Self { options, pool }))
    }

    /// What has moved so far. Cheap; the numbers are not taken at one instant.
    pub fn counters(&self) -> Counters {
        self.pool.counters()
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
        let socket = Arc::new(open.stream);
        let sender = Box::new(Sender::new(Arc::clone(&socket)));
        let receiver = Box::new(Receiver::new(Arc::clone(&socket)));
        self.pool.open(open.lane, host, socket, sender, receiver)
    }

    /// Must not be called from a [`LaneHost`]: it waits for the threads that call those.
    fn shutdown(&self) {
        self.pool.shutdown();
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
