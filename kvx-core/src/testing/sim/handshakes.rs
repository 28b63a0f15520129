//! What arrives on connections: handshakes first, then control messages; frames go to their lanes.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

use crate::error::{Cause, HandshakeError, Violation};
use crate::id::Incarnation;
use crate::proto::{
    Dialer, Established, Incoming, Known, LaneListener, Listener, Proof, Verdict, admit,
};
use crate::testing::lane::{LaneReceiver, LaneSender};
use crate::testing::sim::engine::{engine_id, secret};
use crate::testing::sim::network::{ConnId, LaneHalf, LaneTicket, Role};
use crate::testing::sim::{Fault, World};
use crate::wire::WireError;
use crate::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeMessage, LaneHello, Reject};
use crate::wire::message::{MESSAGE_HEADER_LEN, Message, MessageHeader};

impl World {
    /// Deals with what has arrived at an end, as far as it goes.
    pub(crate) fn proceed(&mut self, id: ConnId, end: usize) {
        loop {
            let Some(conn) = self.conns.get(&id) else { return };
            let (engine, remote) = (conn.engines[end], conn.engines[1 - end]);
            let Some(here) = self.end(id, end) else { return };
            match &here.role {
                Role::Busy => return,
                Role::Lane(_) => return self.receive_frames(id, end),
                Role::Mute => return,
                Role::Control(serial) => {
                    let serial = *serial;
                    if !self.next_message(id, end, engine, remote, serial) {
                        return;
                    }
                }
                _ => match self.next_handshake(id, end) {
                    Some(bytes) => self.shake_hands(id, end, engine, remote, &bytes),
                    None if self.is_exhausted(id, end) => return self.give_up(id, end),
                    None => return,
                },
            }
        }
    }

    /// A connection took too long to be verified.
    pub(crate) fn lose_patience(&mut self, id: ConnId, end: usize) {
        let Some(here) = self.end(id, end) else { return };
        if !matches!(here.role, Role::Control(_) | Role::Lane(_) | Role::Busy) {
            self.give_up(id, end);
        }
    }

    /// A connection has ended before it was verified.
    fn give_up(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (engine, remote) = (conn.engines[end], conn.engines[1 - end]);
        let role = self.end(id, end).map(|here| std::mem::replace(&mut here.role, Role::Busy));
        self.close_end(id, end);
        match role {
            Some(Role::DialControl(_)) => self.dial_failed(engine, remote, id),
            Some(Role::DialLane(_, ticket)) => self.lane_failed(engine, remote, ticket),
            _ => {}
        }
    }

    fn lane_failed(&mut self, engine: usize, remote: usize, ticket: LaneTicket) {
        let now = self.local(engine);
        if let Some(link) = self.link_of(engine, remote, ticket.link) {
            link.peer.handle_lane_failed(now, ticket.lane);
            self.attend(engine, remote);
        }
    }

    fn next_handshake(&mut self, id: ConnId, end: usize) -> Option<Vec<u8>> {
        let here = self.end(id, end)?;
        let prefix: Vec<u8> = here.inbox.iter().take(HANDSHAKE_PREFIX_LEN).copied().collect();
        let prefix = prefix.try_into().ok()?;
        // What is no message is as long as the beginning that shows it.
        let len = HandshakeMessage::decode_prefix(&prefix).map_or(0, |(_, len)| len);
        let whole = HANDSHAKE_PREFIX_LEN + len;
        (here.inbox.len() >= whole).then(|| here.inbox.drain(..whole).collect())
    }

