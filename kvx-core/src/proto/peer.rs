//! One remote engine as this one knows it: the parts of the protocol put together.

mod event;
mod forge;
mod frames;
mod listing;
mod messages;
mod opener;
mod timers;
mod wishes;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, HandshakeError, Resource, Side, Violation};
use crate::id::{Association, EngineId, GrantId, Incarnation, LaneId, SessionKey};
use crate::plan::Plan;
use crate::proto::answers::Answers;
use crate::proto::budget::Budget;
use crate::proto::clock::PeerClock;
use crate::proto::grants::{GivenGrants, GotGrants};
use crate::proto::handshake::Established;
use crate::proto::inbound::Inbound;
use crate::proto::lanes::{Lanes, Sent};
use crate::proto::listing::Listings;
use crate::proto::notify::{NotifyReceiver, NotifySender, Settled};
use crate::proto::outbound::{Deadline, Ended, Outbound, Target, TransferOp};
use crate::proto::remote::RemoteRegions;
use crate::proto::stream::ControlStream;
use crate::region::{Gate, Region, Registry, Slots};
use crate::time::Time;
use crate::transport::TransportOffer;
use crate::wire::handshake::Features;
use crate::wire::message::Message;

pub use event::Event;
use opener::LaneOpener;

/// How a peer is treated.
#[derive(Clone, Copy, Debug)]
pub struct PeerConfig {
    /// Silence after which the peer is asked whether it is there. Default 2 s.
    pub heartbeat: Duration,
    /// Silence after which it is suspect. Default 5 s.
    pub suspect: Duration,
    /// Time without any connection after which it is lost, and all of it forgotten. Default 30 s.
    pub lost: Duration,
    /// Bytes kept for it at most. Default 256 MiB.
    pub memory: u64,
    /// Notification bytes kept for it until the user takes them; 64 more count for each. Default
    /// 32 MiB: the longest one, 16 MiB, and as much again.
    pub notification_window: u64,
    /// A frame's payload at most, where no single run is larger. Default 1 MiB.
    pub frame_bytes: u32,
    /// Lanes that the dialing side keeps open. Default 4.
    pub lanes: u16,
    /// How long a notification that is not tied to a transfer may take. Default 10 s.
    pub deadline: Deadline,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            suspect: Duration::from_secs(5),
            lost: Duration::from_secs(30),
            memory: 256 << 20,
            notification_window: 32 << 20,
            frame_bytes: 1 << 20,
            lanes: 4,
            deadline: Deadline::default(),
        }
    }
}

/// A transfer to be posted.
#[derive(Debug)]
pub struct Post {
    /// What it does.
    pub op: TransferOp,
    /// Its runs.
    pub plan: Arc<Plan>,
    /// The plan's local regions, by its indices.
    pub local: Arc<[Arc<Region>]>,
    /// The plan's remote regions.
    pub target: Target,
    /// Told to the peer's user once the data is in its memory; after a READ, once it is in own
    /// memory.
    pub notification: Option<Bytes>,
    /// Layers that a WRITE under a grant brings, counted in the whole model.
    pub layers: Option<Range<u32>>,
    /// How long it may take.
    pub deadline: Deadline,
}

/// One remote engine. See [`crate::proto`] for how to drive it.
pub struct Peer {
    config: PeerConfig,
    registry: Arc<Registry>,
    /// Called when [`Peer::handle_timeout`] should be, whatever the time.
    waker: Waker,
    own: Association,
    /// Known once the peer's Resume came.
    theirs: Option<Association>,
    identity: Option<RemoteIdentity>,
    connection: Connection,
    /// The peer's clock in the handshake of the last connection.
    met: Time,
    stream: ControlStream,
    clock: PeerClock,
    /// When anything was heard of the peer last.
    heard: Time,
    suspect: bool,
    /// When the unanswered heartbeat was sent.
    heartbeat_sent: Option<Time>,
    lanes: Lanes,
    opener: LaneOpener,
    outbound: Outbound,
    inbound: Inbound,
    answers: Answers,
    /// See [`Self::draining`].
    draining: Vec<Arc<Gate>>,
    slots: Slots,
    remote: RemoteRegions,
    listings: Listings,
    notify_sender: NotifySender,
    notify_receiver: NotifyReceiver,
    /// Grants given to the peer, and got from it.
    given: GivenGrants,
    got: GotGrants,
    budget: Budget,
    /// Whether an answer or an own transfer is next on a lane: they take turns.
    answer_next: bool,
    events: VecDeque<Event>,
    dead: Option<Cause>,
}

