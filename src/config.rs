//! The options of an engine: their names, defaults, sources and bounds. Nothing is opened, read
//! or resolved here but the environment.

mod advertise;
mod environment;
mod options;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use kvx_core::error::Invalid;
use kvx_core::transport::TransportKind;

pub use advertise::Advertise;
pub use environment::UnknownVariable;
pub use options::Setting;

/// The options of one engine.
///
/// Every option has one name: that of its setter here, in upper case behind `KVX_` in the
/// environment. A setter wins over the environment, the environment over the default.
///
/// ```
/// use std::time::Duration;
/// use kvx::config::{Config, Source};
///
/// let variables = [("KVX_BIND".to_owned(), "127.0.0.1:8998".to_owned())];
/// let config = Config::from_env_vars(variables)?.deadline(Duration::from_secs(3)).name("decode-0");
/// config.validate()?;
/// let bind = config.settings().into_iter().find(|setting| setting.name == "bind").unwrap();
/// assert_eq!((bind.value.as_str(), bind.source), ("127.0.0.1:8998", Source::Environment));
/// # Ok::<(), kvx_core::error::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) transports: Sourced<Vec<TransportKind>>,
    pub(crate) bind: Sourced<SocketAddr>,
    /// Empty: what the bound address suggests.
    pub(crate) advertise: Sourced<Vec<Advertise>>,
    pub(crate) auth_key_file: Sourced<Option<PathBuf>>,
    pub(crate) metadata_auth: Sourced<bool>,
    pub(crate) insecure: Sourced<bool>,
    pub(crate) deadline: Sourced<Duration>,
    pub(crate) total_deadline: Sourced<Option<Duration>>,
    /// `None`: as many as the transport likes best.
    pub(crate) lanes: Sourced<Option<NonZeroU16>>,
    /// `None`: see [`Config::io_thread_count`].
    pub(crate) io_threads: Sourced<Option<NonZeroU16>>,
    /// `None`: made up when the engine is built.
    pub(crate) name: Sourced<Option<String>>,
    pub(crate) peer_memory: Sourced<u64>,
    pub(crate) notification_window: Sourced<u64>,
    pub(crate) log: Sourced<String>,
    unknown: Vec<UnknownVariable>,
}

/// Where the value of an option comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A `KVX_` variable.
    Environment,
    /// A setter of [`Config`].
    Builder,
}

/// A value and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Sourced<T> {
    value: T,
    source: Source,
}

impl<T> Sourced<T> {
    const fn default(value: T) -> Self {
        Self { value, source: Source::Default }
    }

    fn set(&mut self, value: T, source: Source) {
        *self = Self { value, source };
    }
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl Default for Config {
    /// The defaults alone; the environment is not asked. See [`Config::from_env`].
    fn default() -> Self {
        Self {
            transports: Sourced::default(vec![TransportKind::Shm, TransportKind::Tcp]),
            bind: Sourced::default(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            advertise: Sourced::default(Vec::new()),
            auth_key_file: Sourced::default(None),
            metadata_auth: Sourced::default(false),
            insecure: Sourced::default(false),
            deadline: Sourced::default(Duration::from_secs(10)),
            total_deadline: Sourced::default(None),
            lanes: Sourced::default(None),
            io_threads: Sourced::default(None),
            name: Sourced::default(None),
            peer_memory: Sourced::default(256 << 20),
            notification_window: Sourced::default(32 << 20),
            log: Sourced::default("kvx=info".to_owned()),
            unknown: Vec::new(),
        }
    }
}

impl Config {
    /// The transports that may be used, best first. `KVX_TRANSPORTS`, a comma-separated list of
    /// `shm` (memory of a process on the same host) and `tcp`; default `shm,tcp`. A transport that
    /// turns out not to lead to a peer, for it is on another host or something refuses, is left for
    /// the next, and the log says why.
    ///
    /// A transport that is not named is neither offered to peers nor used. With `tcp` alone no
    /// process is asked to let another read its memory (SECURITY.md).
    pub fn transports(mut self, transports: impl IntoIterator<Item = TransportKind>) -> Self {
        self.transports.set(transports.into_iter().collect(), Source::Builder);
        self
    }

    /// The address to listen on. `KVX_BIND`, `ip` or `ip:port`; default `127.0.0.1:0`, any free
    /// port.
    ///
    /// Off loopback an auth key, `metadata_auth` or `insecure` is required. An unspecified address
    /// (`0.0.0.0`, `[::]`) listens on every interface, also those that face strangers.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind.set(address, Source::Builder);
        self
    }

    /// What peers are told to reach this engine at, best first: addresses, or interfaces with all
    /// of theirs. `KVX_ADVERTISE`, a comma-separated list of `ip`, `ip:port`, `[v6]:port` or
    /// interface names; at most 16 addresses in the end.
    ///
    /// Default: the bound address; of an unspecified one, every address of every interface that is
    /// up, loopback last. Hosts with many networks should name the right ones, for peers try all
    /// of them.
    pub fn advertise(mut self, addresses: impl IntoIterator<Item = Advertise>) -> Self {
        self.advertise.set(addresses.into_iter().collect(), Source::Builder);
        self
    }

    /// The file that holds the auth key, equal on all engines that shall reach each other: 16 to
    /// 4,096 bytes, readable by its owner alone. `KVX_AUTH_KEY_FILE`; default: none, which on
    /// loopback means a key file that all engines of the user share.
    ///
    /// A shared key keeps strangers out; it does not hide data from someone on the path.
    pub fn auth_key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.auth_key_file.set(Some(path.into()), Source::Builder);
        self
    }

