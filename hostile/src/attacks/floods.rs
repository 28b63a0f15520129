//! Floods: of whatever makes the victim keep something, or say something that nobody reads.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use kvx_core::error::Invalid;
use kvx_core::id::{GrantId, Incarnation, RegionId, Room, SessionKey, Slot, TransferId};
use kvx_core::layout::{Dtype, HeadWindow, Layout, LayoutBuilder};
use kvx_core::region::RegionKey;
use kvx_core::time::Time;
use kvx_core::wire::message::{Grant, MAX_GRANT_SLOTS, Message, OpenRegion};

use crate::Attack;
use crate::connection::{Control, Gone, Lane, Me, Result, Stream};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::random;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "heartbeat-flood",
        what: "heartbeats whose answers are never read",
        must: "the connection ends before the unread answers outgrow a peer's budget",
        run: heartbeat_flood,
    },
    Attack {
        name: "unread-answers",
        what: "region keys for regions that are not there, whose answers are never read nor \
               acknowledged",
        must: "the connection ends before the answers outgrow a peer's budget",
        run: unread_answers,
    },
    Attack {
        name: "unacknowledged-answers",
        what: "the same with every answer read, and none acknowledged",
        must: "the connection ends before the answers outgrow a peer's budget",
        run: unacknowledged_answers,
    },
    Attack {
        name: "refusal-flood",
        what: "frames that are refused, on several lanes, without reading the refusals",
        must: "the connection ends before the refusals outgrow a peer's budget",
        run: refusal_flood,
    },
    Attack {
        name: "cancel-flood",
        what: "Cancels of transfers that never were, each a gap from the next",
        must: "so many are remembered, then the connection ends",
        run: cancel_flood,
    },
    Attack {
        name: "room-flood",
        what: "grants for rooms that no Sender asks for, each as large as may be",
        must: "so many wait for a peer, then the connection ends",
        run: room_flood,
    },
    Attack {
        name: "grant-churn",
        what: "grants that are taken back at once, without end",
        must: "nothing of a grant that was taken back stays",
        run: grant_churn,
    },
    Attack {
        name: "reconnect-flood",
        what: "one peer that connects again and again, and never ends a connection",
        must: "its latest connection stays, those before are closed",
        run: reconnect_flood,
    },
    Attack {
        name: "swallowed-dials",
        what: "peers that leave with a question unanswered, and give addresses that swallow every \
               dial",
        must: "few of them are dialed at once",
        run: swallowed_dials,
    },
    Attack {
        name: "peer-flood",
        what: "peers without end, each new and soon silent",
        must: "so many are kept, and those that are there stay served",
        run: peer_flood,
    },
];

const BORNE: &[Answer] = &[Answer::Ignored, Answer::ControlEnded];

/// Says the same thing over and over, without reading, until the victim hangs up or takes no more.
fn flood(
    scene: &mut Scene<'_>,
    control: &mut Control,
    batch: u64,
    mut say: impl FnMut(&mut Control, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut bytes = Vec::new();
    for _ in 0..scene.pace.flood(1) / batch {
        if scene.pace.is_over() {
            break;
        }
        bytes.clear();
        for _ in 0..batch {
            scene.pace.blow();
            say(control, &mut bytes)?;
        }
        match control.stream.send(&bytes) {
            Ok(()) => {}
            Err(Gone::Ended | Gone::Full) => break,
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn heartbeat_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    flood(scene, &mut control, 100, |control, bytes| {
        bytes.extend(control.encode(&Message::Heartbeat { time: Time::ZERO })?);
        Ok(())
    })?;
    let answer = control.verdict()?;
    scene.judge("unread heartbeats", answer, BORNE);
    Ok(())
}

/// A question for many regions that are not there.
fn strangers(scene: &mut Scene<'_>) -> Message {
    let mut strange = || OpenRegion {
        region: RegionId::from_bits(scene.random.next()),
        key: RegionKey::new(scene.random.array()),
    };
    Message::OpenRegions((0..32_768).map(|_| strange()).collect())
}

fn unread_answers(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    control.acknowledges = false;
    let question = strangers(scene);
    for _ in 0..scene.pace.flood(50) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        match control.send(&question) {
            Ok(()) => {}
            Err(Gone::Ended | Gone::Full) => break,
            Err(other) => return Err(other),
        }
    }
    let answer = control.verdict()?;
    scene.judge("unread answers", answer, BORNE);
    control.leave();
    Ok(())
}

fn unacknowledged_answers(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    control.acknowledges = false;
    let question = strangers(scene);
    for _ in 0..scene.pace.flood(50) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        let said = control.send(&question).and_then(|()| {
            control.find("RegionsOpened", |message| {
                matches!(message, Message::RegionsOpened(_)).then_some(())
            })
        });
        match said {
            Ok(()) => {}
            Err(Gone::Ended | Gone::Full) => break,
            Err(other) => return Err(other),
        }
    }
    let answer = control.verdict()?;
    scene.judge("unacknowledged answers", answer, BORNE);
    control.leave();
    Ok(())
}

fn refusal_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let mut lanes = Vec::new();
    for _ in 0..4 {
        lanes.push(Lane::open(scene.target, &mut control)?);
    }
    // READs, whose refusals end no transfer that would have to be remembered.
    let transfer = TransferId(1 << 63 | 1);
    let frame = Frame::read(transfer, scene.later(), vec![Entry::new(Slot(0), 0, 1)]);
    let batch: Vec<u8> = frame.bytes().repeat(100);
    'flood: for _ in 0..scene.pace.flood(1) / 400 {
        for lane in &mut lanes {
            if scene.pace.is_over() {
                break 'flood;
            }
            (0..100).for_each(|_| scene.pace.blow());
            match lane.stream.send(&batch) {
                Ok(()) => {}
                Err(Gone::Ended | Gone::Full) => break 'flood,
                Err(other) => return Err(other),
            }
        }
    }
    let answer = control.verdict()?;
    scene.judge("refusals that nobody reads", answer, BORNE);
    control.leave();
    Ok(())
}