/// Who the peer is, as verified.
#[derive(Clone, Debug)]
pub struct RemoteIdentity {
    /// The engine.
    pub engine: EngineId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name for logs.
    pub name: Arc<str>,
    /// Where it says it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Its transports.
    pub transports: Vec<TransportOffer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// There has been none yet.
    Never,
    /// Since when.
    Up(Time),
    /// Since when.
    Down(Time),
}

impl Peer {
    /// A peer of which nothing is known yet. `own` must be random. `waker` is called when a fence
    /// has drained, which [`Peer::handle_timeout`] then tells the peer.
    pub fn new(
        config: PeerConfig,
        registry: Arc<Registry>,
        own: Association,
        waker: Waker,
    ) -> Self {
        Self {
            budget: Budget::new(config.memory),
            notify_receiver: NotifyReceiver::new(config.notification_window),
            config,
            registry,
            waker,
            own,
            theirs: None,
            identity: None,
            connection: Connection::Never,
            met: Time::ZERO,
            stream: ControlStream::default(),
            clock: PeerClock::default(),
            heard: Time::ZERO,
            suspect: false,
            heartbeat_sent: None,
            lanes: Lanes::default(),
            opener: LaneOpener::new(),
            outbound: Outbound::new(),
            inbound: Inbound::new(),
            answers: Answers::default(),
            draining: Vec::new(),
            slots: Slots::new(),
            remote: RemoteRegions::default(),
            listings: Listings::default(),
            notify_sender: NotifySender::default(),
            given: GivenGrants::new(own),
            got: GotGrants::default(),
            answer_next: false,
            events: VecDeque::new(),
            dead: None,
        }
    }

    /// Whether a connection that was verified may take the place of what there is. It may not when
    /// it is older by the peer's own clock: it was overtaken, and may speak for what the peer has
    /// forgotten since. To be asked before [`Self::handle_connected`].
    ///
    /// # Errors
    /// What to reject the connection with.
    pub fn check_connection(&self, established: &Established) -> Result<(), HandshakeError> {
        let same = |known: &RemoteIdentity| known.incarnation == established.identity.incarnation;
        let overtaken = established.clock.peer < self.met;
        if overtaken && self.identity.as_ref().is_some_and(same) {
            return Err(HandshakeError::Duplicate);
        }
        Ok(())
    }

    /// A control connection was verified. It takes the place of any other.
    pub fn handle_connected(&mut self, now: Time, established: &Established, dialed_here: bool) {
        if self.dead.is_some() {
            return;
        }
        let identity = &established.identity;
        self.identity = Some(RemoteIdentity {
            engine: identity.engine,
            incarnation: identity.incarnation,
            name: Arc::clone(&identity.name),
            addresses: identity.addresses.clone(),
            transports: identity.transports.clone(),
        });
        self.notify_sender.set_window(identity.notification_window);
        self.met = established.clock.peer;
        self.clock.observe(established.clock);
        self.connection = Connection::Up(now);
        self.opener.dialing = dialed_here;
        self.heartbeat_sent = None;
        self.hear(now);
        self.stream.connect(Message::Resume { own: self.own, peer: self.theirs });
        self.agree_on_lists(established.features.contains(Features::PUBLISHED_REGIONS));
    }

    /// The control connection is gone.
    pub fn handle_disconnected(&mut self, now: Time) {
        if !matches!(self.connection, Connection::Up(_)) {
            return;
        }
        self.connection = Connection::Down(now);
        self.heartbeat_sent = None;
        if self.dead.is_none() {
            self.events.push_back(Event::Disconnected);
        }
    }

