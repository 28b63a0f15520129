//! One remote engine as this process drives it: the protocol's state machine behind a lock, its
//! lanes, and those who wait for its events. What the user holds is [`crate::Peer`].

mod driver;
mod events;
mod lanes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};

use kvx_core::error::{Cause, Error, LaneError, Operation, PeerName};
use kvx_core::id::{Association, EngineId, GrantId, Incarnation, NotificationId, TransferId};
use kvx_core::proto::{
    Auth, Bearer, Established, Known, Peer as Protocol, PeerConfig, SessionSecret, TransferReport,
};
use kvx_core::time::Time;
use kvx_core::transport::{Lane, TransportKind};
use kvx_core::wire::message::DirectoryEntry;
use kvx_core::wire::metadata::{Metadata, MetadataSecret};
use tokio::sync::Notify;

use crate::clock;
use crate::completion::Completion;
use crate::engine::Shared;
use crate::one_sided::RemoteRegions;
use crate::session::{ReceiverState, SenderState};

pub(crate) use driver::drive;
pub(crate) use events::when_drained;
pub(crate) use lanes::LaneOpenError;

/// What a transfer's waiter is told.
pub(crate) type TransferDone = Completion<Result<TransferReport, Error>>;
/// What the asker of a directory is told.
pub(crate) type AnswerDone = Completion<Result<Option<DirectoryEntry>, Error>>;
/// What the asker for published regions is told.
pub(crate) type ListDone = Completion<Result<Arc<RemoteRegions>, Error>>;
/// What a notification's waiter is told.
pub(crate) type NotificationDone = Completion<Result<(), Error>>;

/// One peer relation. Dies once, by the protocol's word, and is replaced, never revived.
pub(crate) struct Link {
    me: Weak<Link>,
    pub(crate) shared: Weak<Shared>,
    /// What it was called at first: to be had without a lock.
    first_name: PeerName,
    /// This side's, as the protocol has it.
    pub(crate) association: Association,
    core: Mutex<Core>,
    lanes: Mutex<lanes::Lanes>,
    /// Held by the one thread that hands events on, so that they keep their order.
    dispatching: Mutex<()>,
    /// Wakes the task that writes the control connection.
    pub(crate) output: Notify,
    /// Wakes the task that keeps the timers.
    pub(crate) timers: Notify,
    /// Until when the timers sleep, in nanoseconds of [`Time`].
    armed: AtomicU64,
    /// The lane that the next post drives.
    turn: AtomicUsize,
    /// How to reach it; changes as the peer tells.
    addresses: Mutex<Vec<SocketAddr>>,
}

/// What the lock guards.
pub(crate) struct Core {
    pub(crate) protocol: Protocol,
    pub(crate) name: PeerName,
    transfers: BTreeMap<TransferId, Waiting>,
    notifications: BTreeMap<NotificationId, Arc<NotificationDone>>,
    pub(crate) receivers: BTreeMap<GrantId, Arc<ReceiverState>>,
    pub(crate) senders: BTreeMap<GrantId, Arc<SenderState>>,
    questions: BTreeMap<u64, Arc<AnswerDone>>,
    last_question: u64,
    /// By the question's number.
    lists: BTreeMap<u64, Arc<ListDone>>,
    connection: Option<Connection>,
    /// The number of the present control connection, else of the last one: no two have the same.
    last_connection: u64,
    /// Told when the peer is ready for the first time, or dead.
    ready: Vec<Arc<Completion<Result<(), Error>>>>,
    was_ready: bool,
    /// The life that the user's metadata speaks of; another one is a restarted peer.
    expected: Option<Incarnation>,
    /// What that life's metadata lets its holders in by.
    secret: Option<MetadataSecret>,
    /// Whether the peer came in by this engine's metadata, last time.
    came_by_metadata: bool,
    /// Whether this side dials.
    pub(crate) dials: bool,
    /// Whether a dial is under way.
    pub(crate) dialing: bool,
}

