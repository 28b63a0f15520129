//! More than anyone should have to keep.

use bytes::Bytes;

use crate::id::{GrantId, RegionId, TransferId};
use crate::region::RegionKey;
use crate::testing::sim::{Fault, World};
use crate::time::Time;
use crate::wire::message::{Message, OpenRegion, RankKey};

impl World {
    /// Sends much of one kind at once.
    pub(super) fn flood(&mut self, engine: usize, remote: usize) {
        match self.random.index(7) {
            0..3 => self.flood_frames(engine, remote),
            3 => self.flood_notifications(engine, remote),
            4 => self.flood_requests(engine, remote),
            5 => self.flood_cancels(engine, remote),
            _ => self.flood_announcements(engine, remote),
        }
    }

    /// More notifications than there is credit for.
    fn flood_notifications(&mut self, engine: usize, remote: usize) {
        let after = self.random.percent(30).then(|| self.fresh_transfer(engine, remote));
        let bytes = Bytes::from(vec![9; 150_000]);
        let peer = &mut self.link(engine, remote).peer;
        for _ in 0..8 {
            peer.say(Message::Notify { after, more: false, bytes: bytes.clone() });
        }
        self.did(Fault::NotificationFlood, engine, remote);
    }

    /// Questions, each of which asks for an answer that must be kept until it is acknowledged.
    fn flood_requests(&mut self, engine: usize, remote: usize) {
        let rank = RankKey { instance: "prefill".to_owned(), dp: 0, pp: 0, tp: 0 };
        let key = RegionKey::new(self.random.bytes());
        let peer = &mut self.link(engine, remote).peer;
        for number in 0..50 {
            let region = RegionId::from_bits(number);
            peer.say(Message::OpenRegions(vec![OpenRegion { region, key: key.clone() }; 8]));
            peer.say(Message::Heartbeat { time: Time::from_nanos(number) });
            let rank = rank.clone();
            peer.say(Message::DirectoryGet { request: number, rank, wait_ms: u32::MAX });
        }
        self.did(Fault::RequestFlood, engine, remote);
    }

    /// Cancellations of transfers that never were, far apart.
    fn flood_cancels(&mut self, engine: usize, remote: usize) {
        for _ in 0..100 {
            let transfer = TransferId(self.random.bits() >> 1 | 1);
            self.link(engine, remote).peer.say(Message::Cancel { transfer });
        }
        self.did(Fault::CancelFlood, engine, remote);
    }

    /// Layers of transfers that never come.
    fn flood_announcements(&mut self, engine: usize, remote: usize) {
        let held = self.loot(engine, remote).grants.last().map(|held| held.grant);
        let grant = held.unwrap_or(GrantId(1));
        for _ in 0..100 {
            let transfer = self.fresh_transfer(engine, remote);
            let message = Message::Layers { transfer, grant, first: 0, count: 1 };
            self.link(engine, remote).peer.say(message);
        }
        self.did(Fault::AnnouncementFlood, engine, remote);
    }
}