    fn shake_hands(&mut self, id: ConnId, end: usize, engine: usize, remote: usize, bytes: &[u8]) {
        let parsed = parse(bytes);
        let tainted = self.is_tainted(id) || self.setting.is_hostile(remote);
        assert!(parsed.is_ok() || tainted, "{engine} cannot parse what {remote} says: {parsed:?}");
        let Some(here) = self.end(id, end) else { return };
        let role = std::mem::replace(&mut here.role, Role::Busy);
        let Ok(message) = parsed else {
            here.role = role;
            return self.give_up(id, end);
        };
        let result = match (role, message) {
            (Role::DialControl(dialer), message) => {
                self.handle_welcome(id, engine, remote, dialer, bytes, message)
            }
            (Role::Accept, HandshakeMessage::Hello(hello)) => {
                let now = self.local(engine);
                let nonce = self.random.bytes();
                let identity = &self.engines[engine].identity;
                let accepts = [self.auth(identity.incarnation)];
                Listener::answer(identity, &accepts, bytes, hello, nonce, now).and_then(|reply| {
                    let (_, incarnation) = reply.listener.claimed();
                    self.judge(engine, remote, incarnation, Proof::Awaited)?;
                    Ok((reply.bytes, Role::AcceptControl(reply.listener)))
                })
            }
            (Role::AcceptControl(listener), message) => {
                self.handle_confirm(id, engine, remote, listener, &message)
            }
            (Role::Accept, HandshakeMessage::LaneHello(hello)) => {
                self.handle_lane_hello(engine, remote, bytes, &hello)
            }
            (Role::AcceptLane(listener, ticket), message) => listener
                .handle_proof(&message)
                .and_then(|_| self.open_lane(id, end, engine, remote, ticket))
                .map(|role| (Vec::new(), role)),
            (Role::DialLane(dialer, ticket), message) => {
                let opened = dialer.handle_challenge(&message).and_then(|(proof, _)| {
                    Ok((proof, self.open_lane(id, end, engine, remote, ticket)?))
                });
                if opened.is_err() {
                    self.lane_failed(engine, remote, ticket);
                }
                opened
            }
            _ => Err(HandshakeError::NotKvx),
        };
        match result {
            Ok((answer, role)) => {
                self.send(id, end, answer);
                if let Some(here) = self.end(id, end) {
                    here.role = role;
                }
                self.attend(engine, remote);
            }
            Err(reason) => {
                self.note(|| format!("{engine} ends a handshake with {remote}: {reason}"));
                if end == 1 {
                    let reject = HandshakeMessage::Reject(Reject { reason });
                    self.send(id, end, reject.encode().expect("a Reject fits"));
                }
                self.close_end(id, end);
                if end == 0 {
                    self.dial_failed(engine, remote, id);
                }
            }
        }
    }

    /// What the book says of an engine that knocks.
    fn judge(
        &self,
        engine: usize,
        remote: usize,
        incarnation: Incarnation,
        proof: Proof,
    ) -> Result<Verdict, HandshakeError> {
        let incoming = Incoming { engine: engine_id(remote), incarnation, proof };
        let link = self.engines[engine].links.get(&remote);
        let known = link.and_then(|link| {
            let told = link.peer.associations().map(|(_, theirs)| theirs);
            Some(Known {
                incarnation: link.peer.identity()?.incarnation,
                association: link.named.or(told),
                connection: link
                    .peer
                    .connected_since()
                    .map(|since| (since, link.dialed_here, address(remote))),
                alive: link.peer.is_alive(),
            })
        });
        let dialing = link.is_some_and(|link| link.dialing.is_some());
        admit(engine_id(engine), known, incoming, dialing, self.local(engine))
    }

    fn handle_welcome(
        &mut self,
        id: ConnId,
        engine: usize,
        remote: usize,
        dialer: Dialer,
        bytes: &[u8],
        message: HandshakeMessage,
    ) -> Result<(Vec<u8>, Role), HandshakeError> {
        let now = self.local(engine);
        let (established, confirm) = dialer.handle_welcome(now, bytes, message)?;
        let found = established.identity.incarnation;
        let link = self.link(engine, remote);
        link.dialing = None;
        if link.expected.is_some_and(|expected| expected != found) {
            self.kill_link(engine, remote, Cause::PeerRestarted);
        }
        self.link(engine, remote).peer.check_connection(&established)?;
        let role = self.establish(id, engine, remote, &established, true);
        Ok((confirm, role))
    }