    /// Lets in whoever holds this engine's metadata ([`crate::Engine::metadata`]), and nobody else;
    /// with an auth key file also those who hold that key. `KVX_METADATA_AUTH`, `1` or `0`; default
    /// `0`.
    ///
    /// The metadata then carries a secret of this life of the engine: hand it over where strangers
    /// do not read it. Its holders need no such option themselves. No key is required off loopback,
    /// and on loopback the key that engines of the user share lets nobody in; who has nothing but
    /// an address ([`crate::Engine::connect`], directories) needs the auth key file. What those who
    /// hold the metadata can do to each other, SECURITY.md says.
    pub fn metadata_auth(mut self, metadata_auth: bool) -> Self {
        self.metadata_auth.set(metadata_auth, Source::Builder);
        self
    }

    /// Lets anyone in who can reach the port. `KVX_INSECURE`, `1` or `0`; default `0`.
    ///
    /// Danger: whoever connects can read and write what the regions' rights allow, given a region
    /// key, and can open sessions. Both sides of a connection must agree on this. With
    /// `metadata_auth` it lets nobody in: it only serves to dial peers that are insecure.
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure.set(insecure, Source::Builder);
        self
    }

    /// How long an operation may stand still before it fails. `KVX_DEADLINE`, in seconds, fractions
    /// allowed; default 10 s.
    ///
    /// Shorter finds dead peers sooner, and takes a busy one for dead more easily.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline.set(deadline, Source::Builder);
        self
    }

    /// How long an operation may take in all, progress or not. `KVX_TOTAL_DEADLINE`, in seconds,
    /// fractions allowed, or `none`; default none.
    pub fn total_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.total_deadline.set(deadline, Source::Builder);
        self
    }

    /// Lanes to each peer. `KVX_LANES`, 1 to 64; default: what the transport likes best.
    ///
    /// More lanes use more cores and share a network with other flows more boldly; each costs a
    /// descriptor and socket buffers on both sides.
    pub fn lanes(mut self, lanes: NonZeroU16) -> Self {
        self.lanes.set(Some(lanes), Source::Builder);
        self
    }

    /// Threads that move bytes, for all peers together. `KVX_IO_THREADS`, 1 to 256; default: the
    /// smaller of 4 and the cores.
    pub fn io_threads(mut self, threads: NonZeroU16) -> Self {
        self.io_threads.set(Some(threads), Source::Builder);
        self
    }

    /// The engine's name in errors, logs and directories: 1 to 255 bytes without control
    /// characters. `KVX_NAME`; default `HOST-PID-RANDOM`.
    ///
    /// The name is the engine's lasting identity: an engine that keeps its name over a restart is
    /// the same peer in a new incarnation. Two engines alive under one name keep superseding each
    /// other.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name.set(Some(name.into()), Source::Builder);
        self
    }

    /// Bytes kept for each peer at most, without registered memory. `KVX_PEER_MEMORY`, bytes, or
    /// with the suffix `K`, `M` or `G` (powers of 1,024); at least 4 MiB, default 256 MiB. Beyond
    /// it calls answer `Busy`.
    pub fn peer_memory(mut self, bytes: u64) -> Self {
        self.peer_memory.set(bytes, Source::Builder);
        self
    }

    /// Bytes of notifications kept for each peer's sake before the user takes them; each counts 64
    /// besides its own. `KVX_NOTIFICATION_WINDOW`, from 1 MiB to
    /// [`peer_memory`](Self::peer_memory), written as that; default 32 MiB. A notification that
    /// does not fit into the window is an error at its sender, one that does not fit beside what
    /// the user has not taken is `Busy` there; none is longer than 16 MiB.
    pub fn notification_window(mut self, bytes: u64) -> Self {
        self.notification_window.set(bytes, Source::Builder);
        self
    }

    /// What the `kvx` command and the language bindings log, in the syntax of
    /// `tracing_subscriber::EnvFilter`. `KVX_LOG`; default `kvx=info`. The library only emits
    /// events; what a program in Rust does with them is its own affair.
    pub fn log(mut self, filter: impl Into<String>) -> Self {
        self.log.set(filter.into(), Source::Builder);
        self
    }

    /// The filter set by [`log`](Self::log).
    pub fn log_filter(&self) -> &str {
        &self.log
    }

    /// `KVX_` variables that name no option, most likely mistakes. Building an engine logs them.
    pub fn unknown_variables(&self) -> &[UnknownVariable] {
        &self.unknown
    }

    /// Checks every option against its bounds and against the others. Building an engine does so
    /// too.
    ///
    /// # Errors
    /// [`Invalid::Field`] with the option's name and what was expected.
    pub fn validate(&self) -> Result<(), Invalid> {
        options::validate(self)
    }

    /// Every option with its value and source, in the order of this page. Holds no secrets.
    pub fn settings(&self) -> Vec<Setting> {
        options::settings(self)
    }
}

#[cfg(test)]
mod tests;
