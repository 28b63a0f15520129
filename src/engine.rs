//! The engine: one for each worker rank. It owns its threads, its listening port and its peers.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use kvx_core::error::{
    Cause, Error, HandshakeError, Invalid, Operation as Doing, PeerName, Result,
};
use kvx_core::id::{Association, EngineId, Incarnation};
use kvx_core::proto::{Deadline, LocalIdentity, PeerConfig};
use kvx_core::region::{Region as CoreRegion, RegionKey, Registry, Rights};
use kvx_core::transport::{MemoryProvider, Transport, TransportKind, TransportOffer};
use kvx_core::wire::metadata::Metadata;
use kvx_shm::{ShmOptions, ShmTransport};
use kvx_tcp::{TcpOptions, TcpTransport};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use crate::auth::{self, Access};
use crate::bootstrap::{self, Connects, Doorkeeper};
use crate::completion::{Completion, Operation, Promise};
use crate::config::Config;
use crate::discovery::Directory;
use crate::memory::{Buffer, CallerMemory, process_id};
use crate::notifications::Inbox;
use crate::one_sided::Peer;
use crate::peer::{self, Link};
use crate::random;
use crate::region::Region;
use crate::session::Sessions;

/// Peers at once. Those who come beyond it take the places of peers that are not connected and that
/// nobody here waits for; if there are none they are turned down.
const MAX_PEERS: usize = 16_384;

/// Dials at once to peers that nobody here waits for: each may have 16 addresses, which it chose.
const COURTESY: usize = 4;

/// How long shutdown waits for goodbyes to leave.
const FAREWELL: Duration = Duration::from_millis(500);

/// A KV-cache transfer engine: registers memory, knows peers, moves bytes.
///
/// Cheap to clone; all clones are the same engine. It needs no runtime of the caller's: operations
/// are awaited in any executor or waited for on any thread. When the last clone, and everything
/// made from it (regions, peers, sessions), is gone, or at [`Engine::shutdown`], it ends.
///
/// ```
/// use kvx::{Config, Engine};
///
/// let engine = Engine::new(Config::default().name("prefill-0"))?;
/// println!("{} listens on {}", engine.name(), engine.local_addr());
/// # Ok::<(), kvx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    owner: Arc<Owner>,
}

/// Ends the engine when the last handle is gone.
struct Owner {
    shared: Arc<Shared>,
    control: Mutex<Option<JoinHandle<()>>>,
}

/// What all parts of an engine share.
pub(crate) struct Shared {
    pub(crate) identity: LocalIdentity,
    pub(crate) access: Access,
    pub(crate) registry: Arc<Registry>,
    pub(crate) transports: Vec<Arc<dyn Transport>>,
    /// Best first.
    pub(crate) preferred: Vec<TransportKind>,
    pub(crate) deadline: Deadline,
    pub(crate) runtime: Handle,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) inbox: Inbox,
    pub(crate) sessions: Sessions,
    pub(crate) directory: Directory,
    peer_config: PeerConfig,
    peers: Mutex<HashMap<EngineId, Arc<Link>>>,
    /// Dials to addresses of which it is not known yet who is there.
    pub(crate) connects: Connects,
    /// Taken for a dial that only the peer has an interest in.
    pub(crate) courtesy: Semaphore,
    local_addr: SocketAddr,
    closed: AtomicBool,
    /// The process that built the engine: its threads are not in a forked child.
    process: u32,
    /// Ends the control thread.
    stop: Arc<Notify>,
    /// Held by each control connection until it has ended.
    connections: Arc<()>,
}

impl Engine {
    /// Builds an engine: binds its port and starts its threads.
    ///
    /// # Errors
    /// Options that make no sense, a port that cannot be bound, an auth key that is missing or
    /// not fit ([`Config`]), or threads that cannot be started.
    pub fn new(config: Config) -> Result<Self> {
        let transports = config.transports.iter().map(|kind| transport(*kind, &config)).collect();
        let transports: Result<_, Cause> = transports;
        let built = transports.and_then(|transports| build(config, transports));
        built.map_err(|cause| Error::new(Doing::Build, cause))
    }

