//! Sessions: bytes that were not granted, grants that are forged, another's, or over, and lies
//! about what arrived. For each the victim's user opens a receiver in good faith.

use std::time::Duration;

use kvx_core::error::Refusal;
use kvx_core::id::{GrantId, Room, SessionKey, Slot, TransferId};
use kvx_core::plan::spans_of;
use kvx_core::wire::message::{Grant, Message};

use crate::Attack;
use crate::connection::{Control, Gone, Lane, Result};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::{Scene, refused};
use crate::target::Ask;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "forged-grants",
        what: "WRITEs under grants that were never given, or to somebody else",
        must: "each is refused as NotGranted",
        run: forged_grants,
    },
    Attack {
        name: "beyond-the-grant",
        what: "WRITEs beside the granted blocks, by slot without the grant, and READs under it",
        must: "each is refused as NotGranted or NoRight",
        run: beyond_the_grant,
    },
    Attack {
        name: "another-rooms-grant",
        what: "one room's blocks under the grant of another",
        must: "each is refused as NotGranted",
        run: another_rooms_grant,
    },
    Attack {
        name: "after-the-drop",
        what: "WRITEs under a grant whose receiver was dropped, or whose session has ended",
        must: "each is refused as NotGranted",
        run: after_the_drop,
    },
    Attack {
        name: "session-lies",
        what: "layers that no grant has, ends that never come, sessions that are not there",
        must: "what fits no state ends the connection, what is over is ignored",
        run: session_lies,
    },
];

/// A grant and where it lets one write: the first span of each granted block.
struct Held {
    grant: Grant,
    /// Slot, offset and length of what is granted.
    spans: Vec<(Slot, u64, u64)>,
}

/// Has the victim's user open a receiver, and waits for the grant.
fn receive(scene: &mut Scene<'_>, control: &mut Control) -> Result<Held> {
    let session = SessionKey {
        room: Room(scene.random.next()),
        attempt: 0,
        sender_rank: 0,
        receiver_rank: 0,
    };
    scene.ask(Ask::Receive(control.me.engine, session))?;
    let grant = control.find("a grant", |message| match message {
        Message::Grant(grant) if grant.session == session => Some((**grant).clone()),
        _ => None,
    })?;
    let own = |cause| Gone::Own(format!("a grant that makes no sense: {cause}"));
    let layers = grant.layout.global_layers();
    let spans = spans_of(&grant.layout, layers, &grant.blocks).map_err(own)?;
    let place = |span: kvx_core::plan::Span| {
        let slot = grant.slots.get(span.region as usize).copied();
        slot.map(|slot| (slot, span.offset, span.len))
    };
    let spans: Vec<_> = spans.filter_map(place).collect();
    Ok(Held { grant, spans })
}

impl Held {
    /// The granted bytes come first in the pool that this is of; what lies behind the last of
    /// them in its slot is not granted.
    fn behind(&self) -> Option<(Slot, u64)> {
        let (slot, ..) = *self.spans.first()?;
        let mine = self.spans.iter().filter(|(of, ..)| *of == slot);
        mine.map(|(_, offset, len)| offset + len).max().map(|end| (slot, end))
    }

    fn first(&self) -> Result<(Slot, u64)> {
        let first = self.spans.first().map(|(slot, offset, _)| (*slot, *offset));
        first.ok_or(Gone::Own("a grant of nothing".into()))
    }
}

/// A WRITE of 64 bytes under a grant.
fn write(scene: &mut Scene<'_>, grant: GrantId, (slot, offset): (Slot, u64)) -> Frame {
    let table = vec![Entry::new(slot, offset, 64)];
    Frame::write(scene.transfer(), scene.later(), table, vec![0xee; 64]).under(grant)
}

const NOT_GRANTED: &[Answer] = &[refused(Refusal::NotGranted)];

