//! A simulated engine: what drives its peers. It does what the engine in earnest must do, in the
//! plainest way: one thread, no locks, links by the other engine's number.

mod dialing;
mod pace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::error::{Cause, LaneError};
use crate::id::{Association, EngineId, Incarnation, LaneId};
use crate::proto::{Auth, AuthKey, Event, LocalIdentity, Peer, PeerConfig, SessionSecret};
use crate::region::Registry;
use crate::testing::memory::Memory;
use crate::testing::random::Random;
use crate::testing::sim::clock::SkewedClock;
use crate::testing::sim::hostile::Loots;
use crate::testing::sim::network::ConnId;
use crate::testing::sim::user::Belongings;
use crate::testing::sim::{Happening, Instant, MS, World};
use crate::time::Time;
use crate::wire::metadata::MetadataSecret;

pub(crate) use pace::Slowness;

/// One engine, over all its lives.
pub(crate) struct Engine {
    /// Lives so far. A happening that was meant for another life does not concern this one.
    pub(crate) life: u32,
    pub(crate) state: State,
    pub(crate) clock: SkewedClock,
    pub(crate) identity: LocalIdentity,
    pub(crate) registry: Arc<Registry>,
    pub(crate) memory: Memory,
    /// By the number of the other engine.
    pub(crate) links: BTreeMap<usize, Link>,
    pub(crate) belongings: Belongings,
    /// What a hostile engine knows of others, by their numbers.
    pub(crate) loots: Loots,
    /// When it was itself again last, after it was stopped or slow, or began.
    pub(crate) went_on: Instant,
    /// Set while everything takes it long.
    pub(crate) slowness: Option<Slowness>,
    /// What its clock has jumped ahead by, in all.
    pub(crate) jumped: Instant,
    /// When the next timer is set to.
    timer: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Its clock goes on, and what comes waits.
    Stopped(Vec<Happening>),
    /// Shut down: its memory is still there, and nothing may land in it.
    Down,
    /// With all of its memory.
    Crashed,
}

/// Another engine, as this one drives it.
pub(crate) struct Link {
    /// Unique in the run.
    pub(crate) serial: u64,
    pub(crate) association: Association,
    pub(crate) peer: Peer,
    /// The life it is for, once a handshake or the peer's metadata has told.
    pub(crate) expected: Option<Incarnation>,
    pub(crate) control: Option<ConnId>,
    pub(crate) dialed_here: bool,
    pub(crate) dialing: Option<ConnId>,
    pub(crate) secret: Option<SessionSecret>,
    /// The association that the other one has named to be let in.
    pub(crate) named: Option<Association>,
    pub(crate) lanes: BTreeMap<LaneId, (ConnId, usize)>,
    /// Notifications sent, which the peer counts the same way.
    pub(crate) notes: u64,
    attempts: u32,
    redial_set: bool,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Patience short enough for a run of half a minute, and bounds that floods reach.
pub(crate) fn config() -> PeerConfig {
    PeerConfig {
        heartbeat: Duration::from_millis(500),
        suspect: Duration::from_millis(1200),
        lost: Duration::from_secs(6),
        memory: 64 << 10,
        notification_window: 1 << 20,
        frame_bytes: 512,
        lanes: 2,
        deadline: crate::proto::Deadline { progress: Duration::from_secs(3), total: None },
    }
}

/// What the metadata of this life of an engine carries.
pub(crate) fn secret(life: Incarnation) -> MetadataSecret {
    let mut secret = [0; MetadataSecret::LEN];
    secret[..16].copy_from_slice(&life.0);
    MetadataSecret::new(secret)
}

pub(crate) fn engine_id(index: usize) -> EngineId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&(index as u32 + 1).to_be_bytes());
    EngineId(id)
}