    fn handle_confirm(
        &mut self,
        id: ConnId,
        engine: usize,
        remote: usize,
        listener: Listener,
        message: &HandshakeMessage,
    ) -> Result<(Vec<u8>, Role), HandshakeError> {
        let established = listener.handle_confirm(self.local(engine), message)?;
        let life = established.identity.incarnation;
        let link = self.engines[engine].links.get(&remote);
        // Some have been given the metadata of those that come, others have not.
        let held = link.filter(|link| link.expected == Some(life) && link.serial % 2 == 0);
        let held = held.map(|_| secret(life));
        let proof = Proof::of(&established, address(remote), held.as_ref())?;
        let verdict = self.judge(engine, remote, life, proof)?;
        let expected = self.link(engine, remote).expected;
        let other = expected.is_some_and(|expected| expected != life);
        if verdict == Verdict::Supersede || other {
            self.kill_link(engine, remote, Cause::PeerRestarted);
        }
        self.link(engine, remote).peer.check_connection(&established)?;
        Ok((Vec::new(), self.establish(id, engine, remote, &established, false)))
    }

    /// A verified control connection takes the place of the one before.
    fn establish(
        &mut self,
        id: ConnId,
        engine: usize,
        remote: usize,
        established: &Established,
        dialed_here: bool,
    ) -> Role {
        let now = self.local(engine);
        self.note(|| format!("{engine} is connected with {remote}"));
        if self.engines[engine].clock.drifts_from(self.engines[remote].clock) {
            self.count(Fault::Drift);
        }
        self.connected(engine, remote);
        let link = self.link(engine, remote);
        link.expected = Some(established.identity.incarnation);
        let old = link.control.replace(id).map(|old| (old, if link.dialed_here { 0 } else { 1 }));
        link.dialed_here = dialed_here;
        link.secret = Some(established.secret.clone());
        link.named = established.bearer.as_ref().and_then(|bearer| bearer.association);
        link.peer.handle_connected(now, established, dialed_here);
        let serial = link.serial;
        if let Some((old, end)) = old {
            self.close_end(old, end);
        }
        Role::Control(serial)
    }

    fn next_message(
        &mut self,
        id: ConnId,
        end: usize,
        engine: usize,
        remote: usize,
        serial: u64,
    ) -> bool {
        let now = self.local(engine);
        let exhausted = self.is_exhausted(id, end);
        let Some(here) = self.end(id, end) else { return false };
        let header: Vec<u8> = here.inbox.iter().take(MESSAGE_HEADER_LEN).copied().collect();
        let header: Option<[u8; MESSAGE_HEADER_LEN]> = header.try_into().ok();
        let header = match header.map(|header| MessageHeader::decode(&header)).transpose() {
            Ok(header) => header,
            Err(wrong) => {
                let violation = Violation::from(wrong);
                return self.control_violated(id, end, engine, remote, serial, violation);
            }
        };
        let whole = header.map(|header| (header, MESSAGE_HEADER_LEN + header.body_len as usize));
        let Some((header, whole)) = whole.filter(|(_, whole)| here.inbox.len() >= *whole) else {
            if exhausted || here.has_ended() {
                self.control_lost(id, end, engine, remote, serial);
            }
            return false;
        };
        let bytes: Vec<u8> = here.inbox.drain(..whole).collect();
        let body = Bytes::from(bytes).slice(MESSAGE_HEADER_LEN..);
        self.note(|| {
            let message = format!("{:?}", Message::decode(header.kind, body.clone()));
            let end = message.floor_char_boundary(120);
            format!("{engine} has message {} of {remote}: {}", header.sequence, &message[..end])
        });
        let hostile = self.setting.is_hostile(engine);
        if hostile {
            self.loot_message(engine, remote, &header, &body);
        }
        let link = self.link_of(engine, remote, serial);
        let Some(link) = link.filter(|link| link.control == Some(id)) else {
            self.close_end(id, end);
            return false;
        };
        // What a hostile engine said itself may come back to it; it goes on all the same.
        if let Err(violation) = link.peer.handle_message(now, &header, body)
            && !hostile
        {
            return self.control_violated(id, end, engine, remote, serial, violation);
        }
        self.attend(engine, remote);
        true
    }

