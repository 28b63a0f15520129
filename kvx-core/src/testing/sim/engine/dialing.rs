//! How a simulated engine dials others: control connections while something waits, lanes when its
//! peers ask for them.

use crate::id::LaneId;
use crate::proto::{Dialer, LaneDialer};
use crate::testing::sim::engine::{engine_id, secret};
use crate::testing::sim::network::{ConnId, LaneTicket, Role};
use crate::testing::sim::{Fault, Happening, MS, World};

impl World {
    pub(super) fn redial_if_needed(&mut self, engine: usize, remote: usize) {
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
        let present = self.engines[remote].identity.incarnation;
        let known = self.engines[engine].links.get(&remote).and_then(|link| link.expected);
        let auth = self.auth(known.unwrap_or(present));
        let Some(link) = self.engines[engine].links.get_mut(&remote) else { return };
        link.redial_set = false;
        if link.control.is_some() || link.dialing.is_some() {
            return;
        }
        link.attempts += 1;
        let association = link.association;
        let identity = &self.engines[engine].identity;
        let (dialer, hello) = Dialer::new(identity, &auth, Some(engine_id(remote)), nonce, now)
            .expect("the identity fits a Hello");
        let dialer = dialer.marked(association, Some(&secret(identity.incarnation)));
        let conn = self.connect(engine, remote, Role::DialControl(dialer));
        self.note(|| format!("{engine} dials {remote}"));
        let theirs = self.engines[remote].links.get(&engine);
        if theirs.is_some_and(|link| link.dialing.is_some()) {
            self.count(Fault::CrossingDials);
        }
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

    pub(crate) fn dial_lane(&mut self, engine: usize, remote: usize, lane: LaneId) {
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