/// The control connection at present.
#[derive(Debug)]
struct Connection {
    /// Tells its tasks apart from those of the one before.
    number: u64,
    dialed_here: bool,
    from: SocketAddr,
    /// It may be on this host, by its address.
    is_near: bool,
    /// Transports that turned out not to lead to it.
    ruled_out: Vec<TransportKind>,
    secret: SessionSecret,
    /// What the peer has shown, if it came in by this engine's metadata.
    bearer: Option<Bearer>,
    /// Ends the connection's tasks.
    stop: Arc<Notify>,
}

/// Someone who waits for a transfer.
#[derive(Debug)]
struct Waiting {
    operation: Operation,
    done: Arc<TransferDone>,
    /// The session that it belongs to.
    session: Option<Arc<SenderState>>,
    delivery: AttachedDelivery,
}

/// The notification that a transfer takes along.
#[derive(Clone, Copy, Debug)]
enum AttachedDelivery {
    /// There is none, or its fate is settled.
    None,
    /// Its fate is open, and the data on its way.
    Awaited,
    /// Its fate is open, and the data in the peer's memory.
    AwaitedFor(TransferReport),
}

impl AttachedDelivery {
    fn is_awaited(self) -> bool {
        matches!(self, Self::Awaited)
    }
}

/// Bytes that a posting thread sends itself, at most.
const DRIVE: usize = 256 << 10;

