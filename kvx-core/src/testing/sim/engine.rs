//! A simulated engine: what drives its peers. It does what the engine in earnest must do, in the
//! plainest way: one thread, no locks, links by the other engine's number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::error::{Cause, LaneError};
use crate::id::{Association, EngineId, Incarnation, LaneId};
use crate::proto::{
    Auth, AuthKey, Dialer, Event, LaneDialer, LocalIdentity, Peer, PeerConfig, SessionSecret,
};
use crate::region::Registry;
use crate::testing::memory::Memory;
use crate::testing::random::Random;
use crate::testing::sim::clock::SkewedClock;
use crate::testing::sim::network::{ConnId, LaneTicket, Role};
use crate::testing::sim::user::Belongings;
use crate::testing::sim::{Happening, Instant, MS, World};
use crate::time::Time;

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
    /// When it went on last after it was stopped, or began.
    pub(crate) went_on: Instant,
    /// When the next timer is set to.
    timer: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Its clock goes on, and what comes waits.
    Stopped(Vec<Happening>),
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

/// Patience short enough for a run of half a minute.
pub(crate) fn config() -> PeerConfig {
    PeerConfig {
        heartbeat: Duration::from_millis(500),
        suspect: Duration::from_millis(1200),
        lost: Duration::from_secs(6),
        memory: 4 << 20,
        notification_window: 1 << 20,
        frame_bytes: 512,
        lanes: 2,
        deadline: crate::proto::Deadline { progress: Duration::from_secs(3), total: None },
    }
}

pub(crate) fn auth() -> Auth {
    Auth::SharedKey(AuthKey::new(b"the key of the simulation".to_vec()))
}

pub(crate) fn engine_id(index: usize) -> EngineId {
    EngineId([index as u8 + 1; 16])
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
            went_on: 0,
            timer: Instant::MAX,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
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
        self.timer = Instant::MAX;
    }
}

impl World {
    /// The time on an engine's clock.
    pub(crate) fn local(&self, engine: usize) -> Time {
        self.engines[engine].clock.show(self.now)
    }

    /// Keeps what concerns a stopped engine for later.
    pub(crate) fn is_held_back(&mut self, happening: Happening) -> bool {
        let conn = |id: ConnId, end: usize| self.conns.get(&id).map(|conn| conn.engines[end]);
        let engine = match happening {
            Happening::Arrive(id, end)
            | Happening::End(id, end)
            | Happening::Impatience(id, end)
            | Happening::Pump(id, end) => conn(id, end),
            Happening::Timer(engine, _) | Happening::Redial(engine, ..) => Some(engine),
            Happening::User(engine) => Some(engine),
            Happening::Take(note) => Some(self.ledger.note_target(note)),
            Happening::Layers(session) => Some(self.ledger.sessions[session].sender),
            Happening::Patience(session) => Some(self.ledger.sessions[session].receiver),
            _ => None,
        };
        match engine.map(|engine| &mut self.engines[engine].state) {
            Some(State::Stopped(kept)) => {
                kept.push(happening);
                true
            }
            _ => false,
        }
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

    pub(crate) fn timers(&mut self, engine: usize, life: u32) {
        if self.engines[engine].life != life || !self.engines[engine].is_alive() {
            return;
        }
        self.engines[engine].timer = Instant::MAX;
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
            self.at(at, Happening::Timer(engine, life));
        }
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

    fn redial_if_needed(&mut self, engine: usize, remote: usize) {
        let life = self.engines[engine].life;
        let jitter = self.random.within(0..20) * MS;
        let Some(link) = self.engines[engine].links.get_mut(&remote) else { return };
        let wanted = link.control.is_none() && link.dialing.is_none() && !link.redial_set;
        if wanted && link.peer.has_outstanding() {
            link.redial_set = true;
            let delay = ((20 * MS) << link.attempts.min(6)) + jitter;
            let delay = if link.attempts == 0 { 0 } else { delay };
            self.after(delay, Happening::Redial(engine, life, remote));
        }
    }

    pub(crate) fn redial(&mut self, engine: usize, life: u32, remote: usize) {
        if self.engines[engine].life != life || !self.engines[engine].is_alive() {
            return;
        }
        let now = self.local(engine);
        let nonce = self.random.bytes();
        let Some(link) = self.engines[engine].links.get_mut(&remote) else { return };
        link.redial_set = false;
        if link.control.is_some() || link.dialing.is_some() {
            return;
        }
        link.attempts += 1;
        let identity = &self.engines[engine].identity;
        let (dialer, hello) = Dialer::new(identity, &auth(), Some(engine_id(remote)), nonce, now)
            .expect("the identity fits a Hello");
        let conn = self.connect(engine, remote, Role::DialControl(dialer));
        self.note(|| format!("{engine} dials {remote}"));
        self.send(conn, 0, hello);
        self.link(engine, remote).dialing = Some(conn);
    }

    /// A dial of this link has come to nothing.
    pub(crate) fn dial_failed(&mut self, engine: usize, remote: usize, conn: ConnId) {
        if let Some(link) = self.engines[engine].links.get_mut(&remote)
            && link.dialing == Some(conn)
        {
            link.dialing = None;
            self.attend(engine, remote);
        }
    }

    pub(crate) fn connected(&mut self, engine: usize, remote: usize) {
        let link = self.link(engine, remote);
        link.attempts = 0;
    }

    fn dial_lane(&mut self, engine: usize, remote: usize, lane: LaneId) {
        let now = self.local(engine);
        let nonce = self.random.bytes();
        let id = engine_id(engine);
        let link = self.link(engine, remote);
        let known = link.peer.associations().zip(link.secret.clone());
        let Some((associations, secret)) = known else {
            return link.peer.handle_lane_failed(now, lane);
        };
        let ticket = LaneTicket { lane, link: link.serial, associations };
        let (dialer, hello) = LaneDialer::new(id, associations, lane, 1, &secret, nonce)
            .expect("a LaneHello has a fixed size");
        let conn = self.connect(engine, remote, Role::DialLane(dialer, ticket));
        self.send(conn, 0, hello);
    }
}