    /// What came on a control connection broke the protocol: the peer is over.
    fn control_violated(
        &mut self,
        id: ConnId,
        end: usize,
        engine: usize,
        remote: usize,
        serial: u64,
        violation: Violation,
    ) -> bool {
        let guilty = self.is_tainted(id) || self.setting.is_hostile(remote);
        assert!(guilty, "{engine} finds that {remote} broke the protocol: {violation}");
        let link = self.link_of(engine, remote, serial);
        if link.is_some_and(|link| link.control == Some(id)) {
            self.kill_link(engine, remote, Cause::PeerMisbehaved(violation));
        }
        self.close_end(id, end);
        false
    }

    /// A control connection is over.
    fn control_lost(&mut self, id: ConnId, end: usize, engine: usize, remote: usize, serial: u64) {
        self.close_end(id, end);
        let now = self.local(engine);
        if let Some(link) = self.link_of(engine, remote, serial)
            && link.control == Some(id)
        {
            link.control = None;
            link.peer.handle_disconnected(now);
            self.attend(engine, remote);
        }
    }

    fn handle_lane_hello(
        &mut self,
        engine: usize,
        remote: usize,
        bytes: &[u8],
        hello: &LaneHello,
    ) -> Result<(Vec<u8>, Role), HandshakeError> {
        let nonce = self.random.bytes();
        let link = self.engines[engine].links.get_mut(&remote).ok_or(HandshakeError::NoControl)?;
        link.peer.check_lane(hello.association, hello.peer_association, hello.lane)?;
        let secret = link.secret.clone().ok_or(HandshakeError::NoControl)?;
        let associations = (hello.peer_association, hello.association);
        let ticket = LaneTicket { lane: hello.lane, link: link.serial, associations };
        let (listener, challenge) = LaneListener::new(bytes, hello, &secret, nonce)?;
        Ok((challenge, Role::AcceptLane(listener, ticket)))
    }

    /// Both sides have proved themselves, as far as this one knows.
    fn open_lane(
        &mut self,
        id: ConnId,
        end: usize,
        engine: usize,
        remote: usize,
        ticket: LaneTicket,
    ) -> Result<Role, HandshakeError> {
        let link = self.link_of(engine, remote, ticket.link).ok_or(HandshakeError::NoControl)?;
        if link.peer.associations() != Some(ticket.associations) {
            return Err(HandshakeError::NoControl);
        }
        link.peer.handle_lane_opened(ticket.lane)?;
        link.lanes.insert(ticket.lane, (id, end));
        self.note(|| format!("{engine} has opened {} with {remote}", ticket.lane));
        Ok(Role::Lane(Box::new(LaneHalf {
            ticket,
            receiver: Some(LaneReceiver::default()),
            sender: LaneSender::default(),
            closing: None,
        })))
    }
}

/// The message of these bytes, which are all of one if they are one.
fn parse(bytes: &[u8]) -> Result<HandshakeMessage, WireError> {
    let (prefix, body) = bytes.split_at(HANDSHAKE_PREFIX_LEN);
    let mut first = [0; HANDSHAKE_PREFIX_LEN];
    first.copy_from_slice(prefix);
    let (kind, _) = HandshakeMessage::decode_prefix(&first)?;
    HandshakeMessage::decode(kind, body)
}

fn address(engine: usize) -> IpAddr {
    let [_, high, middle, low] = (engine as u32 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, middle, low))
}
