//! Options of the transport. Not where they are read from: the engine's builder does that.

use kvx_io::{MAX_IO_THREADS, default_io_threads};

/// How a [`ShmTransport`](crate::ShmTransport) works. Every option has a default that suits a
/// serving engine's host.
///
/// ```
/// use kvx_shm::ShmOptions;
///
/// let options = ShmOptions::new().io_threads(2).lanes(2);
/// ```
#[derive(Clone, Debug)]
pub struct ShmOptions {
    /// 1 to `MAX_IO_THREADS`.
    pub(crate) io_threads: usize,
    /// At least 1.
    pub(crate) lanes: u16,
    /// At least 1.
    pub(crate) turn_bytes: usize,
}

impl ShmOptions {
    /// The defaults.
    pub fn new() -> Self {
        let few = default_io_threads();
        Self { io_threads: few, lanes: few as u16, turn_bytes: 1 << 20 }
    }

    /// Threads that copy, 1 to 64; the smaller of 4 and the cores by default. They start with the
    /// first lanes and sleep while nothing moves.
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.io_threads = threads.clamp(1, MAX_IO_THREADS);
        self
    }

    /// Lanes to ask for between two engines, at least 1; the smaller of 4 and the cores by
    /// default. One lane keeps one core of the receiving side busy.
    pub fn lanes(mut self, lanes: u16) -> Self {
        self.lanes = lanes.max(1);
        self
    }

    /// Bytes that a lane may copy before the next lane of its thread has its turn; 1 MiB by
    /// default. It also bounds one system call, and with it the time for which memory is leased
    /// and a fence waits.
    pub fn turn_bytes(mut self, bytes: usize) -> Self {
        self.turn_bytes = bytes.max(1);
        self
    }
}

impl Default for ShmOptions {
    fn default() -> Self {
        Self::new()
    }
}
