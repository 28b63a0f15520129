//! Two peers wired back to back, every byte of whose conversation a test can hold, deliver or lose.
//!
//! Nothing happens by itself: messages and frames move when the test says so ([`Pair::deliver`],
//! [`Pair::transmit`], [`Pair::receive`]) or all of them at once ([`Pair::settle`]).

mod lanes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, Violation};
use crate::id::{Association, EngineId, Incarnation, LaneId};
use crate::proto::{
    Auth, AuthKey, Dialer, Established, Event, Listener, LocalIdentity, Peer, PeerConfig,
};
use crate::region::{Region, RegionKey, Registry, Rights};
use crate::testing::memory::{Memory, Segment};
use crate::time::Time;
use crate::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeMessage};
use crate::wire::message::{MESSAGE_HEADER_LEN, Message, MessageHeader};
use lanes::LaneEnd;

/// Two engines that know each other. Side 0 dials, side 1 listens, unless a test says otherwise.
#[derive(Debug)]
pub struct Pair {
    /// The two.
    pub sides: [Side; 2],
    /// The time, on both clocks.
    pub now: Time,
}

/// One of the two.
#[derive(Debug)]
pub struct Side {
    /// The other one, as this one knows it.
    pub peer: Peer,
    /// This one's regions.
    pub registry: Arc<Registry>,
    /// This one's memory.
    pub memory: Memory,
    /// What has happened, oldest first. [`Event::OpenLane`] and [`Event::CloseLane`] are obeyed
    /// and do not appear.
    pub events: Vec<Event>,
    /// Why the peer was killed for breaking the protocol, if it was.
    pub violation: Option<Violation>,
    /// Lanes that are to be opened, which [`Pair::open_lanes`] does.
    pub wanted: Vec<LaneId>,
    /// Keeps lanes from being opened.
    pub hold_lanes: bool,
    identity: LocalIdentity,
    config: PeerConfig,
    /// Control messages on their way here.
    control: VecDeque<Vec<u8>>,
    lanes: BTreeMap<LaneId, LaneEnd>,
    woken: Arc<Woken>,
    /// Counts keys and associations.
    drawn: u64,
}

#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pair {
    /// Two engines, connected and with their lanes open.
    pub fn connected(config: PeerConfig) -> Self {
        let mut pair = Self::new([config, config]);
        pair.connect(0);
        pair.settle();
        pair
    }

    /// Two engines that are not connected yet.
    pub fn new(configs: [PeerConfig; 2]) -> Self {
        let [first, second] = configs;
        Self { sides: [Side::new(1, first), Side::new(2, second)], now: at(1_000_000) }
    }

    /// A control connection comes up: the handshake as bytes, dialed by side `dialer`. What was on
    /// the way on an older one is lost.
    pub fn connect(&mut self, dialer: usize) {
        self.connect_slowly(dialer, Duration::ZERO);
    }

    /// The same, but each side comes to read the other's answer only after `delay`.
    pub fn connect_slowly(&mut self, dialer: usize, delay: Duration) {
        let (dialed, accepted) = self.handshake(dialer, delay);
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.control.clear());
        self.sides[dialer].peer.handle_connected(now, &dialed, true);
        self.sides[1 - dialer].peer.handle_connected(now, &accepted, false);
        self.collect();
    }

    /// Both sides see the control connection end. What was on the way on it is lost.
    pub fn disconnect(&mut self) {
        for side in &mut self.sides {
            side.control.clear();
            side.peer.handle_disconnected(self.now);
        }
        self.collect();
    }

    /// Side `side` forgets the other and begins anew, under the same incarnation.
    pub fn forget(&mut self, side: usize) {
        self.sides[side].renew();
    }

    /// Moves everything until nothing moves any more.
    pub fn settle(&mut self) {
        let mut moves = 0;
        while self.settle_control()
            | self.open_lanes()
            | self.carry(0)
            | self.carry(1)
            | self.wake()
            | self.sides.iter().any(|side| side.peer.has_messages())
        {
            moves += 1;
            assert!(moves < 100_000, "the peers do not come to rest");
        }
    }

    /// Moves everything, ACKs that wait for company too.
    pub fn settle_acks(&mut self) {
        self.settle();
        self.live(Duration::from_millis(5));
    }

    /// Moves all control messages, and no frame.
    pub fn settle_control(&mut self) -> bool {
        let mut moved = false;
        while self.deliver(0) | self.deliver(1) {
            moved = true;
        }
        moved
    }

    /// Delivers the next control message to side `to`.
    pub fn deliver(&mut self, to: usize) -> bool {
        self.post_messages(1 - to);
        let Some(bytes) = self.sides[to].control.pop_front() else { return false };
        self.sides[to].handle(self.now, &bytes);
        self.collect();
        true
    }

    /// The control messages on their way to side `to`.
    pub fn messages(&mut self, to: usize) -> Vec<Message> {
        self.post_messages(1 - to);
        self.sides[to].control.iter().map(|bytes| decode(bytes).1).collect()
    }

    /// Puts a message of the test's making on the way to side `to`, out of turn.
    pub fn inject(&mut self, to: usize, sequence: u64, acknowledged: u64, message: &Message) {
        let mut bytes = vec![0; MESSAGE_HEADER_LEN];
        message.encode_body(&mut bytes).expect("a message within bounds");
        let body_len = (bytes.len() - MESSAGE_HEADER_LEN) as u32;
        let header = MessageHeader { body_len, kind: message.kind(), sequence, acknowledged };
        bytes[..MESSAGE_HEADER_LEN].copy_from_slice(&header.encode());
        self.sides[to].control.push_front(bytes);
    }

    /// Time passes, and then what is due happens on both sides, and goes on its way.
    pub fn elapse(&mut self, duration: Duration) {
        self.now = self.now + duration;
        for side in 0..2 {
            self.sides[side].peer.handle_timeout(self.now);
        }
        self.collect();
    }

    /// Lets time pass up to the next timers, settling each time, for at least `duration`.
    pub fn live(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            let due = self.sides.iter().map(|side| side.peer.next_timeout()).min();
            let next = due.unwrap_or(until).max(self.now + Duration::from_nanos(1)).min(until);
            self.elapse(next.saturating_since(self.now));
            self.settle();
        }
    }

    /// Calls the timers of sides whose waker was called.
    pub fn wake(&mut self) -> bool {
        let mut any = false;
        for side in 0..2 {
            if self.sides[side].woken.0.swap(false, Ordering::Relaxed) {
                self.sides[side].peer.handle_timeout(self.now);
                any = true;
            }
        }
        self.collect();
        any
    }

    /// The handshake of a control connection, dialed by side `dialer`: what it and the listener
    /// have established. Each comes to read the other's answer only after `delay`.
    pub fn handshake(&mut self, dialer: usize, delay: Duration) -> (Established, Established) {
        let [ours, theirs] = [dialer, 1 - dialer].map(|side| self.sides[side].identity.clone());
        let auth = Auth::SharedKey(AuthKey::new(b"a secret of both".to_vec()));
        let (dialing, hello) =
            Dialer::new(&ours, &auth, Some(theirs.engine), [1; 32], self.now).expect("a Hello");
        let HandshakeMessage::Hello(parsed) = parse(&hello) else { unreachable!("a Hello") };
        let reply = Listener::answer(&theirs, &[auth], &hello, parsed, [2; 32], self.now);
        let reply = reply.expect("a Welcome");
        self.now = self.now + delay;
        let (dialed, confirm) = dialing
            .handle_welcome(self.now, &reply.bytes, parse(&reply.bytes))
            .expect("the dialer is satisfied");
        self.now = self.now + delay;
        let accepted = reply
            .listener
            .handle_confirm(self.now, &parse(&confirm))
            .expect("the listener is satisfied");
        (dialed, accepted)
    }

    /// Puts what side `from` has to say on its way.
    fn post_messages(&mut self, from: usize) {
        while let Some(bytes) = self.sides[from].peer.poll_message().expect("a message that fits") {
            self.sides[1 - from].control.push_back(bytes);
        }
    }
}

