//! Notifications: beyond the credit, blown up by what surrounds them, and in parts that do not fit.

use bytes::Bytes;
use kvx_core::id::TransferId;
use kvx_core::wire::message::{MAX_BODY, Message};

use crate::Attack;
use crate::connection::{Control, Gone, Result};
use crate::forge;
use crate::outcome::Answer;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "beyond-credit",
        what: "notifications that nobody can take, beyond the window",
        must: "the connection ends when the window is full",
        run: beyond_credit,
    },
    Attack {
        name: "padded-notifications",
        what: "notifications of a byte in messages of a megabyte",
        must: "what is kept for them is what they cost",
        run: padded_notifications,
    },
    Attack {
        name: "broken-parts",
        what: "parts that do not continue what was begun, or never end",
        must: "each ends the connection",
        run: broken_parts,
    },
    Attack {
        name: "lives-of-notifications",
        what: "a window full of notifications, Goodbye, and the same again in another life",
        must: "what is kept for lives that are over is bounded",
        run: lives_of_notifications,
    },
];

const ENDED: &[Answer] = &[Answer::ControlEnded];

/// A notification that waits for a WRITE which never comes.
fn waiting(transfer: u64, bytes: Vec<u8>) -> Message {
    let after = Some(TransferId(transfer));
    Message::Notify { after, more: false, bytes: bytes.into() }
}

fn beyond_credit(scene: &mut Scene<'_>) -> Result<()> {
    let large = |control: &mut Control| {
        (1..1000).try_for_each(|number| control.send(&waiting(number, vec![0xee; 500 << 10])))
    };
    scene.say_alone("half a megabyte each", large, ENDED)?;
    // 65 bytes of credit each: twice the window that an engine has by default.
    let small = |control: &mut Control| {
        (0..4096).try_for_each(|_| {
            let mut batch = Vec::new();
            for number in 0..256 {
                batch.extend(control.encode(&waiting(1 + number % 64, vec![0xee]))?);
            }
            control.stream.send(&batch)
        })
    };
    scene.say_alone("a byte each", small, ENDED)
}

fn padded_notifications(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let mut body = Vec::new();
    waiting(1, vec![0xee]).encode_body(&mut body)?;
    let room = MAX_BODY - body.len() - 8;
    body.extend(forge::extension(7, room));
    for _ in 0..scene.pace.flood(50) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        let bytes = control.forge(24, &body);
        control.stream.send(&bytes)?;
    }
    let answer = control.verdict()?;
    scene.judge("padded notifications", answer, &[Answer::Ignored]);
    control.leave();
    Ok(())
}

fn broken_parts(scene: &mut Scene<'_>) -> Result<()> {
    let part = |after: Option<u64>, more, len| Message::Notify {
        after: after.map(TransferId),
        more,
        bytes: Bytes::from(vec![0xee; len]),
    };
    for (what, parts) in [
        ("parts of two transfers", vec![part(Some(1), true, 9), part(Some(2), true, 9)]),
        ("parts with and without one", vec![part(Some(1), true, 9), part(None, false, 9)]),
        ("an empty last part", vec![part(None, true, 9), part(None, false, 0)]),
        ("parts without end", vec![part(None, true, 512 << 10); 40]),
    ] {
        let speak = |control: &mut Control| parts.iter().try_for_each(|it| control.send(it));
        scene.say_alone(what, speak, ENDED)?;
    }
    // An empty part that more follow costs nothing and could go on for ever.
    let empty = |control: &mut Control| {
        let bytes = control.forge(24, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        control.stream.send(&bytes)
    };
    scene.say_alone("an empty part that more follow", empty, ENDED)
}

fn lives_of_notifications(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..scene.pace.flood(1000) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        let mut control = scene.enter()?;
        let due = Message::Notify { after: None, more: false, bytes: vec![0xee; 500 << 10].into() };
        // Less than every engine's window, whoever takes them or not.
        for _ in 0..30 {
            control.send(&due)?;
        }
        match control.barrier() {
            // A smaller window than usual was exceeded.
            Ok(()) | Err(Gone::Ended) => {}
            Err(other) => return Err(other),
        }
        let _ = control.send(&Message::Goodbye);
        scene.outcome.count(Answer::Accepted);
    }
    Ok(())
}