    /// Like [`Engine::new`], with transports of the caller's own. Those that
    /// [`Config::transports`] does not name are not used.
    ///
    /// # Errors
    /// As [`Engine::new`]; or none of the transports is named.
    pub fn with_transports(config: Config, transports: Vec<Arc<dyn Transport>>) -> Result<Self> {
        build(config, transports).map_err(|cause| Error::new(Doing::Build, cause))
    }

    /// The engine's name, as peers log it.
    pub fn name(&self) -> &str {
        &self.shared().identity.name
    }

    /// The engine's lasting id, made from its name.
    pub fn id(&self) -> EngineId {
        self.shared().identity.engine
    }

    /// This life of the engine.
    pub fn incarnation(&self) -> Incarnation {
        self.shared().identity.incarnation
    }

    /// The lanes that it asks for to each peer that it connects to: [`Config::lanes`], or what the
    /// transport likes best.
    pub fn lanes(&self) -> u16 {
        self.shared().peer_config.lanes
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().local_addr
    }

    /// The addresses it tells to peers.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.shared().identity.addresses
    }

    /// Allocates `len` bytes of zeroed, page-aligned host memory and registers them. Safe to share
    /// with peers: nothing the engine or its peers do can unmap it. The buffer stays usable for
    /// as long as it is held, registered or not.
    ///
    /// # Errors
    /// [`Cause::OutOfMemory`], or `len` is 0, or the engine has ended.
    pub fn allocate(&self, len: u64, rights: Rights) -> Result<(Buffer, Region)> {
        let failed = |cause: Cause| Error::new(Doing::Allocate, cause);
        let buffer = Buffer::allocate(len).map_err(failed)?;
        let region = self.register_buffer(&buffer, rights)?;
        Ok((buffer, region))
    }

    /// Registers a buffer, once more or under other rights.
    ///
    /// # Errors
    /// [`Cause::Busy`] beyond 65,536 regions; the engine has ended.
    pub fn register_buffer(&self, buffer: &Buffer, rights: Rights) -> Result<Region> {
        self.register_provider(buffer.provider(), rights)
    }

    /// Registers host memory that the caller owns. [`CallerMemory::new`] is unsafe and says what
    /// the caller promises.
    ///
    /// # Errors
    /// As [`Engine::register_buffer`].
    pub fn register(&self, memory: CallerMemory, rights: Rights) -> Result<Region> {
        self.register_provider(Arc::new(memory), rights)
    }

    /// Registers memory of any kind.
    ///
    /// # Errors
    /// As [`Engine::register_buffer`].
    pub fn register_provider(
        &self,
        memory: Arc<dyn MemoryProvider>,
        rights: Rights,
    ) -> Result<Region> {
        let shared = self.shared();
        let registered = shared.check().and_then(|()| {
            let key = RegionKey::new(random::bytes()?);
            shared.registry.register(memory, rights, key)
        });
        let region = registered.map_err(|cause| Error::new(Doing::Register, cause))?;
        Ok(Region::new(self.clone(), region))
    }

    /// What others need to reach these regions, to be handed over on any channel: addresses, ids
    /// and region keys. Whoever holds it may use the regions, within their rights, if it may
    /// connect at all; and with [`Config::metadata_auth`] it may.
    ///
    /// # Errors
    /// More regions than a blob holds, or one that was deregistered.
    pub fn metadata<'a>(&self, regions: impl IntoIterator<Item = &'a Region>) -> Result<Vec<u8>> {
        let identity = &self.shared().identity;
        let described = regions.into_iter().map(|region| region.core().describe()).collect();
        let metadata = Metadata {
            engine: identity.engine,
            incarnation: identity.incarnation,
            name: Arc::clone(&identity.name),
            addresses: identity.addresses.clone(),
            regions: described,
            secret: self.shared().access.secret.clone(),
        };
        let encoded = metadata.encode();
        encoded.map_err(|error| Error::new(Doing::Prepare, error))
    }

    /// Adds a peer from its metadata, or more regions of a peer added before, and begins to
    /// connect to it. Transfers may be posted at once.
    ///
    /// # Errors
    /// Bytes that are no metadata, this engine's own, or those of a life that is over while
    /// another is connected. Metadata without a secret, where this engine has no other key.
    pub fn add_peer(&self, metadata: &[u8]) -> Result<Peer> {
        let shared = self.shared();
        let failed = |cause: Cause| Error::new(Doing::Connect, cause);
        shared.check().map_err(failed)?;
        let metadata = Metadata::decode(metadata).map_err(|error| failed(error.into()))?;
        let name = PeerName::verified(Arc::clone(&metadata.name), metadata.engine);
        if metadata.engine == shared.identity.engine {
            let cause = kvx_core::error::HandshakeError::SameEngine.into();
            return Err(failed(cause).with_peer(name));
        }
        let link = shared
            .link_for(&metadata, name.clone())
            .map_err(|cause| failed(cause).with_peer(name))?;
        let keys = metadata.regions.iter().map(|region| (region.id, region.key.clone()));
        link.with(|core| {
            core.protocol.learn_regions(keys);
            core.dials |= !core.protocol.is_connected();
        });
        link.timers.notify_one();
        Ok(Peer::new(self.clone(), link, Arc::new(metadata.regions.into_iter().collect())))
    }

    /// Connects to the engine at `address` (`host:port`), whoever it is: the bootstrap of
    /// sessions, and of transfers to what it publishes ([`Peer::published`]). Retries until the
    /// engine's deadline.
    ///
    /// # Errors
    /// The name does not resolve, nobody answers in time, or the handshake fails: other auth key,
    /// other version, this engine itself. This engine has no key, or the other one wants to be
    /// added from its metadata ([`Config::metadata_auth`]).
    pub fn connect(&self, address: impl ToSocketAddrs + std::fmt::Display) -> Operation<Peer> {
        let shared = Arc::clone(self.shared());
        let label = PeerName::unverified(address.to_string());
        let failed = |cause: Cause| Error::new(Doing::Connect, cause).with_peer(label.clone());
        if let Err(cause) = shared.check() {
            return Operation::done(Err(failed(cause)));
        }
        let addresses: Vec<SocketAddr> = match address.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => return Operation::done(Err(failed(Cause::io("resolve", error)))),
        };
        let done = Completion::new();
        let answer = Promise::new(&done, failed(Cause::ShutDown));
        let linked = bootstrap::connect(&shared, label, addresses);
        let guest = self.guest();
        shared.runtime.spawn(async move {
            let linked = linked.await;
            // The engine is its users' to keep, not this task's. Without it the promise is broken.
            if let Some(engine) = guest.upgrade() {
                answer.keep(linked.map(|link| Peer::new(engine, link, Arc::default())));
            }
        });
        Operation::new(done)
    }

    /// This engine as a peer of its own: transfers to it are local copies.
    pub fn myself(&self) -> Peer {
        Peer::local(self.clone(), &self.shared().registry.snapshot())
    }

    /// The peers that are known at present.
    pub fn peers(&self) -> Vec<Peer> {
        if self.shared().is_forked() {
            return Vec::new();
        }
        let links: Vec<Arc<Link>> = self.shared().peers().values().cloned().collect();
        links.into_iter().map(|link| Peer::new(self.clone(), link, Arc::default())).collect()
    }

    /// The next notification, if one is there. Never waits.
    pub fn poll_notification(&self) -> Option<crate::Notification> {
        let shared = self.shared();
        if shared.is_forked() { None } else { shared.inbox.poll() }
    }

    /// The number of notifications that are there and were not taken, which goes on to be told: for
    /// who asks so often that a call is too much. Only to be read.
    pub fn notification_count(&self) -> Arc<AtomicUsize> {
        self.shared().inbox.count()
    }

    /// Waits on the calling thread for the next notification, `timeout` at most; `None` at once where
    /// none can come, because the engine has ended.
    pub fn wait_notification(&self, timeout: Duration) -> Option<crate::Notification> {
        let shared = self.shared();
        if shared.is_forked() { None } else { shared.inbox.wait(timeout) }
    }

    /// The next notification, awaited.
    ///
    /// # Errors
    /// [`Cause::ShutDown`] once the engine has ended and all that came before was taken.
    pub fn notification(&self) -> impl Future<Output = Result<crate::Notification>> + use<> {
        let shared = Arc::clone(self.shared());
        let ended = |cause| Error::new(Doing::Notify, cause);
        std::future::poll_fn(move |cx| {
            if shared.is_forked() {
                return Poll::Ready(Err(ended(Cause::Forked)));
            }
            shared.inbox.poll_next(cx).map(|next| next.ok_or_else(|| ended(Cause::ShutDown)))
        })
    }

    /// Ready once [`Engine::poll_notification`] has one, which this does not take; or once none can
    /// come any more.
    pub fn notified(&self) -> impl Future<Output = ()> + use<> {
        let shared = Arc::clone(self.shared());
        std::future::poll_fn(move |cx| {
            if shared.is_forked() { Poll::Ready(()) } else { shared.inbox.poll_ready(cx) }
        })
    }

    /// Ends the engine: peers are told, everything outstanding fails with [`Cause::ShutDown`], and
    /// when this returns no byte lands in its memory any more. Blocks for half a second at most.
    /// A later call does nothing, and does not wait for the first.
    pub fn shutdown(&self) {
        self.owner.shutdown();
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// The engine for one who must not keep it.
    pub(crate) fn guest(&self) -> Guest {
        Guest(Arc::downgrade(&self.owner))
    }
}