fn forged_grants(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let held = receive(scene, &mut control)?;
    let id = held.grant.grant.0;
    let place = held.first()?;
    for forged in [1, id - 1, id + 1, id ^ 1 << 32, id.swap_bytes(), u64::MAX, scene.random.next()]
    {
        let frame = write(scene, GrantId(forged), place);
        scene.strike("a forged grant", (&mut control, &mut lane), &frame, NOT_GRANTED)?;
    }
    // Another peer's grant, with its slots.
    let (mut thief, mut thiefs_lane) = scene.enter_with_lane()?;
    let frame = write(scene, held.grant.grant, place);
    let what = "another peer's grant";
    scene.strike(what, (&mut thief, &mut thiefs_lane), &frame, NOT_GRANTED)?;
    // Whose grant it is may use it.
    let frame = write(scene, held.grant.grant, place);
    scene.strike("the own grant", (&mut control, &mut lane), &frame, &[Answer::Accepted])?;
    scene.ask(Ask::Drop(held.grant.session))
}

fn beyond_the_grant(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let held = receive(scene, &mut control)?;
    let at = &mut (&mut control, &mut lane);
    let id = held.grant.grant;
    let behind = held.behind().ok_or(Gone::Own("a grant of nothing".into()))?;
    let (slot, end) = behind;
    // Behind it, over its end, far out, and around u64; and a slot that is not of the grant.
    let unknown = Slot(u32::MAX);
    for place in [behind, (slot, end - 1), (slot, 1 << 40), (slot, u64::MAX - 32), (unknown, 0)] {
        let frame = write(scene, id, place);
        scene.strike("beyond the grant", (at.0, at.1), &frame, NOT_GRANTED)?;
    }
    // Granted runs around one that is not: none lands.
    let first = held.first()?;
    let place = |(slot, offset)| Entry::new(slot, offset, 64);
    let table = vec![place(first), place(behind), place(first)];
    let frame = Frame::write(scene.transfer(), scene.later(), table, vec![0xee; 192]).under(id);
    scene.strike("one run beyond the grant", (at.0, at.1), &frame, NOT_GRANTED)?;
    // The slots open nothing without the grant, and nothing for READ.
    let no_right = &[refused(Refusal::NoRight)];
    let table = vec![place(first)];
    let frame = Frame::write(scene.transfer(), scene.later(), table.clone(), vec![0xee; 64]);
    scene.strike("a grant's slot without the grant", (at.0, at.1), &frame, no_right)?;
    let frame = Frame::read(scene.read(), scene.later(), table);
    scene.strike("READ of a grant's slot", (at.0, at.1), &frame, no_right)?;
    scene.ask(Ask::Drop(held.grant.session))
}

fn another_rooms_grant(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let one = receive(scene, &mut control)?;
    let two = receive(scene, &mut control)?;
    for (mine, others) in [(&one, &two), (&two, &one)] {
        let place = others.first()?;
        if mine.spans.iter().any(|(slot, offset, _)| (*slot, *offset) == place) {
            return Err(Gone::Lacks("a user who grants different blocks to different rooms"));
        }
        let frame = write(scene, mine.grant.grant, place);
        let what = "another room's blocks";
        scene.strike(what, (&mut control, &mut lane), &frame, NOT_GRANTED)?;
    }
    scene.ask(Ask::Drop(one.grant.session))?;
    scene.ask(Ask::Drop(two.grant.session))
}

fn after_the_drop(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let held = receive(scene, &mut control)?;
    let (id, place) = (held.grant.grant, held.first()?);
    let frame = write(scene, id, place);
    scene.strike("before the drop", (&mut control, &mut lane), &frame, &[Answer::Accepted])?;
    // One that has begun, and whose payload comes after the drop.
    let mut begun = Lane::open(scene.target, &mut control)?;
    let bytes = write(scene, id, place).bytes();
    begun.stream.send(&bytes[..bytes.len() - 32])?;
    begun.sent += 1;
    // So that the frame is not merely on its way: it was admitted, and waits for its payload.
    std::thread::sleep(Duration::from_millis(50));
    scene.ask(Ask::Drop(held.grant.session))?;
    begun.stream.send(&bytes[bytes.len() - 32..])?;
    let answer = begun.verdict(&mut control)?;
    let over = &[refused(Refusal::Fenced), refused(Refusal::NotGranted)];
    scene.judge("the rest of a WRITE after the drop", answer, over);
    for _ in 0..3 {
        let frame = write(scene, id, place);
        scene.strike("a WRITE after the drop", (&mut control, &mut lane), &frame, NOT_GRANTED)?;
    }
    // One that ended well.
    let held = receive(scene, &mut control)?;
    let id = held.grant.grant;
    end_well(scene, (&mut control, &mut lane), &held)?;
    let frame = write(scene, id, held.first()?);
    scene.strike("a WRITE after the end", (&mut control, &mut lane), &frame, NOT_GRANTED)?;
    scene.ask(Ask::Drop(held.grant.session))
}