    /// Ends the peer: everything outstanding ends with this cause, and nothing of it lands here
    /// any more once the gates of its transfers have drained.
    pub fn kill(&mut self, cause: Cause) {
        if self.dead.is_some() {
            return;
        }
        self.forget_everything(&cause);
        self.forget_lanes();
        self.dead = Some(cause.clone());
        self.events.push_back(Event::Dead(cause));
    }

    /// Closed gates of what ended when the peer died or began anew: until they are drained, a copy
    /// that was in progress then may land.
    pub fn draining(&self) -> &[Arc<Gate>] {
        &self.draining
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`Self::poll_event`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next bytes for the control connection.
    ///
    /// # Errors
    /// A message of ours does not fit the wire: a fault of this engine, which ends the peer.
    pub fn poll_message(&mut self) -> Result<Option<Vec<u8>>, Violation> {
        if !matches!(self.connection, Connection::Up(_)) {
            return Ok(None);
        }
        if let Some(credit) = self.notify_receiver.take_credit() {
            self.stream.send(credit);
        }
        self.stream.poll().transpose().map_err(Violation::from)
    }

    /// Whether [`Self::poll_message`] has something.
    pub fn has_messages(&self) -> bool {
        matches!(self.connection, Connection::Up(_)) && self.stream.has_output()
    }

    /// Whether all that was said has been written and acknowledged.
    pub fn is_flushed(&self) -> bool {
        self.stream.is_flushed()
    }

    /// Who the peer is, once a handshake has told.
    pub fn identity(&self) -> Option<&RemoteIdentity> {
        self.identity.as_ref()
    }

    /// Whether a control connection is up.
    pub fn is_connected(&self) -> bool {
        matches!(self.connection, Connection::Up(_))
    }

    /// Since when the control connection is up.
    pub fn connected_since(&self) -> Option<Time> {
        match self.connection {
            Connection::Up(since) => Some(since),
            Connection::Never | Connection::Down(_) => None,
        }
    }

    /// Whether the peer was heard of lately.
    pub fn is_alive(&self) -> bool {
        self.dead.is_none() && self.is_connected() && !self.suspect
    }

    /// Whether a notification is on its way to the peer's user, or waits for its data.
    pub fn is_notifying(&self) -> bool {
        self.notify_sender.unsettled() > 0
    }

    /// Whether anything waits for the peer.
    pub fn has_outstanding(&self) -> bool {
        !self.outbound.is_empty() || !self.stream.is_flushed()
    }

    /// Why the peer is over, if it is.
    pub fn cause_of_death(&self) -> Option<&Cause> {
        self.dead.as_ref()
    }

    /// What is kept for things that have not ended, by name: nothing, once everything has. For
    /// tests.
    #[doc(hidden)]
    pub fn residue(&self) -> Vec<(&'static str, u64)> {
        let mut all = vec![
            ("unacknowledged frames", self.lanes.unacknowledged()),
            ("bytes charged to the budget", self.budget.used()),
            ("transfers waiting for slots", self.remote.waiting()),
            ("unsettled notifications", self.notify_sender.unsettled()),
            ("questions for regions", self.listings.open()),
            ("credit not returned", self.notify_receiver.outstanding()),
        ];
        all.extend(self.outbound.residue());
        all.extend(self.inbound.residue());
        all.extend(self.answers.residue());
        all.extend([self.given.residue(), self.got.residue()]);
        all.retain(|(_, count)| *count > 0);
        all
    }

    /// Both sides' associations, once both are known: lanes carry them.
    pub fn associations(&self) -> Option<(Association, Association)> {
        Some((self.own, self.theirs?))
    }

    /// What was sent on a lane has landed.
    fn frames_landed(&mut self, now: Time, frames: Vec<Sent>) {
        for frame in frames {
            match frame {
                Sent::Write(transfer, runs) => {
                    let ended = self.outbound.landed(now, transfer, runs);
                    self.transfers_ended(ended);
                }
                Sent::Request(transfer, _) => self.outbound.request_landed(now, transfer),
                Sent::Answer(answer) => self.answers.landed(&answer, &mut self.budget),
                Sent::Void => {}
            }
        }
    }

    /// What was sent on a lane was lost with it.
    fn frames_lost(&mut self, frames: Vec<Sent>) {
        // Pushed to the front one by one: the last first keeps their order.
        for frame in frames.into_iter().rev() {
            match frame {
                Sent::Write(transfer, runs) | Sent::Request(transfer, runs) => {
                    self.outbound.lost(transfer, runs);
                }
                Sent::Answer(answer) => self.answers.again(answer),
                Sent::Void => {}
            }
        }
    }

    /// Own transfers have ended: tells the user, the peer where it must know, and settles the
    /// notifications that hung on them.
    fn transfers_ended(&mut self, ended: impl IntoIterator<Item = Ended>) {
        // A transfer ends well only when something was heard.
        let deadline = self.heard + self.notification_patience();
        for Ended { transfer, outcome, tell_peer, gate } in ended {
            if tell_peer {
                self.stream.send(Message::Cancel { transfer });
            }
            let (failure, stream) = (outcome.as_ref().err(), &mut self.stream);
            let settled = self.notify_sender.transfer_ended(transfer, stream, failure, deadline);
            self.settle_notifications(settled);
            self.events.push_back(Event::TransferEnded { transfer, outcome, fence: gate });
        }
    }

    fn settle_notifications(&mut self, settled: impl IntoIterator<Item = Settled>) {
        let event = |Settled { id, delivery, with }| Event::NotificationSettled(id, delivery, with);
        self.events.extend(settled.into_iter().map(event));
    }

    /// The peer was heard of.
    fn hear(&mut self, now: Time) {
        if self.dead.is_some() {
            return;
        }
        self.heard = self.heard.max(now);
        if std::mem::take(&mut self.suspect) {
            self.events.push_back(Event::Recovered);
        }
    }

    /// Ends all lanes, with what they carried.
    fn forget_lanes(&mut self) {
        let running: Vec<LaneId> = self.lanes.running().collect();
        self.events.extend(running.into_iter().map(Event::CloseLane));
        for frame in self.lanes.clear() {
            if let Sent::Answer(answer) = frame {
                self.answers.landed(&answer, &mut self.budget);
            }
        }
    }

    /// Whether more is kept for the peer than may be: what it makes this side say and does not
    /// acknowledge. What is kept otherwise, the budget bounds.
    fn check_answers(&self) -> Result<(), Violation> {
        if self.stream.answers() > self.config.memory {
            return Err(Violation::Overrun(Resource::PeerBytes));
        }
        Ok(())
    }

    /// Ends everything outstanding with the peer, both ways.
    fn forget_everything(&mut self, cause: &Cause) {
        let ended = self.outbound.restart(cause);
        let mut closed: Vec<_> = ended.iter().filter_map(|end| end.gate.clone()).collect();
        self.transfers_ended(ended);
        let settled = self.notify_sender.fail_all(&mut self.stream, cause);
        self.settle_notifications(settled);
        let unanswered = self.listings.fail_all(cause, &mut self.budget);
        self.regions_listed(unanswered);
        for (grant, session, gate) in self.given.revoke_all(&mut self.budget) {
            self.session_over(Side::Receiver, session, Some(grant), cause);
            closed.push(gate);
        }
        for (grant, session) in self.got.forget_all(&mut self.budget) {
            self.session_over(Side::Sender, session, Some(grant), cause);
        }
        closed.extend(self.inbound.close_all(&mut self.budget));
        self.draining.extend(closed);
        self.draining.retain(|gate| !gate.is_drained());
        self.answers.forget_all(&mut self.budget);
        self.notify_receiver.restart(&mut self.budget);
        self.remote.restart();
        self.slots = Slots::new();
        self.stream.restart();
    }

    fn session_over(
        &mut self,
        here: Side,
        session: SessionKey,
        grant: Option<GrantId>,
        cause: &Cause,
    ) {
        let cause = cause.clone();
        self.events.push_back(Event::SessionAborted { session, grant, cause, here });
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("identity", &self.identity)
            .field("connection", &self.connection)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}
