//! What hostile engines do before anyone has let them in: connections that say nothing, half a
//! greeting or garbage, names that are not theirs, lanes of others.

use crate::error::HandshakeError;
use crate::id::{Association, Incarnation, LaneId};
use crate::proto::{Auth, AuthKey, Dialer, LaneDialer};
use crate::testing::sim::engine::engine_id;
use crate::testing::sim::network::Role;
use crate::testing::sim::{Fault, World};
use crate::wire::handshake::{HandshakeMessage, Reject};

impl World {
    /// Tries the door of an engine.
    pub(super) fn knock(&mut self, engine: usize, remote: usize) {
        match self.random.index(7) {
            0 => {
                self.connect(engine, remote, Role::Mute);
                self.did(Fault::SilentConnection, engine, remote);
            }
            1 => self.greet_half(engine, remote),
            2 => self.steal_name(engine, remote),
            3 => self.knock_with(Fault::GarbageConnection, engine, remote, garbage),
            4 => self.knock_with(Fault::WrongGreeting, engine, remote, |_| {
                let reject = Reject { reason: HandshakeError::Busy };
                HandshakeMessage::Reject(reject).encode().expect("a Reject fits")
            }),
            5 => self.forge_lane(engine, remote),
            _ => self.flood_lanes(engine, remote),
        }
    }

    fn knock_with(
        &mut self,
        fault: Fault,
        engine: usize,
        remote: usize,
        bytes: impl FnOnce(&mut Self) -> Vec<u8>,
    ) {
        let id = self.connect(engine, remote, Role::Mute);
        let bytes = bytes(self);
        self.send(id, 0, bytes);
        self.did(fault, engine, remote);
    }

    /// A Hello of which the rest never comes.
    fn greet_half(&mut self, engine: usize, remote: usize) {
        let auth = self.auth(self.engines[remote].identity.incarnation);
        let hello = self.hello_of(engine, &auth);
        let len = self.random.within(1..hello.len() as u64) as usize;
        self.knock_with(Fault::HalfGreeting, engine, remote, |_| hello[..len].to_vec());
    }

    /// A Hello in the name of another engine, or in its own, with a key that is not the right one.
    fn steal_name(&mut self, engine: usize, remote: usize) {
        let victim = self.random.index(self.engines.len());
        let other_key = Auth::SharedKey(AuthKey::new(b"another key".to_vec()));
        let other_life = self.auth(Incarnation([7; 16]));
        let auth = if self.setting.by_metadata { other_life } else { other_key };
        let hello = self.hello_of(victim, &auth);
        let id = self.connect(engine, remote, Role::Mute);
        self.send(id, 0, hello);
        // A Confirm that proves nothing follows at once.
        let time = self.local(engine);
        let confirm = crate::wire::handshake::Confirm { time, mark: None, mac: [7; 32] };
        let confirm = HandshakeMessage::Confirm(confirm).encode().expect("a Confirm fits");
        self.send(id, 0, confirm);
        self.did(Fault::StolenName, engine, remote);
    }

    fn hello_of(&mut self, engine: usize, auth: &Auth) -> Vec<u8> {
        let (nonce, now) = (self.random.bytes(), self.local(engine));
        let identity = &self.engines[engine].identity;
        let (_, hello) = Dialer::new(identity, auth, None, nonce, now).expect("a Hello fits");
        hello
    }

    /// A lane of another pair, or of its own under a secret that is not theirs.
    fn forge_lane(&mut self, engine: usize, remote: usize) {
        let links: Vec<_> = self.engines[remote].links.values().collect();
        let known = links.get(self.random.index(links.len().max(1)));
        let known = known.and_then(|link| link.peer.associations());
        let Some((theirs, own)) = known else { return };
        let lane = LaneId(self.random.within(0..200) as u32);
        let hello = self.lane_hello(engine, (own, theirs), lane);
        let id = self.connect(engine, remote, Role::Mute);
        self.send(id, 0, hello);
        let proof = crate::wire::handshake::LaneProof { mac: [3; 32] };
        let proof = HandshakeMessage::LaneProof(proof).encode().expect("a LaneProof fits");
        self.send(id, 0, proof);
        self.did(Fault::ForgedLane, engine, remote);
    }

    fn lane_hello(
        &mut self,
        engine: usize,
        associations: (Association, Association),
        lane: LaneId,
    ) -> Vec<u8> {
        let secret = self.engines[engine].links.values().find_map(|link| link.secret.clone());
        let nonce = self.random.bytes();
        let Some(secret) = secret else { return vec![0] };
        let id = engine_id(engine);
        let (_, hello) = LaneDialer::new(id, associations, lane, 1, &secret, nonce)
            .expect("a LaneHello has a fixed size");
        hello
    }

    /// More lanes than a pair may have, proved as they should be.
    fn flood_lanes(&mut self, engine: usize, remote: usize) {
        let Some(link) = self.engines[engine].links.get(&remote) else { return };
        if !link.dialed_here || link.peer.associations().is_none() {
            return;
        }
        let parity = link.lanes.keys().next().map_or(0, |lane| lane.0 & 1);
        let first = self.random.within(1000..1 << 30) as u32;
        for number in 0..20 {
            self.dial_lane(engine, remote, LaneId((first + number) << 1 | parity));
        }
        self.did(Fault::LaneFlood, engine, remote);
    }
}

fn garbage(world: &mut World) -> Vec<u8> {
    let len = world.random.within(1..200);
    (0..len).map(|_| world.random.bits() as u8).collect()
}
