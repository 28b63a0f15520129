//! The transport: the sockets that lanes are opened on. Not how the sockets came to be: the engine
//! dials, accepts and authenticates.

use std::io;
use std::sync::Arc;

use kvx_core::error::LaneError;
use kvx_core::transport::{
    Capabilities, Lane, LaneHost, LaneOpen, Operations, Transport, TransportKind,
};
use kvx_io::{Counters, Pool};
use rustix::net::sockopt;

use crate::options::ShmOptions;
use crate::pools::Mapped;
use crate::receive::Receiver;
use crate::send::Sender;
use crate::setup::Channel;

/// Memory of another process on the same host.
///
/// The stream of a lane is any connected stream socket; its descriptor is closed with the lane. A
/// transport that is dropped shuts down.
#[derive(Debug)]
pub struct ShmTransport {
    options: ShmOptions,
    pool: Pool,
    /// Pools of other processes.
    mapped: Arc<Mapped>,
}

impl ShmTransport {
    /// A transport without lanes. Its threads start with the first of them.
    ///
    /// # Errors
    /// When the process has no descriptors left: two a thread are needed.
    pub fn new(options: ShmOptions) -> io::Result<Arc<Self>> {
        let pool = Pool::new("kvx-shm", options.io_threads, options.turn_bytes)?;
        Ok(Arc::new(Self { options, pool, mapped: Arc::default() }))
    }

    /// What has moved so far. Cheap; the numbers are not taken at one instant. Payload counts where
    /// it lands, and only there.
    pub fn counters(&self) -> Counters {
        self.pool.counters()
    }
}

impl Transport for ShmTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Shm
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: Operations::WRITE | Operations::READ | Operations::OWNER_CHECKS,
            lanes: self.options.lanes,
        }
    }

    /// Whether the other side's memory is within reach shows later: if not, the lane ends with
    /// [`LaneError::Unreachable`].
    fn open(&self, open: LaneOpen, host: Arc<dyn LaneHost>) -> Result<Arc<dyn Lane>, LaneError> {
        let socket = Arc::new(open.stream);
        rustix::io::ioctl_fionbio(&*socket, true).map_err(|errno| Arc::new(errno.into()))?;
        // Only TCP knows it, and needs it: a bell must not wait for more.
        let _ = sockopt::set_tcp_nodelay(&*socket, true);
        let channel = Arc::new(Channel::open(Arc::clone(&socket), open.key, open.dialed)?);
        let sender = Box::new(Sender::new(Arc::clone(&channel)));
        let receiver = Box::new(Receiver::new(channel, Arc::clone(&self.mapped)));
        self.pool.open(open.lane, host, socket, sender, receiver)
    }

    /// Must not be called from a [`LaneHost`]: it waits for the threads that call those.
    fn shutdown(&self) {
        self.pool.shutdown();
    }
}