impl Engine {
    pub(crate) fn new(index: usize, random: &mut Random) -> Self {
        Self {
            life: 0,
            state: State::Running,
            clock: SkewedClock::new(random),
            identity: LocalIdentity {
                engine: engine_id(index),
                incarnation: Incarnation(random.bytes()),
                name: format!("engine {index}").into(),
                addresses: Vec::new(),
                transports: Vec::new(),
                notification_window: config().notification_window,
            },
            registry: Arc::new(Registry::new()),
            memory: Memory::default(),
            links: BTreeMap::new(),
            belongings: Belongings::default(),
            loots: Loots::new(),
            went_on: 0,
            slowness: None,
            jumped: 0,
            timer: Instant::MAX,
        }
    }

    /// Whether it does anything, or will go on to.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state, State::Running | State::Stopped(_))
    }

    /// Whether its memory is there.
    pub(crate) fn has_memory(&self) -> bool {
        self.state != State::Crashed
    }

    /// A new life: nothing of the old one is known.
    pub(crate) fn renew(&mut self, random: &mut Random) {
        self.life += 1;
        self.state = State::Running;
        self.identity.incarnation = Incarnation(random.bytes());
        self.registry = Arc::new(Registry::new());
        self.memory = Memory::default();
        self.belongings = Belongings::default();
        self.slowness = None;
        self.timer = Instant::MAX;
    }
}

impl World {
    /// What lets others connect to this life of an engine.
    pub(crate) fn auth(&self, life: Incarnation) -> Auth {
        if self.setting.by_metadata {
            return Auth::Metadata(secret(life));
        }
        Auth::SharedKey(AuthKey::new(b"the key of the simulation".to_vec()))
    }

    /// The time on an engine's clock.
    pub(crate) fn local(&self, engine: usize) -> Time {
        self.engines[engine].clock.show(self.now)
    }

    /// The link of one engine to another, which begins here if there is none.
    pub(crate) fn link(&mut self, engine: usize, remote: usize) -> &mut Link {
        if !self.engines[engine].links.contains_key(&remote) {
            self.links += 1;
            let woken = Arc::new(Woken::default());
            let own = Association(self.random.bits() | 1);
            let registry = Arc::clone(&self.engines[engine].registry);
            let waker = Waker::from(Arc::clone(&woken));
            let link = Link {
                serial: self.links,
                association: own,
                notes: 0,
                peer: Peer::new(config(), registry, own, waker),
                expected: None,
                control: None,
                dialed_here: false,
                dialing: None,
                secret: None,
                named: None,
                lanes: BTreeMap::new(),
                attempts: 0,
                redial_set: false,
                woken,
            };
            self.engines[engine].links.insert(remote, link);
        }
        self.engines[engine].links.get_mut(&remote).expect("it was just made")
    }

    /// The link of this serial number, if it still is the link.
    pub(crate) fn link_of(
        &mut self,
        engine: usize,
        remote: usize,
        serial: u64,
    ) -> Option<&mut Link> {
        self.engines[engine].links.get_mut(&remote).filter(|link| link.serial == serial)
    }

    /// To be called after anything was done to a link: what it brought about is dealt with.
    pub(crate) fn attend(&mut self, engine: usize, remote: usize) {
        while let Some(link) = self.engines[engine].links.get_mut(&remote) {
            let Some(event) = link.peer.poll_event() else { break };
            let serial = link.serial;
            self.handle_event(engine, remote, serial, event);
        }
        self.speak(engine, remote);
        self.pump_all(engine, remote);
        self.wake(engine);
        self.set_timer(engine);
        self.redial_if_needed(engine, remote);
    }

    /// The user has the metadata of this life of another engine: a link to another life is over.
    pub(crate) fn expect(&mut self, engine: usize, remote: usize, life: Incarnation) {
        let link = self.link(engine, remote);
        if link.expected.is_some_and(|expected| expected != life) {
            self.kill_link(engine, remote, Cause::PeerRemoved);
        }
        self.link(engine, remote).expected = Some(life);
    }

    /// Ends a link: the peer is over, with all that it had open.
    pub(crate) fn kill_link(&mut self, engine: usize, remote: usize, cause: Cause) {
        self.note(|| format!("{engine} gives {remote} up: {cause}"));
        if let Some(link) = self.engines[engine].links.get_mut(&remote) {
            link.peer.kill(cause);
            self.attend(engine, remote);
        }
    }