/// Writes all that was granted, says so, and ends the session.
fn end_well(
    scene: &mut Scene<'_>,
    (control, lane): (&mut Control, &mut Lane),
    held: &Held,
) -> Result<()> {
    let grant = held.grant.grant;
    let (transfer, until) = (scene.transfer(), scene.later());
    let total = held.spans.len() as u32;
    for (&(slot, offset, len), run) in held.spans.iter().zip(0..) {
        let table = vec![Entry::new(slot, offset, len as u32)];
        let payload = vec![0x5e; len as usize];
        let mut frame = Frame::write(transfer, until, table, payload).under(grant);
        (frame.first_run, frame.total_runs) = (run, total);
        scene.strike("a granted block", (control, lane), &frame, &[Answer::Accepted])?;
    }
    let layers = held.grant.layout.global_layers();
    let (first, count) = (layers.start, layers.len() as u32);
    control.send(&Message::Layers { transfer, grant, first, count })?;
    control.send(&Message::SessionEnd { grant, writes: 1, payload: Default::default() })?;
    control.barrier()
}

fn session_lies(scene: &mut Scene<'_>) -> Result<()> {
    // Of sessions and grants that are not there.
    let nothing = SessionKey { room: Room(7), attempt: 1, sender_rank: 2, receiver_rank: 3 };
    let transfer = TransferId(1);
    let grant = GrantId(scene.random.next() | 1);
    let abort = |grant, by_receiver| Message::SessionAbort {
        session: nothing,
        grant,
        by_receiver,
        reason: "\u{1b}[2J none".to_owned(),
    };
    let unknown = [
        Message::Layers { transfer, grant, first: 0, count: 1 },
        Message::SessionEnd { grant, writes: u64::MAX, payload: vec![1; 9].into() },
        Message::GrantBlocks { grant, blocks: vec![1, 2, 3] },
        abort(Some(grant), true),
        abort(Some(grant), false),
        abort(None, true),
        abort(None, false),
    ];
    let speak = |control: &mut Control| unknown.iter().try_for_each(|it| control.send(it));
    scene.say_alone("sessions that are not there", speak, &[Answer::Ignored])?;

    // Of one that is.
    type Lie = fn(GrantId, std::ops::Range<u32>) -> Vec<Message>;
    let lies: [(&str, Lie); 4] = [
        ("layers before the first", |grant, layers| {
            let first = layers.start.wrapping_sub(1);
            vec![Message::Layers { transfer: TransferId(1), grant, first, count: 1 }]
        }),
        ("layers behind the last", |grant, layers| {
            let count = layers.len() as u32 + 1;
            vec![Message::Layers { transfer: TransferId(1), grant, first: layers.start, count }]
        }),
        ("two ends", |grant, _| {
            let end = Message::SessionEnd { grant, writes: 9, payload: Default::default() };
            vec![end.clone(), end]
        }),
        ("layers without end", |grant, layers| {
            let first = layers.start;
            let tell =
                |number| Message::Layers { transfer: TransferId(number), grant, first, count: 1 };
            (1..70_000).map(tell).collect()
        }),
    ];
    for (what, lie) in lies {
        let mut control = scene.enter()?;
        let held = receive(scene, &mut control)?;
        scene.pace.blow();
        let said = lie(held.grant.grant, held.grant.layout.global_layers());
        let spoken = said.iter().try_for_each(|message| control.send(message));
        let answer = match spoken {
            Ok(()) => control.verdict()?,
            Err(_) => Answer::ControlEnded,
        };
        scene.judge(what, answer, &[Answer::ControlEnded]);
        scene.ask(Ask::Drop(held.grant.session))?;
    }
    Ok(())
}