/// An engine as long as its users keep it.
pub(crate) struct Guest(Weak<Owner>);

impl Guest {
    pub(crate) fn upgrade(&self) -> Option<Engine> {
        self.0.upgrade().map(|owner| Engine { owner })
    }
}

impl Owner {
    fn shutdown(&self) {
        let shared = &self.shared;
        if shared.is_forked() || shared.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let links: Vec<Arc<Link>> = shared.peers().drain().map(|(_, link)| link).collect();
        let begin = std::time::Instant::now();
        let unsaid = |link: &Arc<Link>| {
            let core = link.lock();
            core.protocol.is_connected() && core.protocol.has_messages()
        };
        // A goodbye overtakes whatever waits to be said, and the peer hears nothing after it: not
        // the notification of a READ that is done.
        while links.iter().any(unsaid) && begin.elapsed() < FAREWELL / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        for link in &links {
            link.with(|core| core.protocol.goodbye());
        }
        while links.iter().any(unsaid) && begin.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_millis(1));
        }
        links.iter().for_each(|link| link.kill(Cause::ShutDown));
        shared.sessions.shut_down();
        shared.inbox.close();
        // Each ends once its peer, having heard the goodbye, hangs up.
        while Arc::strong_count(&shared.connections) > 1 && begin.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_millis(1));
        }
        for region in shared.registry.close_all() {
            crate::region::wait_drained(&region.gate);
        }
        shared.transports.iter().for_each(|transport| transport.shutdown());
        shared.stop.notify_one();
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(control) = control {
            // The last handle may be dropped by a task of the control thread itself.
            if control.thread().id() != std::thread::current().id() {
                let _ = control.join();
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shutdown();
        if self.shared.is_forked() {
            // Transports would wait for their threads, which are not in this process.
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

impl Shared {
    /// Whether calls may go on.
    ///
    /// # Errors
    /// [`Cause::ShutDown`] or [`Cause::Forked`].
    pub(crate) fn check(&self) -> Result<(), Cause> {
        if self.is_forked() {
            return Err(Cause::Forked);
        }
        if self.is_closed() {
            return Err(Cause::ShutDown);
        }
        Ok(())
    }

    /// What a control connection holds until it has ended.
    pub(crate) fn farewell(&self) -> Arc<()> {
        Arc::clone(&self.connections)
    }

    /// Whether the engine has ended, or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether this is a child forked from the process that built the engine. Its threads are not
    /// here, and what they had locked stays so: nothing of the engine's may be touched.
    pub(crate) fn is_forked(&self) -> bool {
        process_id() != self.process
    }

    /// That these regions are this engine's, and registered.
    ///
    /// # Errors
    /// [`Invalid::UnknownRegion`].
    pub(crate) fn check_own(&self, regions: &[Arc<CoreRegion>]) -> Result<(), Invalid> {
        let own = |region: &Arc<CoreRegion>| {
            self.registry.get(region.id).is_some_and(|known| Arc::ptr_eq(&known, region))
        };
        if regions.iter().all(own) { Ok(()) } else { Err(Invalid::UnknownRegion) }
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, HashMap<EngineId, Arc<Link>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn transport(&self, kind: TransportKind) -> Option<Arc<dyn Transport>> {
        self.transports.iter().find(|transport| transport.kind() == kind).cloned()
    }

    /// A new peer relation, whose timers run from now on.
    pub(crate) fn new_link(self: &Arc<Self>, name: PeerName) -> Result<Arc<Link>, Cause> {
        let association = Association(u64::from_le_bytes(random::bytes()?) | 1);
        let link = Link::new(self, self.peer_config, association, name);
        self.runtime.spawn(peer::drive(Arc::clone(&link)));
        Ok(link)
    }

    /// The link to the engine that metadata describes, in the life that it describes.
    fn link_for(self: &Arc<Self>, metadata: &Metadata, name: PeerName) -> Result<Arc<Link>, Cause> {
        let peers = self.peers();
        // Shutdown takes every peer there is, and none may come after.
        self.check()?;
        let known = peers.get(&metadata.engine).filter(|link| !link.is_over());
        if let Some(link) = known {
            let life = link.life();
            let same_life = life.is_none_or(|life| life == metadata.incarnation);
            if same_life && link.learn(metadata) {
                return Ok(Arc::clone(link));
            }
            if link.lock().protocol.is_alive() {
                // What is connected is proven; the blob is only older or forged. Or somebody has
                // taken the name who holds no more than this engine's metadata: then its user decides.
                let taken = HandshakeError::NameTaken.into();
                return Err(if same_life { taken } else { Cause::PeerRestarted });
            }
        }
        if metadata.secret.is_none() {
            self.access.dials.as_ref().map_err(Cause::clone)?;
        }
        let link = self.new_link(name)?;
        link.set_addresses(metadata.addresses.clone());
        link.learn(metadata);
        replace(peers, metadata.engine, &link, Cause::PeerRestarted);
        Ok(link)
    }

    /// A link is over: it is forgotten, and what it told the directory with it.
    pub(crate) fn peer_died(&self, link: &Link) {
        let mut peers = self.peers();
        peers.retain(|_, known| !std::ptr::eq(Arc::as_ptr(known), link));
        drop(peers);
        self.directory.forget(link);
        self.inbox.leave(link);
    }
}

/// Makes room for one more peer. Returns the one that has to go, to be killed once `peers` is let go
/// of; `Err`: all places are taken.
pub(crate) fn make_room(
    peers: &mut HashMap<EngineId, Arc<Link>>,
    newcomer: EngineId,
) -> Result<Option<Arc<Link>>, HandshakeError> {
    if peers.len() < MAX_PEERS || peers.contains_key(&newcomer) {
        return Ok(None);
    }
    let spare = peers.iter().find(|(_, link)| link.lock().is_spare()).map(|(engine, _)| *engine);
    spare.and_then(|engine| peers.remove(&engine)).map(Some).ok_or(HandshakeError::Busy)
}

/// Puts a link in the place of the one that its engine had, which is over for this cause. Both at
/// once, so that there is never a second live link to one engine.
pub(crate) fn replace(
    mut peers: MutexGuard<'_, HashMap<EngineId, Arc<Link>>>,
    engine: EngineId,
    link: &Arc<Link>,
    cause: Cause,
) {
    let old = peers.insert(engine, Arc::clone(link));
    drop(peers);
    if let Some(old) = old {
        old.kill(cause);
    }
}

/// A transport of this kind.
fn transport(kind: TransportKind, config: &Config) -> Result<Arc<dyn Transport>, Cause> {
    let threads = usize::from(config.io_thread_count().get());
    match kind {
        TransportKind::Tcp => {
            // A lane whose packets vanish must be given up early enough for the others to take over
            // before the deadline.
            let patience =
                (*config.deadline / 2).clamp(Duration::from_secs(1), Duration::from_secs(30));
            let options = TcpOptions::new().io_threads(threads).peer_timeout(patience);
            let tcp = TcpTransport::new(options);
            Ok(tcp.map_err(|error| Cause::io("start the TCP transport", error))?)
        }
        TransportKind::Shm => {
            let shm = ShmTransport::new(ShmOptions::new().io_threads(threads));
            Ok(shm.map_err(|error| Cause::io("start the shared-memory transport", error))?)
        }
        _ => Err(Cause::NoTransport),
    }
}

fn build(config: Config, transports: Vec<Arc<dyn Transport>>) -> Result<Engine, Cause> {
    config.validate()?;
    let preferred: Vec<TransportKind> = config.transports.to_vec();
    let transports: Vec<_> =
        transports.into_iter().filter(|transport| preferred.contains(&transport.kind())).collect();
    if transports.is_empty() {
        return Err(Cause::NoTransport);
    }
    let bind = *config.bind;
    let bound = |error| Cause::io(format!("bind {bind}"), error);
    let listener = std::net::TcpListener::bind(bind).map_err(bound)?;
    listener.set_nonblocking(true).map_err(bound)?;
    let local_addr = listener.local_addr().map_err(bound)?;
    let name: Arc<str> = config.engine_name()?.into();
    let deadline = Deadline { progress: *config.deadline, total: *config.total_deadline };
    let default_lanes = transports.iter().map(|transport| transport.capabilities().lanes).max();
    let lanes = config.lanes.map_or(default_lanes.unwrap_or(1), |lanes| lanes.get());
    let peer_config = PeerConfig {
        memory: *config.peer_memory,
        notification_window: *config.notification_window,
        lanes,
        deadline,
        ..PeerConfig::default()
    };
    let identity = LocalIdentity {
        engine: engine_id(&name),
        incarnation: Incarnation(random::bytes()?),
        name,
        addresses: config.advertised(local_addr)?,
        transports: transports
            .iter()
            .map(|transport| TransportOffer {
                code: transport.kind().code(),
                operations: transport.capabilities().operations,
            })
            .collect(),
        notification_window: peer_config.notification_window,
    };
    let access = auth::resolve(&config, local_addr)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Cause::io("start the control runtime", error))?;
    let stop = Arc::new(Notify::new());
    let shared = Arc::new(Shared {
        identity,
        access,
        registry: Arc::new(Registry::new()),
        transports,
        preferred,
        deadline,
        runtime: runtime.handle().clone(),
        doorkeeper: Doorkeeper::default(),
        inbox: Inbox::new(*config.notification_window),
        sessions: Sessions::new(deadline.progress),
        directory: Directory::new(),
        peer_config,
        peers: Mutex::new(HashMap::new()),
        connects: Connects::default(),
        courtesy: Semaphore::new(COURTESY),
        local_addr,
        closed: AtomicBool::new(false),
        process: process_id(),
        stop: Arc::clone(&stop),
        connections: Arc::default(),
    });
    let guest: Weak<Shared> = Arc::downgrade(&shared);
    let control = std::thread::Builder::new()
        .name("kvx-control".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let listening = async {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => bootstrap::listen(guest, listener).await,
                        Err(error) => tracing::error!(%error, "cannot listen"),
                    }
                };
                tokio::select! {
                    () = listening => {}
                    () = stop.notified() => {}
                }
            });
        })
        .map_err(|error| Cause::io("start the control thread", error))?;
    for unknown in config.unknown_variables() {
        tracing::warn!(%unknown, "variable is not known");
    }
    tracing::info!(name = %shared.identity.name, addr = %local_addr, "engine is up");
    Ok(Engine { owner: Arc::new(Owner { shared, control: Mutex::new(Some(control)) }) })
}