    pub(crate) fn timers(&mut self, engine: usize, life: u32, set_to: Instant) {
        let here = &mut self.engines[engine];
        // One that was set earlier meanwhile has come, or comes, in its place.
        if here.life != life || !here.is_alive() || here.timer != set_to {
            return;
        }
        here.timer = Instant::MAX;
        let now = self.local(engine);
        let due: Vec<usize> = self.engines[engine]
            .links
            .iter()
            .filter(|(_, link)| link.peer.next_timeout() <= now)
            .map(|(remote, _)| *remote)
            .collect();
        for remote in due {
            if let Some(link) = self.engines[engine].links.get_mut(&remote) {
                link.peer.handle_timeout(now);
                self.attend(engine, remote);
            }
        }
        self.set_timer(engine);
    }

    fn set_timer(&mut self, engine: usize) {
        let links = self.engines[engine].links.values();
        let due = links.map(|link| link.peer.next_timeout()).min().unwrap_or(Time::NEVER);
        if due == Time::NEVER {
            return;
        }
        // Timers are never early, and a little late.
        let at = self.engines[engine].clock.when(due).max(self.now) + self.random.within(1..5) * MS;
        if at < self.engines[engine].timer {
            self.engines[engine].timer = at;
            let life = self.engines[engine].life;
            self.at(at, Happening::Timer(engine, life, at));
        }
    }

    /// An engine's clock has jumped: what its timers were set to means nothing.
    pub(crate) fn reset_timer(&mut self, engine: usize) {
        self.engines[engine].timer = Instant::MAX;
        self.set_timer(engine);
    }

    /// Peers whose waker was called.
    fn wake(&mut self, engine: usize) {
        let woken: Vec<usize> = self.engines[engine]
            .links
            .iter()
            .filter(|(_, link)| link.woken.0.swap(false, Ordering::Relaxed))
            .map(|(remote, _)| *remote)
            .collect();
        let now = self.local(engine);
        for remote in woken {
            if let Some(link) = self.engines[engine].links.get_mut(&remote) {
                link.peer.handle_timeout(now);
                self.attend(engine, remote);
            }
        }
    }

    /// Writes what a peer has to say.
    fn speak(&mut self, engine: usize, remote: usize) {
        while let Some(link) = self.engines[engine].links.get_mut(&remote) {
            let Some(control) = link.control else { return };
            let bytes = link.peer.poll_message().expect("messages of ours fit the wire");
            let Some(bytes) = bytes else { return };
            let from = if link.dialed_here { 0 } else { 1 };
            self.keep_message(engine, remote, &bytes);
            self.send(control, from, bytes);
        }
    }

    fn handle_event(&mut self, engine: usize, remote: usize, serial: u64, event: Event) {
        match event {
            Event::OpenLane(lane) => self.dial_lane(engine, remote, lane),
            Event::CloseLane(lane) => self.close_lane(engine, remote, lane, LaneError::Closed),
            Event::Dead(cause) => {
                self.note(|| format!("{engine}: {remote} is dead: {cause}"));
                self.ledger.link_broken(engine, remote, self.now);
                if let Some(link) = self.engines[engine].links.remove(&remote) {
                    let left = link.peer.residue();
                    assert!(left.is_empty(), "a peer that is over has something left: {left:?}");
                    self.drop_connections(link);
                }
            }
            other => self.user_hears(engine, remote, serial, other),
        }
    }

    fn drop_connections(&mut self, link: Link) {
        let dialed = if link.dialed_here { 0 } else { 1 };
        let control = link.control.map(|conn| (conn, dialed));
        let dialing = link.dialing.map(|conn| (conn, 0));
        for (conn, end) in control.into_iter().chain(dialing) {
            self.close_end(conn, end);
        }
        for (conn, end) in link.lanes.into_values() {
            self.abandon_lane(conn, end);
        }
    }
}