impl Side {
    fn new(number: u8, config: PeerConfig) -> Self {
        let registry = Arc::new(Registry::new());
        let woken = Arc::new(Woken::default());
        let own = Association(u64::from(number) << 32 | 1);
        let peer = Peer::new(config, Arc::clone(&registry), own, Waker::from(Arc::clone(&woken)));
        Self {
            peer,
            registry,
            memory: Memory::default(),
            events: Vec::new(),
            violation: None,
            wanted: Vec::new(),
            hold_lanes: false,
            identity: LocalIdentity {
                engine: EngineId([number; 16]),
                incarnation: Incarnation([number; 16]),
                name: format!("engine {number}").into(),
                addresses: Vec::new(),
                transports: Vec::new(),
                notification_window: config.notification_window,
            },
            config,
            control: VecDeque::new(),
            lanes: BTreeMap::new(),
            woken,
            drawn: 1,
        }
    }

    /// Registers fresh memory of `len` bytes, each `fill`.
    pub fn register(&mut self, len: usize, fill: u8, rights: Rights) -> (Arc<Region>, Segment) {
        self.drawn += 1;
        let segment = self.memory.allocate(len, fill);
        let key = RegionKey::new([self.drawn as u8; 16]);
        let region = self.registry.register(segment.provider(), rights, key).expect("a region");
        (region, segment)
    }

    /// Takes the events so far.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A new peer relation takes the place of the old one.
    fn renew(&mut self) {
        self.drawn += 1;
        let own = Association(self.peer_number() << 32 | self.drawn);
        let waker = Waker::from(Arc::clone(&self.woken));
        self.peer = Peer::new(self.config, Arc::clone(&self.registry), own, waker);
        self.events.clear();
        self.lanes.clear();
        self.control.clear();
    }

    fn peer_number(&self) -> u64 {
        u64::from(self.identity.engine.0[0])
    }

    fn handle(&mut self, now: Time, bytes: &[u8]) {
        let (header, _) = decode(bytes);
        let body = Bytes::copy_from_slice(&bytes[MESSAGE_HEADER_LEN..]);
        if let Err(violation) = self.peer.handle_message(now, &header, body) {
            self.peer.kill(Cause::PeerMisbehaved(violation.clone()));
            self.violation = Some(violation);
        }
    }
}

fn decode(bytes: &[u8]) -> (MessageHeader, Message) {
    let (header, body) = bytes.split_at(MESSAGE_HEADER_LEN);
    let header = MessageHeader::decode(header.try_into().expect("a header")).expect("a header");
    assert_eq!(header.body_len as usize, body.len());
    let body = Bytes::copy_from_slice(body);
    (header, Message::decode(header.kind, body).expect("a message that parses"))
}

/// A whole handshake message.
pub(crate) fn parse(bytes: &[u8]) -> HandshakeMessage {
    let (prefix, body) = bytes.split_at(HANDSHAKE_PREFIX_LEN);
    let prefix = prefix.try_into().expect("a prefix");
    let (kind, len) = HandshakeMessage::decode_prefix(prefix).expect("a prefix that parses");
    assert_eq!(len, body.len());
    HandshakeMessage::decode(kind, body).expect("a handshake message that parses")
}

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}