fn cancel_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let mut number = 1;
    flood(scene, &mut control, 100, |control, bytes| {
        number += 2;
        bytes.extend(control.encode(&Message::Cancel { transfer: TransferId(number) })?);
        Ok(())
    })?;
    let answer = control.verdict()?;
    scene.judge("Cancels of what never was", answer, BORNE);
    Ok(())
}

/// A grant of one block, with as many slots as a message takes.
fn grant(number: u64, layout: &Layout, slots: usize) -> Message {
    Message::Grant(Box::new(Grant {
        grant: GrantId(number),
        session: SessionKey { room: Room(number), attempt: 0, sender_rank: 0, receiver_rank: 0 },
        layout: layout.clone(),
        slots: vec![Slot(1); slots],
        tokens: 1,
        total_blocks: 1,
        blocks: vec![0],
    }))
}

fn layout() -> Result<Layout> {
    let heads = HeadWindow { first: 0, count: 1, total: 1 };
    let layout = LayoutBuilder::key_value(1, 1, heads, 64, Dtype::Bf16).build();
    layout.map_err(|invalid: Invalid| Gone::Own(invalid.to_string()))
}

fn room_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let layout = layout()?;
    let base = scene.random.next() >> 1;
    for number in 0..scene.pace.flood(1) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        // What goes on at every message must not cost more for every grant there is.
        let said = control
            .send(&grant(base + number, &layout, MAX_GRANT_SLOTS))
            .and_then(|()| control.send(&Message::Acknowledge));
        match said {
            Ok(()) => {}
            Err(Gone::Ended | Gone::Full) => break,
            Err(other) => return Err(other),
        }
    }
    let answer = control.verdict()?;
    scene.judge("a flood of rooms", answer, BORNE);
    Ok(())
}

fn grant_churn(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let layout = layout()?;
    let mut number = scene.random.next() >> 1;
    flood(scene, &mut control, 20, |control, bytes| {
        number += 1;
        let given = grant(number, &layout, 2);
        let Message::Grant(about) = &given else { return Ok(()) };
        let back = Message::SessionAbort {
            session: about.session,
            grant: Some(about.grant),
            by_receiver: true,
            reason: String::new(),
        };
        bytes.extend(control.encode(&given)?);
        bytes.extend(control.encode(&back)?);
        Ok(())
    })?;
    let answer = control.verdict()?;
    scene.judge("grants that come and go", answer, BORNE);
    Ok(())
}

fn reconnect_flood(scene: &mut Scene<'_>) -> Result<()> {
    let me = Me::new()?;
    let mut held = Vec::new();
    let mut own = None;
    for _ in 0..scene.pace.flood(100) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        // Sometimes another life, which ends the one before.
        let mut me = me.clone();
        if scene.random.below(10) == 0 {
            me.incarnation = Incarnation(random::unique()?);
            own = None;
        }
        let mut control = Control::dial(scene.target, me)?;
        control.own = *own.get_or_insert(control.own);
        control.resume(None)?;
        // Hundreds are held at once, so that only the victim can end them.
        held.push(control);
        if held.len() > 200 {
            held.remove(0);
        }
    }
    let Some(mut last) = held.pop() else { return Ok(()) };
    let answer = last.verdict()?;
    scene.judge("the latest connection", answer, &[Answer::Ignored]);
    for mut before in held {
        let ended = if before.stream.ends(Duration::from_secs(10)) {
            Answer::ControlEnded
        } else {
            Answer::Ignored
        };
        scene.judge("a connection that was replaced", ended, &[Answer::ControlEnded]);
    }
    Ok(())
}

fn peer_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut first = scene.enter()?;
    let may = &[Answer::Accepted, Answer::Rejected("Busy")];
    for _ in 0..scene.pace.flood(10) {
        if scene.pace.is_over() {
            break;
        }
        let outcome = scene.enter();
        scene.judge_handshake("one more peer", outcome, may)?;
    }
    let answer = first.verdict()?;
    scene.judge("the first of them", answer, &[Answer::Ignored]);
    Ok(())
}

fn swallowed_dials(scene: &mut Scene<'_>) -> Result<()> {
    // Accepts, says nothing, and counts those that wait.
    let sink = TcpListener::bind("127.0.0.1:0")?;
    sink.set_nonblocking(true)?;
    let address = sink.local_addr()?;
    for _ in 0..40 {
        scene.pace.blow();
        let me = Me { addresses: vec![address; 16], ..Me::new()? };
        let mut control = scene.enter_as(me)?;
        // Its answer will be there to be said when nobody is.
        control.acknowledges = false;
        control.send(&Message::Cancel { transfer: TransferId(1 << 63 | 1) })?;
        control.barrier()?;
    }
    let begun = Instant::now();
    let (mut held, mut most) = (Vec::new(), 0);
    while begun.elapsed() < Duration::from_secs(4) && !scene.pace.is_over() {
        while let Ok((tcp, _)) = sink.accept() {
            held.push(Stream::new(tcp)?);
        }
        // The victim gives each up when its time is over.
        held.retain_mut(|stream| !stream.ends(Duration::ZERO));
        most = most.max(held.len());
        std::thread::sleep(Duration::from_millis(20));
    }
    if most > 128 {
        scene.outcome.surprise(format!("{most} dials at once"));
    }
    if most > 0 {
        scene.outcome.count(Answer::Accepted);
    }
    Ok(())
}
