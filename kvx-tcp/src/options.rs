//! Options of the transport. Not where they are read from: the engine's builder does that.

use std::time::Duration;

use kvx_io::{MAX_IO_THREADS, default_io_threads};

/// How a [`TcpTransport`](crate::TcpTransport) works. Every option has a default that suits a
/// serving engine's host.
///
/// ```
/// use kvx_tcp::TcpOptions;
///
/// let options = TcpOptions::new().io_threads(2).lanes(8);
/// ```
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// 1 to `MAX_IO_THREADS`.
    pub(crate) io_threads: usize,
    /// At least 1.
    pub(crate) lanes: u16,
    /// At least 1.
    pub(crate) turn_bytes: usize,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) receive_buffer: Option<usize>,
    /// At least a second.
    pub(crate) peer_timeout: Duration,
}

impl TcpOptions {
    /// The defaults.
    pub fn new() -> Self {
        let few = default_io_threads();
        Self {
            io_threads: few,
            lanes: few as u16,
            turn_bytes: 1 << 20,
            send_buffer: None,
            receive_buffer: None,
            peer_timeout: Duration::from_secs(30),
        }
    }

    /// Threads that move bytes, 1 to 64; the smaller of 4 and the cores by default. They start
    /// with the first lanes and sleep while nothing moves. Nearly all their time is the kernel
    /// copying, so that more of them than cores, or than lanes, gain nothing.
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.io_threads = threads.clamp(1, MAX_IO_THREADS);
        self
    }

    /// Lanes to ask for between two engines, at least 1; the smaller of 4 and the cores by
    /// default. One lane keeps one core busy on either side; the smaller number of the two sides
    /// is what helps.
    pub fn lanes(mut self, lanes: u16) -> Self {
        self.lanes = lanes.max(1);
        self
    }

    /// Bytes that a lane may move each way before the next lane of its thread has its turn;
    /// 1 MiB by default. It also bounds one system call, and with it the time for which memory is
    /// leased and a fence waits: more saves system calls, less is fairer and fences sooner.
    pub fn turn_bytes(mut self, bytes: usize) -> Self {
        self.turn_bytes = bytes.max(1);
        self
    }

    /// The socket's send buffer in bytes (SO_SNDBUF, socket(7): the kernel doubles it and caps it
    /// at `net.core.wmem_max`). By default it is not set: the kernel then sizes the buffer by
    /// what the path holds (`net.ipv4.tcp_wmem`), which a fixed number does worse but for tests.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// The socket's receive buffer in bytes (SO_RCVBUF), as for [`Self::send_buffer`]. The window
    /// that a connection can offer is fixed when it is made (RFC 7323, 2.2), before a lane gets
    /// it: a number above the kernel's own default comes too late here to be of use.
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// How long a peer's kernel may be silent before the lane is broken: TCP_USER_TIMEOUT for
    /// bytes that it does not acknowledge, keepalive probes for a lane without traffic. 30 s by
    /// default, at least a second. A stopped process's kernel still acknowledges: the protocol's
    /// heartbeats are for that.
    pub fn peer_timeout(mut self, timeout: Duration) -> Self {
        self.peer_timeout = timeout.max(Duration::from_secs(1));
        self
    }
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self::new()
    }
}