/// The lasting id of an engine of this name.
fn engine_id(name: &str) -> EngineId {
    let digest = Sha256::new().chain_update(b"kvx engine ").chain_update(name).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    EngineId(id)
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("name", &self.shared.identity.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PostOptions, Span, Spans, TransferOp};

    #[test]
    fn an_engine_that_keeps_its_name_keeps_its_id() {
        assert_eq!(engine_id("prefill-0"), engine_id("prefill-0"));
        assert_ne!(engine_id("prefill-0"), engine_id("prefill-1"));
    }

    #[test]
    fn a_region_that_is_deregistered_during_a_shutdown_is_fenced() {
        let engine = Engine::new(Config::default()).unwrap();
        let (_buffer, region) = engine.allocate(4096, Rights::REMOTE_WRITE).unwrap();
        // Where a shutdown is while it waits for its goodbyes to go out.
        engine.shared().closed.store(true, Ordering::Release);
        region.deregister().unwrap();
        assert!(region.core().gate.is_drained());
        engine.shared().closed.store(false, Ordering::Release);
    }

    #[test]
    fn a_deregistration_waits_for_the_lease_that_another_one_waits_for() {
        let engine = Engine::new(Config::default()).unwrap();
        let (_buffer, region) = engine.allocate(4096, Rights::REMOTE_WRITE).unwrap();
        let core = Arc::clone(region.core());
        let lease = core.gate.enter().unwrap();
        let region = &region;
        std::thread::scope(|scope| {
            let both = [(); 2].map(|()| {
                scope.spawn(|| {
                    let outcome = region.deregister();
                    (outcome.is_ok(), region.core().gate.is_drained())
                })
            });
            while region.core().gate.is_open() {
                std::thread::yield_now();
            }
            assert!(both.iter().all(|thread| !thread.is_finished()), "a lease is held");
            drop(lease);
            let mut outcomes = both.map(|thread| thread.join().unwrap());
            outcomes.sort_unstable();
            assert_eq!(outcomes, [(false, true), (true, true)]);
        });
    }

    #[test]
    fn nothing_of_a_peer_is_left_once_its_engine_is_gone() {
        let [a, b] = ["leaves-nothing-a", "leaves-nothing-b"]
            .map(|name| Engine::new(Config::default().name(name)).unwrap());
        let (_, local) = a.allocate(4096, Rights::empty()).unwrap();
        let (_, remote) = b.allocate(4096, Rights::REMOTE_WRITE).unwrap();
        let peer = a.add_peer(&b.metadata([&remote]).unwrap()).unwrap();
        let spans = || [Span { region: 0, offset: 0, len: 4096 }].into_iter().collect::<Spans>();
        let ids = [remote.id()];
        let write = peer.prepare(TransferOp::Write, (&[&local], &spans()), (&ids, &spans()));
        write.unwrap().post(PostOptions::new()).unwrap().wait().unwrap();
        let links = [&a, &b].map(|engine| {
            let peers = engine.shared().peers();
            Arc::downgrade(peers.values().next().unwrap())
        });
        drop((peer, local, remote, a, b));
        assert!(links.iter().all(|link| link.strong_count() == 0), "{links:?}");
    }

    #[test]
    fn a_metadata_blob_that_is_none_is_an_error() {
        let engine = Engine::new(Config::default()).unwrap();
        let error = engine.add_peer(b"garbage").unwrap_err();
        assert!(matches!(error.cause, Cause::Invalid(Invalid::Wire(_))), "{error}");
    }
}
