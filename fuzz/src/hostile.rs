//! One peer whose other side is a puppet: it says and sends what no honest peer would, in any order,
//! between what the user asks for and the passing of time. Not a byte may land or be read that the
//! model does not allow; nothing may panic; and everything that the user asked for must end, once.

mod frames;
mod model;
mod operation;
mod puppet;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use kvx_core::error::{Cause, LaneError};
use kvx_core::id::{Association, LaneId};
use kvx_core::proto::{Deadline, Established, Event, Peer, PeerConfig};
use kvx_core::region::Registry;
use kvx_core::testing::Memory;
use kvx_core::time::Time;
use kvx_core::wire::message::Message;

use frames::Coming;
use model::Model;
use operation::{Number, Operation, What, Wish};
use user::Asked;

/// Does the operations, then hangs up and lets everything come to its end.
pub fn run(bytes: &[u8]) {
    let Some(operations) = crate::structured::<Vec<Operation<'_>>>(bytes) else { return };
    let mut world = World::new();
    for operation in operations.into_iter().take(300) {
        // `None`: there was nothing to do it with.
        let _ = world.apply(operation);
        world.look();
        if world.peer.cause_of_death().is_some() {
            break;
        }
    }
    world.end();
}

/// The peer, all around it, and what is known of it.
struct World {
    peer: Peer,
    registry: Arc<Registry>,
    memory: Memory,
    now: Time,
    /// What a handshake gave.
    established: Established,
    /// The puppet's side of the control stream.
    puppet: puppet::Puppet,
    /// Lanes that the peer wants to have opened.
    wanted: Vec<LaneId>,
    /// Open lanes, each with the frame that is coming in on it.
    lanes: BTreeMap<LaneId, Option<Coming>>,
    /// What may land and be read.
    model: Model,
    /// What the user asked for.
    asked: Asked,
}

/// Bytes kept for the puppet: little, so that bounds are reached.
const BUDGET: u64 = 64 << 10;

impl World {
    fn new() -> Self {
        let config = PeerConfig {
            frame_bytes: 64,
            lanes: 2,
            memory: BUDGET,
            deadline: Deadline { progress: Duration::from_secs(10), total: None },
            ..PeerConfig::default()
        };
        let registry = Arc::new(Registry::new());
        let own = Association(puppet::VICTIM);
        let peer = Peer::new(config, Arc::clone(&registry), own, Waker::noop().clone());
        let now = Time::from_nanos(1 << 40);
        let mut world = Self {
            peer,
            registry,
            memory: Memory::default(),
            now,
            established: puppet::handshake(now),
            puppet: puppet::Puppet::default(),
            wanted: Vec::new(),
            lanes: BTreeMap::new(),
            model: Model::default(),
            asked: Asked::default(),
        };
        (0..model::KINDS).for_each(|kind| world.register(kind));
        world.peer.learn_regions((0..4).map(puppet::region));
        world.meet();
        world
    }

    /// Nothing is said to a peer that is not connected: most conversations begin well.
    fn meet(&mut self) {
        self.puppet.connect();
        self.peer.handle_connected(self.now, &self.established, true);
        let _ = self.resume(0, 0);
        self.look();
        while let Some(lane) = self.wanted.pop() {
            self.open(lane);
        }
        let open = What::OpenRegions((0..model::KINDS).map(|which| (which, true)).collect());
        let _ = self.message(open).and_then(|message| self.say(&message, Number::Next, None));
        let _ = self.wish(Wish::Grant { block: 1, tokens: 3 });
        self.look();
    }

    fn apply(&mut self, operation: Operation<'_>) -> Option<()> {
        match operation {
            Operation::Connect { dialed, skew } => {
                self.established.clock.sent = self.now;
                self.established.clock.peer = Time::from_nanos(skew);
                self.established.clock.received = self.now;
                self.puppet.connect();
                self.peer.handle_connected(self.now, &self.established, dialed);
            }
            Operation::Disconnect => {
                self.puppet.disconnect();
                self.peer.handle_disconnected(self.now);
            }
            Operation::Resume { own, knows } => self.resume(own, knows)?,
            Operation::Say { what, number, acknowledges } => {
                let message = self.message(what)?;
                self.say(&message, number, acknowledges)?;
            }
            Operation::SayBytes { kind, body, number } => {
                self.say_bytes(u16::from(kind % 64), body.to_vec(), number, None)?;
            }
            Operation::OpenAsked { well } => {
                let lane = self.wanted.pop()?;
                match well {
                    true => self.open(lane),
                    false => self.peer.handle_lane_failed(self.now, lane),
                }
            }
            Operation::OpenUnasked { lane } => {
                let lane = LaneId(lane.into());
                let (ours, theirs) = self.peer.associations()?;
                self.peer.check_lane(theirs, ours, lane).ok()?;
                self.open(lane);
            }
            Operation::Close { lane } => {
                let lane = self.lane(lane)?;
                self.close(lane, LaneError::SourceGone);
            }
            Operation::Frame { lane, frame } => self.frame(lane, &frame)?,
            Operation::Land { lane, bytes } => self.land(lane, bytes.into())?,
            Operation::Ack { lane, processed, refused } => {
                self.acknowledge(lane, processed.into(), refused.into())?;
            }
            Operation::Pull { lane } => self.pull(lane)?,
            Operation::User(wish) => self.wish(wish)?,
            Operation::Elapse { millis } => self.elapse(Duration::from_millis(millis.into())),
        }
        Some(())
    }

    fn open(&mut self, lane: LaneId) {
        if self.peer.handle_lane_opened(lane).is_ok() {
            self.lanes.insert(lane, None);
        }
    }

    fn close(&mut self, lane: LaneId, cause: LaneError) {
        if self.lanes.remove(&lane).is_some() {
            self.peer.handle_lane_closed(self.now, lane, cause);
        }
    }

    /// The lane that a number chooses.
    fn lane(&self, which: u8) -> Option<LaneId> {
        self.lanes.keys().nth(usize::from(which) % self.lanes.len().max(1)).copied()
    }

    fn elapse(&mut self, time: Duration) {
        self.now = self.now + time;
        self.peer.handle_timeout(self.now);
    }

    /// Takes what the peer has to tell and to say.
    fn look(&mut self) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                Event::OpenLane(lane) => self.wanted.push(lane),
                Event::CloseLane(lane) => self.close(lane, LaneError::Closed),
                event => self.happened(event),
            }
        }
        self.listen();
        // The budget is what one peer may cost, whatever it does.
        for (what, count) in self.peer.residue() {
            assert!(what != "bytes charged to the budget" || count <= BUDGET, "{count} {what}");
        }
    }

    /// No more is heard of the puppet.
    fn end(&mut self) {
        self.peer.handle_disconnected(self.now);
        for _ in 0..20 {
            self.elapse(Duration::from_secs(5));
            self.look();
        }
        // Without a connection ever, a peer is waited for as long as its user likes.
        self.peer.kill(Cause::PeerRemoved);
        self.look();
        self.asked.all_has_ended();
        assert_eq!(self.peer.residue(), [], "the dead keep nothing");
        for lane in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.close(lane, LaneError::Closed);
        }
        for memory in self.model.places() {
            let now = self.memory.bytes(memory.base, model::LEN as usize);
            assert!(memory.seen == now, "something changed that nothing landed in");
        }
    }

    /// A message of the puppet's, with all that it needs.
    fn message(&self, what: What) -> Option<Message> {
        puppet::message(what, &self.model, self.now)
    }
}
