//! What a transport hands to the suite: how to make one, and the engines made of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvx::transport::Transport;
use kvx::{Config, Engine};
use kvx_shm::{ShmOptions, ShmTransport};
use kvx_tcp::{TcpOptions, TcpTransport};

/// A transport under test.
pub(crate) trait Fabric: Sync {
    /// A transport object, for one engine.
    fn transport(&self) -> Arc<dyn Transport>;
}

/// Memory over TCP.
pub(crate) struct Tcp;

impl Fabric for Tcp {
    fn transport(&self) -> Arc<dyn Transport> {
        TcpTransport::new(TcpOptions::new().io_threads(2)).unwrap()
    }
}

/// Memory of a process on the same host.
pub(crate) struct Shm;

impl Fabric for Shm {
    fn transport(&self) -> Arc<dyn Transport> {
        ShmTransport::new(ShmOptions::new().io_threads(2)).unwrap()
    }
}

/// A deadline for what must fail: short, so that the suite is quick.
pub(crate) const SOON: Duration = Duration::from_millis(300);

/// A deadline that no case reaches unless something hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);

impl dyn Fabric + '_ {
    /// An engine on loopback.
    pub(crate) fn engine(&self, name: &str) -> Engine {
        self.engine_with(name, |config| config)
    }

    /// An engine on loopback, with more options.
    pub(crate) fn engine_with(&self, name: &str, set: impl FnOnce(Config) -> Config) -> Engine {
        self.build(set(Config::default().deadline(LONG).name(unique(name)))).unwrap()
    }

    /// An engine of exactly these options.
    pub(crate) fn build(&self, config: Config) -> kvx::Result<Engine> {
        let transport = self.transport();
        let config = config.transports([transport.kind()]);
        Engine::with_transports(config, vec![transport])
    }

    /// Two engines that do not know each other yet.
    pub(crate) fn pair(&self) -> (Engine, Engine) {
        (self.engine("a"), self.engine("b"))
    }
}

/// A name that no other engine of this process has.
pub(crate) fn unique(name: &str) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{number}", std::process::id())
}
