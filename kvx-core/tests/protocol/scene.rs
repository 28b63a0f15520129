//! What the tests of the protocol have in common: two connected engines, memory, and words for
//! what they do with it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::{Cause, Refusal, Violation};
use kvx_core::id::TransferId;
use kvx_core::plan::{Plan, PlanOptions, Span, Spans};
use kvx_core::proto::{
    Deadline, Delivery, Event, PeerConfig, Post, Target, TransferOp, TransferReport,
};
use kvx_core::region::{Region, Rights};
use kvx_core::testing::{Pair, Segment};
use kvx_core::transport::{Admission, Landing};
use kvx_core::wire::message::Message;
use kvx_core::wire::{FrameHeader, WireSpan};

pub(crate) const ALL: Rights = Rights::all();
pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Engine 0 has a source, engine 1 a target, both of 4 KiB. Frames are small, so that a transfer
/// takes many.
pub(crate) struct Scene {
    pub(crate) pair: Pair,
    pub(crate) local: Arc<Region>,
    pub(crate) source: Segment,
    pub(crate) remote: Arc<Region>,
    pub(crate) target: Segment,
}

pub(crate) fn config() -> PeerConfig {
    PeerConfig { frame_bytes: 256, lanes: 2, ..PeerConfig::default() }
}

pub(crate) fn scene() -> Scene {
    scene_with(config())
}

pub(crate) fn scene_with(config: PeerConfig) -> Scene {
    Scene::around(Pair::connected(config))
}

impl Scene {
    /// The scene for a pair that is connected.
    pub(crate) fn around(mut pair: Pair) -> Self {
        let (local, source) = pair.sides[0].register(4096, 0, ALL);
        let (remote, target) = pair.sides[1].register(4096, 0xee, ALL);
        for (index, byte) in
            pair.sides[0].memory.bytes_mut(source.base, 4096).iter_mut().enumerate()
        {
            *byte = (index / 16 + index % 7) as u8;
        }
        pair.sides[0].peer.learn_regions([(remote.id, remote.key.clone())]);
        pair.sides.iter_mut().for_each(|side| side.events.clear());
        Self { pair, local, source, remote, target }
    }

    /// The runs of `count` pieces of `len` bytes each, spread over both regions so that none merge.
    pub(crate) fn plan(&self, count: u64, len: u64) -> Arc<Plan> {
        let spans = |step: u64| -> Spans {
            (0..count).map(|i| Span { region: 0, offset: i * step, len }).collect()
        };
        let options = PlanOptions::default();
        Arc::new(Plan::pair(&spans(len + 16), &spans(len + 8), &options).unwrap())
    }

    pub(crate) fn post_of(&self, op: TransferOp, plan: Arc<Plan>) -> Post {
        Post {
            op,
            plan,
            local: Arc::from([Arc::clone(&self.local)]),
            target: Target::Regions(Arc::from([self.remote.id])),
            notification: None,
            layers: None,
            deadline: Deadline::default(),
        }
    }

    /// Posts a WRITE of eight pieces of 128 bytes: four frames.
    pub(crate) fn write(&mut self) -> TransferId {
        let post = self.post_of(TransferOp::Write, self.plan(8, 128));
        self.post(post)
    }

    pub(crate) fn read(&mut self) -> TransferId {
        let post = self.post_of(TransferOp::Read, self.plan(8, 128));
        self.post(post)
    }

    pub(crate) fn write_and_tell(&mut self, words: &'static str) -> TransferId {
        let notification = Some(Bytes::from(words));
        let post = self.post_of(TransferOp::Write, self.plan(8, 128));
        self.post(Post { notification, ..post })
    }

    pub(crate) fn read_and_tell(&mut self, words: &'static str) -> TransferId {
        let notification = Some(Bytes::from(words));
        let post = self.post_of(TransferOp::Read, self.plan(8, 128));
        self.post(Post { notification, ..post })
    }

    pub(crate) fn post(&mut self, post: Post) -> TransferId {
        self.pair.sides[0].peer.post(self.pair.now, post).unwrap().unwrap()
    }