impl Link {
    /// A peer of which nothing but perhaps a name is known.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        config: PeerConfig,
        association: Association,
        name: PeerName,
    ) -> Arc<Self> {
        Arc::new_cyclic(|link: &Weak<Self>| {
            let waker = Waker::from(Arc::new(Nudge(Weak::clone(link))));
            let registry = Arc::clone(&shared.registry);
            Self {
                me: Weak::clone(link),
                shared: Arc::downgrade(shared),
                first_name: name.clone(),
                association,
                core: Mutex::new(Core {
                    protocol: Protocol::new(config, registry, association, waker),
                    name,
                    transfers: BTreeMap::new(),
                    notifications: BTreeMap::new(),
                    receivers: BTreeMap::new(),
                    senders: BTreeMap::new(),
                    questions: BTreeMap::new(),
                    last_question: 0,
                    lists: BTreeMap::new(),
                    connection: None,
                    last_connection: 0,
                    ready: Vec::new(),
                    was_ready: false,
                    expected: None,
                    secret: None,
                    came_by_metadata: false,
                    dials: false,
                    dialing: false,
                }),
                lanes: Mutex::new(lanes::Lanes::new()),
                dispatching: Mutex::new(()),
                output: Notify::new(),
                timers: Notify::new(),
                armed: AtomicU64::new(0),
                turn: AtomicUsize::new(0),
                addresses: Mutex::new(Vec::new()),
            }
        })
    }

    /// Runs `f` under the lock, then does what followed from it: hands events on, wakes the
    /// control connection, the timers and the lanes.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Core) -> R) -> R {
        let (result, new_frames) = self.run(f);
        if new_frames {
            self.wake_lanes();
        }
        result
    }

    /// Like [`Self::with`], but the calling thread sends the first bytes itself: on the lane that
    /// is given back.
    pub(crate) fn with_drive<R>(
        &self,
        f: impl FnOnce(&mut Core) -> R,
    ) -> (R, Option<Arc<dyn Lane>>) {
        let (result, new_frames) = self.run(f);
        if !new_frames {
            return (result, None);
        }
        let lane = self.next_lane();
        if let Some(lane) = &lane {
            lane.drive(DRIVE);
        }
        if self.lock().protocol.has_frames() {
            // Another lane for the next one; small transfers keep to one, and its threads warm.
            self.turn.fetch_add(1, Ordering::Relaxed);
            self.wake_lanes();
        }
        (result, lane)
    }

    /// Runs `f` and does what followed, but for the lanes: says whether there are frames for them
    /// where there were none.
    fn run<R>(&self, f: impl FnOnce(&mut Core) -> R) -> (R, bool) {
        let mut core = self.lock();
        let frames_before = core.protocol.has_frames();
        let result = f(&mut core);
        let protocol = &core.protocol;
        let new_frames = !frames_before && protocol.has_frames();
        let (events, messages) = (protocol.has_events(), protocol.has_messages());
        let timeout = driver::next_wake(protocol).as_nanos();
        let earlier_timeout = timeout < self.armed.load(Ordering::Relaxed);
        drop(core);
        if events {
            self.dispatch();
        }
        if messages {
            self.output.notify_one();
        }
        if earlier_timeout {
            self.timers.notify_one();
        }
        (result, new_frames)
    }

    /// Looks without changing anything that others must know of.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        // The state machine's calls do not unwind; should one, its next caller finds what is
        // there rather than another panic.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of an operation with this peer.
    pub(crate) fn error(&self, operation: Operation, cause: Cause) -> Error {
        Error::new(operation, cause).with_peer(self.name())
    }

    /// How errors and logs call the peer.
    pub(crate) fn name(&self) -> PeerName {
        self.lock().name.clone()
    }

    /// How they called it at first.
    pub(crate) fn first_name(&self) -> &PeerName {
        &self.first_name
    }

    /// Who it is, once a handshake has told.
    pub(crate) fn engine(&self) -> Option<(EngineId, Incarnation)> {
        self.lock().protocol.identity().map(|identity| (identity.engine, identity.incarnation))
    }

    /// The life of the engine that this link is of: as proven, else as the metadata says.
    pub(crate) fn life(&self) -> Option<Incarnation> {
        let core = self.lock();
        let proven = core.protocol.identity().map(|identity| identity.incarnation);
        proven.or(core.expected)
    }

    /// Takes what the metadata of this link's life says of how to reach it. `false`: that contradicts
    /// what the peer has proved.
    pub(crate) fn learn(&self, metadata: &Metadata) -> bool {
        let mut core = self.lock();
        if let Some(secret) = &metadata.secret {
            let bearer = core.connection.as_ref().and_then(|connection| connection.bearer.as_ref());
            let other = bearer.is_some_and(|bearer| !bearer.owns(secret));
            let was_met = core.protocol.identity().is_some();
            let changed = core.secret.as_ref().is_some_and(|known| known != secret);
            if other || was_met && changed {
                return false;
            }
            core.secret = Some(secret.clone());
        }
        core.expected = Some(metadata.incarnation);
        true
    }

    /// How this side proves itself when it dials.
    ///
    /// # Errors
    /// Why it cannot.
    pub(crate) fn auth(&self, shared: &Shared) -> Result<Auth, Cause> {
        match &self.lock().secret {
            Some(secret) => Ok(Auth::Metadata(secret.clone())),
            None => shared.access.dials.clone(),
        }
    }

    /// The secret of the metadata of this life of the engine, if it was given to anybody here.
    pub(crate) fn metadata_secret(&self, life: Incarnation) -> Option<MetadataSecret> {
        let core = self.lock();
        core.secret.clone().filter(|_| core.expected == Some(life))
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this is the live peer at one of these addresses, as dialed from here.
    pub(crate) fn is_at(&self, addresses: &[SocketAddr]) -> bool {
        let core = self.lock();
        let dialed = core.connection.as_ref().filter(|connection| connection.dialed_here);
        core.protocol.is_alive()
            && dialed.is_some_and(|connection| addresses.contains(&connection.from))
    }

    /// Whether this is a live peer that dialed this engine and gives one of these addresses as its
    /// own.
    pub(crate) fn has_dialed_from(&self, addresses: &[SocketAddr]) -> bool {
        let core = self.lock();
        let accepted = core.connection.as_ref().is_some_and(|connection| !connection.dialed_here);
        let identity = core.protocol.identity().filter(|_| accepted && core.protocol.is_alive());
        identity.is_some_and(|identity| {
            identity.addresses.iter().any(|address| addresses.contains(address))
        })
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// What [`kvx_core::proto::admit`] wants to know.
    pub(crate) fn known(&self) -> Option<Known> {
        let core = self.lock();
        let identity = core.protocol.identity()?;
        let since = core.protocol.connected_since();
        let bearer = core.connection.as_ref().and_then(|connection| connection.bearer.as_ref());
        let named = bearer.and_then(|bearer| bearer.association);
        let told = core.protocol.associations().map(|(_, theirs)| theirs);
        Some(Known {
            incarnation: identity.incarnation,
            association: named.or(told),
            connection: core.connection.as_ref().and_then(|connection| {
                Some((since?, connection.dialed_here, connection.from.ip()))
            }),
            alive: core.protocol.is_alive(),
        })
    }

    /// Takes a verified control connection; the one before ends. Returns the number that
    /// [`Self::disconnected`] wants, and what ends the connection's tasks.
    pub(crate) fn connected(
        &self,
        established: &Established,
        dialed_here: bool,
        from: SocketAddr,
        is_near: bool,
    ) -> (u64, Arc<Notify>) {
        let now = clock::now();
        let stop = Arc::new(Notify::new());
        let identity = &established.identity;
        let label = if identity.name.is_empty() {
            from.to_string().into()
        } else {
            Arc::clone(&identity.name)
        };
        if !identity.addresses.is_empty() && !dialed_here {
            self.set_addresses(identity.addresses.clone());
        }
        let number = self.with(|core| {
            core.name = PeerName::verified(label, identity.engine);
            core.dials = dialed_here;
            core.came_by_metadata = established.bearer.is_some();
            core.last_connection += 1;
            let number = core.last_connection;
            if let Some(old) = core.connection.take() {
                old.stop.notify_one();
                core.protocol.handle_disconnected(now);
            }
            core.connection = Some(Connection {
                number,
                dialed_here,
                from,
                is_near,
                ruled_out: Vec::new(),
                secret: established.secret.clone(),
                bearer: established.bearer.clone(),
                stop: Arc::clone(&stop),
            });
            core.protocol.handle_connected(now, established, dialed_here);
            if core.protocol.cause_of_death().is_some() {
                stop.notify_one();
            }
            number
        });
        self.output.notify_one();
        self.timers.notify_one();
        (number, stop)
    }

    /// The control connection of this number has ended.
    pub(crate) fn disconnected(&self, number: u64) {
        self.with(|core| {
            if core.connection.as_ref().is_some_and(|connection| connection.number == number) {
                core.protocol.handle_disconnected(clock::now());
                core.connection = None;
            }
        });
        self.timers.notify_one();
    }

    /// The secret that lanes of this peer must prove, and where the peer is.
    pub(crate) fn secret(&self) -> Option<(SessionSecret, SocketAddr)> {
        let core = self.lock();
        core.connection.as_ref().map(|connection| (connection.secret.clone(), connection.from))
    }

    pub(crate) fn arc(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// Whether the peer is over.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().protocol.cause_of_death().is_some()
    }

    /// Ends the peer with this cause.
    pub(crate) fn kill(&self, cause: Cause) {
        self.with(|core| core.protocol.kill(cause));
    }

    /// Told when the peer is ready, or why it never will be.
    pub(crate) fn when_ready(&self, done: Arc<Completion<Result<(), Error>>>) {
        let mut core = self.lock();
        if let Some(cause) = core.protocol.cause_of_death().cloned() {
            let name = core.name.clone();
            drop(core);
            done.set(Err(Error::new(Operation::Connect, cause).with_peer(name)));
        } else if core.was_ready && core.protocol.is_connected() {
            drop(core);
            done.set(Ok(()));
        } else {
            core.ready.push(done);
            drop(core);
            self.timers.notify_one();
        }
    }

    /// The transport that serves this peer, if any does; `None` while there is no connection to
    /// choose by.
    pub(crate) fn transport(&self, shared: &Shared) -> Option<Option<TransportKind>> {
        let core = self.lock();
        let offered = &core.protocol.identity()?.transports;
        let connection = core.connection.as_ref()?;
        let chosen = kvx_core::transport::choose(&shared.preferred, offered, |kind| {
            // Whether it really is on this host, a lane finds out.
            let may_lead = kind != TransportKind::Shm || connection.is_near;
            may_lead
                && !connection.ruled_out.contains(&kind)
                && shared.transports.iter().any(|transport| transport.kind() == kind)
        });
        Some(chosen)
    }

    /// A transport does not lead to this peer: it is not tried again while this connection lasts.
    fn rule_out(&self, kind: TransportKind, why: &LaneError) {
        let mut core = self.lock();
        let Some(connection) = &mut core.connection else { return };
        if connection.ruled_out.contains(&kind) {
            return;
        }
        connection.ruled_out.push(kind);
        drop(core);
        tracing::info!(
            peer = %self.name(), transport = %kind, %why,
            "transport is ruled out for this peer; kvx doctor says what it needs"
        );
    }

    fn is_ruled_out(&self, kind: TransportKind) -> bool {
        let core = self.lock();
        core.connection.as_ref().is_some_and(|connection| connection.ruled_out.contains(&kind))
    }

    /// Remembers until when the timers sleep.
    fn arm(&self, until: Time) {
        self.armed.store(until.as_nanos(), Ordering::Relaxed);
    }
}

impl Core {
    /// Whether the control connection of this number speaks for the peer: no other has taken its
    /// place. One that still ends must not take what is meant for the next, nor bring what only
    /// made sense before.
    pub(crate) fn speaks(&self, connection: u64) -> bool {
        self.last_connection == connection
    }

    /// Whether the peer may be forgotten for the sake of another.
    pub(crate) fn is_spare(&self) -> bool {
        !self.protocol.is_connected() && !self.is_wanted()
    }

    /// Whether anybody here has an interest in the peer.
    pub(crate) fn is_wanted(&self) -> bool {
        self.dials
            || self.is_awaited()
            || !self.transfers.is_empty()
            || self.protocol.is_notifying()
            || !self.receivers.is_empty()
            || !self.senders.is_empty()
            || !self.questions.is_empty()
            || !self.lists.is_empty()
    }

    /// Whether there is a way in at the peer, as far as is known here. One that came in by this
    /// engine's metadata says nothing of what it lets others in by; its own metadata does.
    pub(crate) fn may_be_dialed(&self) -> bool {
        self.expected.is_some() || !self.came_by_metadata
    }

    /// Whether someone waits for the peer to be ready.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Remembers who waits for a transfer. Under the same lock as its posting, so that its end
    /// cannot come first.
    pub(crate) fn expect_transfer(
        &mut self,
        id: TransferId,
        operation: Operation,
        session: Option<Arc<SenderState>>,
        notifies: bool,
    ) -> Arc<TransferDone> {
        let done = Completion::new();
        let delivery = if notifies { AttachedDelivery::Awaited } else { AttachedDelivery::None };
        let waiting = Waiting { operation, done: Arc::clone(&done), session, delivery };
        self.transfers.insert(id, waiting);
        done
    }

    /// Remembers who waits for a notification's fate.
    pub(crate) fn expect_notification(&mut self, id: NotificationId) -> Arc<NotificationDone> {
        let done = Completion::new();
        self.notifications.insert(id, Arc::clone(&done));
        done
    }

    /// Asks the peer's directory.
    pub(crate) fn expect_answer(&mut self) -> (u64, Arc<AnswerDone>) {
        self.last_question += 1;
        let done = Completion::new();
        self.questions.insert(self.last_question, Arc::clone(&done));
        (self.last_question, done)
    }

    /// Remembers who waits for a list of regions. Some ask the same question.
    pub(crate) fn expect_list(&mut self, question: u64) -> Arc<ListDone> {
        Arc::clone(self.lists.entry(question).or_insert_with(Completion::new))
    }
}

/// Wakes the timers: a fence has drained.
struct Nudge(Weak<Link>);

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        if let Some(link) = self.0.upgrade() {
            link.timers.notify_one();
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("name", &self.lock().name).finish_non_exhaustive()
    }
}
