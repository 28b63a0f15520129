//! Noise: random bytes, and good traffic of which a few bits are not what they were.

use kvx_core::error::Refusal;
use kvx_core::id::{GrantId, Room, SessionKey, Slot, TransferId};
use kvx_core::region::Rights;
use kvx_core::time::Time;
use kvx_core::wire::message::{Message, RankKey};

use crate::Attack;
use crate::connection::{Control, Gone, Lane, Result};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "control-garbage",
        what: "random bytes for control messages",
        must: "the connection ends",
        run: control_garbage,
    },
    Attack {
        name: "control-bits",
        what: "good control messages with bits flipped",
        must: "each is one of the answers there are; nothing else happens",
        run: control_bits,
    },
    Attack {
        name: "lane-garbage",
        what: "random bytes for frames",
        must: "the lane ends, the control connection goes on",
        run: lane_garbage,
    },
    Attack {
        name: "lane-bits",
        what: "good frames with bits flipped in header and table",
        must: "each lands where it may, is refused, or ends its lane",
        run: lane_bits,
    },
];

fn control_garbage(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..20 {
        let len = 24 + scene.random.below(5000);
        let noise = scene.random.bytes(len);
        let speak = |control: &mut Control| control.stream.send(&noise);
        scene.say_alone("noise for messages", speak, &[Answer::ControlEnded])?;
    }
    // The type is good, the body noise.
    for kind in 16..=36 {
        let len = scene.random.below(300);
        let noise = scene.random.bytes(len);
        let speak = |control: &mut Control| {
            let bytes = control.forge(kind, &noise);
            control.stream.send(&bytes)
        };
        // A body of nothing but a number or two may happen to be a good one.
        let may = &[Answer::ControlEnded, Answer::Ignored];
        scene.say_alone("noise for a body", speak, may)?;
    }
    Ok(())
}

/// One of everything that may be said at any time and does nothing.
fn samples() -> Vec<Message> {
    let session = SessionKey { room: Room(1), attempt: 2, sender_rank: 3, receiver_rank: 4 };
    let (transfer, grant) = (TransferId(9), GrantId(9));
    let rank = RankKey { instance: "x".into(), dp: 0, pp: 0, tp: 0 };
    vec![
        Message::Heartbeat { time: Time::from_nanos(7) },
        Message::Acknowledge,
        Message::OpenRegions(Vec::new()),
        Message::SlotsClosed(vec![Slot(1), Slot(2)]),
        Message::ReadFailed { transfer, refusal: Refusal::Busy },
        Message::Cancel { transfer },
        Message::Fenced { transfer },
        Message::GrantBlocks { grant, blocks: vec![1, 2, 3] },
        Message::Layers { transfer, grant, first: 1, count: 2 },
        Message::SessionEnd { grant, writes: 3, payload: vec![1, 2, 3].into() },
        Message::SessionAbort { session, grant: None, by_receiver: true, reason: "no".into() },
        Message::DirectoryGet { request: 5, rank, wait_ms: 1 },
        Message::DirectoryAnswer { request: 5, entry: None },
        Message::ListRegions,
        Message::Notify { after: None, more: false, bytes: vec![1; 20].into() },
    ]
}

fn control_bits(scene: &mut Scene<'_>) -> Result<()> {
    for round in 0..60 {
        let mut control = scene.enter()?;
        let mut bytes = Vec::new();
        for message in samples() {
            bytes.extend(control.encode(&message)?);
        }
        for _ in 0..=round % 4 {
            let at = scene.random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << scene.random.below(8);
            }
        }
        scene.pace.blow();
        let said = control.stream.send(&bytes);
        // A length that grew makes the victim wait for the rest of a message: then the words that
        // ask for the verdict are that rest, and what becomes of them is noise as well.
        let answer = match said {
            Ok(()) => {
                let _ = control.stream.finish();
                if control.stream.ends(crate::connection::PATIENCE) {
                    Answer::ControlEnded
                } else {
                    Answer::Ignored
                }
            }
            Err(Gone::Ended) => Answer::ControlEnded,
            Err(other) => return Err(other),
        };
        scene.judge("bits of messages", answer, &[Answer::ControlEnded]);
    }
    Ok(())
}

fn lane_garbage(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    for _ in 0..20 {
        let mut lane = Lane::open(scene.target, &mut control)?;
        let len = 64 + scene.random.below(100_000);
        let noise = scene.random.bytes(len);
        scene.pace.blow();
        // The victim may have hung up before the last of it.
        let _ = lane.stream.send(&noise);
        let answer = lane.end(&mut control)?;
        scene.judge("noise for frames", answer, &[Answer::LaneEnded]);
    }
    Ok(())
}

fn lane_bits(scene: &mut Scene<'_>) -> Result<()> {
    let region = scene.region(Rights::REMOTE_WRITE)?;
    let mut control = scene.enter()?;
    let slot = control.open(region)?;
    // The offset's low 12 bits alone may change without leaving the yard: the rest of the table
    // and the header is bent as it comes, and the region is as long as the bits that are left.
    for round in 0..100 {
        let mut lane = Lane::open(scene.target, &mut control)?;
        let table = vec![Entry::new(slot, 0, 64), Entry::new(slot, 1024, 64)];
        let frame = Frame::write(scene.transfer(), scene.later(), table, vec![0xd6; 128]);
        let mut bytes = frame.bytes();
        // Bits of the second entry's offset above the yard are left alone: it may be written there.
        let at = loop {
            let at = scene.random.below(if round % 2 == 0 { 64 } else { 96 });
            if !(73..80).contains(&at) && !(89..96).contains(&at) {
                break at;
            }
        };
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << scene.random.below(8);
        }
        scene.pace.blow();
        let _ = lane.stream.send(&bytes);
        let _ = lane.stream.finish();
        let answer = lane.end(&mut control)?;
        scene.judge("bits of frames", answer, &[Answer::LaneEnded]);
    }
    Ok(())
}