    /// Whether these pieces of [`Scene::plan`] are in the target as in the source.
    pub(crate) fn arrived(&self, pieces: Range<u64>, len: u64) -> bool {
        pieces.into_iter().all(|i| {
            let [ours, theirs] = &self.pair.sides;
            ours.memory.bytes(self.source.base + i * (len + 16), len as usize)
                == theirs.memory.bytes(self.target.base + i * (len + 8), len as usize)
        })
    }

    /// The target as it is.
    pub(crate) fn target_bytes(&self) -> Vec<u8> {
        self.pair.sides[1].memory.bytes(self.target.base, 4096).to_vec()
    }

    /// How transfers of side 0 ended since last asked.
    pub(crate) fn ends(&mut self) -> Vec<(TransferId, Result<TransferReport, Cause>)> {
        self.pair.collect();
        let mut ends = Vec::new();
        for event in self.pair.sides[0].take_events() {
            if let Event::TransferEnded { transfer, outcome, .. } = event {
                ends.push((transfer, outcome));
            }
        }
        ends
    }

    /// The one end there was, in words.
    pub(crate) fn end(&mut self) -> String {
        let ends = self.ends();
        assert_eq!(ends.len(), 1, "{ends:?}");
        match &ends[0].1 {
            Ok(report) => format!("{} bytes in {} runs", report.bytes, report.runs),
            Err(cause) => cause.to_string(),
        }
    }
}

/// A frame made by hand comes on side `side`'s first lane, as far as its table.
pub(crate) fn present(
    pair: &mut Pair,
    side: usize,
    header: &FrameHeader,
    table: &[WireSpan],
) -> Result<(Admission, Landing), Violation> {
    let (now, lane) = (pair.now, pair.lanes(side)[0]);
    let mut landing = Landing::default();
    let peer = &mut pair.sides[side].peer;
    peer.handle_frame(now, lane, header, table, &mut landing).map(|admission| (admission, landing))
}

/// The rest of a frame that was admitted is in memory.
pub(crate) fn finish(pair: &mut Pair, side: usize, header: &FrameHeader) {
    let (now, lane) = (pair.now, pair.lanes(side)[0]);
    pair.sides[side].peer.handle_frame_finished(now, lane, header, Ok(()));
}

/// The refusal that side `side` has said last.
pub(crate) fn refusal(pair: &mut Pair, side: usize) -> Option<Refusal> {
    pair.messages(1 - side).into_iter().rev().find_map(|message| match message {
        Message::Refused { refusal, .. } => Some(refusal),
        _ => None,
    })
}

/// Puts messages of the test's making on the way to side `to`, which the other side has said
/// nothing to yet, and has them dealt with. Returns what is wrong with them.
pub(crate) fn say(
    pair: &mut Pair,
    to: usize,
    messages: impl IntoIterator<Item = Message>,
) -> Option<Violation> {
    for (sequence, message) in (1..).zip(messages) {
        pair.inject(to, sequence, 0, &message);
        pair.deliver(to);
    }
    pair.sides[to].violation.take()
}

/// What side `side`'s user was told, taking it, so that credit returns.
pub(crate) fn told(pair: &mut Pair, side: usize) -> Vec<String> {
    pair.collect();
    let mut told = Vec::new();
    for event in pair.sides[side].take_events() {
        if let Event::Notification(bytes) = event {
            pair.sides[side].peer.notification_taken(bytes.len());
            told.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    told
}

/// The settled fates of side `side`'s notifications, in words.
pub(crate) fn fates(pair: &mut Pair, side: usize) -> Vec<(u64, &'static str)> {
    pair.collect();
    let mut fates = Vec::new();
    for event in pair.sides[side].take_events() {
        if let Event::NotificationSettled(id, fate, _) = event {
            let fate = match fate {
                Delivery::Delivered => "delivered",
                Delivery::NotDelivered(_) => "not delivered",
                Delivery::Unknown(_) => "unknown",
            };
            fates.push((id.0, fate));
        }
    }
    fates
}
