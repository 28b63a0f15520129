//! Control messages: out of sequence, of the wrong role, of absurd lengths, after goodbye.

use kvx_core::error::Refusal;
use kvx_core::id::{Association, LaneId, RegionId, Slot, TransferId};
use kvx_core::time::Time;
use kvx_core::wire::message::{MAX_BODY, Message, RegionOpened};

use crate::Attack;
use crate::connection::{Control, Me, Result};
use crate::forge;
use crate::outcome::Answer;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "out-of-sequence",
        what: "messages replayed, skipped, unnumbered, acknowledged before they were said",
        must: "replays are ignored; everything else ends the connection",
        run: out_of_sequence,
    },
    Attack {
        name: "absurd-messages",
        what: "bodies of 4 GiB, counts beyond the body, types and extensions that are not known",
        must: "each ends the connection",
        run: absurd_messages,
    },
    Attack {
        name: "other-roles",
        what: "answers that nobody asked for, and messages of the other role",
        must: "what contradicts the state ends the connection, the rest is ignored",
        run: other_roles,
    },
    Attack {
        name: "goodbye-and-on",
        what: "Goodbye, and then more",
        must: "the peer is over, and what follows does nothing",
        run: goodbye_and_on,
    },
];

const ENDED: &[Answer] = &[Answer::ControlEnded];
const IGNORED: &[Answer] = &[Answer::Ignored];

fn out_of_sequence(scene: &mut Scene<'_>) -> Result<()> {
    let nothing = Message::SlotsClosed(Vec::new());
    let kind = nothing.kind();
    let body = &[0; 4];
    let said = |sequence, acknowledged| forge::message(kind, sequence, acknowledged, 4, body);
    let replay = |control: &mut Control| {
        let bytes = control.encode(&nothing)?;
        (0..100).try_for_each(|_| control.stream.send(&bytes))
    };
    scene.say_alone("a message said a hundred times", replay, IGNORED)?;
    let in_turn = |control: &mut Control| {
        for number in [1, 2, 1, 2, 3, 3, 1] {
            control.stream.send(&said(number, 0))?;
        }
        control.said = 3;
        Ok(())
    };
    scene.say_alone("old messages between new ones", in_turn, IGNORED)?;
    for (what, sequence, acknowledged) in [
        ("a gap", 2, 0),
        ("a message from far ahead", u64::MAX, 0),
        ("a message without a number", 0, 0),
        ("an acknowledgement of what was never said", 1, u64::MAX),
        ("an acknowledgement of the next message", 1, 1),
    ] {
        let speak = |control: &mut Control| control.stream.send(&said(sequence, acknowledged));
        scene.say_alone(what, speak, ENDED)?;
    }
    let numbered = |control: &mut Control| control.stream.send(&forge::message(4, 7, 0, 0, &[]));
    scene.say_alone("a number where none belongs", numbered, ENDED)?;
    let twice = |control: &mut Control| {
        let own = control.own;
        control.send(&Message::Resume { own, peer: None })
    };
    scene.say_alone("a second Resume", twice, ENDED)?;
    let other = Association(scene.random.next() | 1);
    let twice = |control: &mut Control| control.send(&Message::Resume { own: other, peer: None });
    scene.say_alone("a second Resume of another association", twice, ENDED)?;
    let none = |control: &mut Control| control.stream.send(&forge::message(1, 0, 0, 16, &[0; 16]));
    scene.say_alone("a Resume of no association", none, ENDED)?;

    // Sequenced before Resume, and a Resume that acknowledges what was never said.
    for (what, words) in [
        ("a message before Resume", said(1, 0)),
        ("an acknowledgement before Resume", forge::message(4, 0, 5, 0, &[])),
    ] {
        let mut control = Control::dial(scene.target, Me::new()?)?;
        scene.pace.blow();
        control.stream.send(&words)?;
        let answer = match control.resume(None) {
            Ok(()) => control.verdict()?,
            Err(_) => Answer::ControlEnded,
        };
        scene.judge(what, answer, ENDED);
    }
    Ok(())
}

fn absurd_messages(scene: &mut Scene<'_>) -> Result<()> {
    for declared in [u32::MAX, 1 << 31, 1 << 20, MAX_BODY as u32 + 1] {
        let speak = |control: &mut Control| {
            control.stream.send(&forge::message(16, 1, 0, declared, &[0; 4096]))
        };
        scene.say_alone("a body that is too long", speak, ENDED)?;
    }
    for kind in [0, 6, 15, 99, 255, 256, u16::MAX] {
        let sequence = u64::from(kind >= 16);
        let speak =
            |control: &mut Control| control.stream.send(&forge::message(kind, sequence, 0, 0, &[]));
        scene.say_alone("a type that nobody knows", speak, ENDED)?;
    }
    // Counts that go beyond what is there, or beyond what may be.
    for kind in [16, 17, 18, 24, 26, 27, 29, 30, 31, 36] {
        for count in [u32::MAX, 1 << 24, 40_000] {
            let body = [count.to_le_bytes().repeat(10), vec![0; 40]].concat();
            let speak = |control: &mut Control| {
                let bytes = control.forge(kind, &body);
                control.stream.send(&bytes)
            };
            scene.say_alone("a count beyond the body", speak, ENDED)?;
        }
    }
    let column = |count: u32| [count.to_le_bytes().to_vec(), vec![7; count as usize * 4]].concat();
    for (kind, body) in [
        (18, column(131_073)),
        (16, [32_769u32.to_le_bytes().to_vec(), vec![1; 32_769 * 24]].concat()),
    ] {
        let speak = |control: &mut Control| {
            let bytes = control.forge(kind, &body);
            control.stream.send(&bytes)
        };
        scene.say_alone("a list that is too long", speak, ENDED)?;
    }
    // Extensions: unknown ones are passed over, required ones and disorder are not.
    let closed = column(0);
    let with = |extensions: &[Vec<u8>]| [closed.clone(), extensions.concat()].concat();
    let optional = forge::extension(5, 100);
    for (what, body, allowed) in [
        ("an extension that nobody knows", with(std::slice::from_ref(&optional)), IGNORED),
        ("a required one", with(&[forge::extension(0x8005, 8)]), ENDED),
        ("the same twice", with(&[optional.clone(), optional.clone()]), ENDED),
        ("one of number 0", with(&[forge::extension(0, 8)]), ENDED),
        ("half of one", with(&[optional[..50].to_vec()]), ENDED),
    ] {
        let speak = |control: &mut Control| {
            let bytes = control.forge(18, &body);
            control.stream.send(&bytes)
        };
        scene.say_alone(what, speak, allowed)?;
    }
    Ok(())
}

fn other_roles(scene: &mut Scene<'_>) -> Result<()> {
    let lane = LaneId(scene.random.next() as u32);
    let transfer = TransferId(scene.random.next() | 1);
    let refusal = Refusal::Expired;
    let region = RegionId::from_bits(scene.random.next());
    let opened = vec![RegionOpened { region, slot: Ok(Slot(1)) }];
    let unasked = Message::RegionsListed { more: false, regions: Vec::new() };
    for (what, message, allowed) in [
        ("RegionsOpened that nobody asked for", Message::RegionsOpened(opened), ENDED),
        ("a list that nobody asked for", unasked, ENDED),
        ("no RegionsOpened at all", Message::RegionsOpened(Vec::new()), IGNORED),
        ("Refused of no lane", Message::Refused { lane, frame: 0, transfer, refusal }, ENDED),
        ("credit that was never used", Message::NotificationCredit { consumed: 1 }, ENDED),
        ("Fenced of nothing", Message::Fenced { transfer }, IGNORED),
        ("ReadFailed of nothing", Message::ReadFailed { transfer, refusal }, IGNORED),
        ("SlotsClosed of nothing", Message::SlotsClosed(vec![Slot(1), Slot(u32::MAX)]), IGNORED),
        (
            "an answer of no directory",
            Message::DirectoryAnswer { request: 3, entry: None },
            IGNORED,
        ),
        (
            "the answer to no heartbeat",
            Message::HeartbeatReply { echo: Time::ZERO, time: Time::NEVER },
            IGNORED,
        ),
        ("the end of no lane", Message::LaneRetired { lane, processed: u64::MAX }, IGNORED),
        ("Cancel of nothing", Message::Cancel { transfer }, IGNORED),
    ] {
        scene.say_alone(what, |control| control.send(&message), allowed)?;
    }
    Ok(())
}

fn goodbye_and_on(scene: &mut Scene<'_>) -> Result<()> {
    let speak = |control: &mut Control| {
        control.send(&Message::Goodbye)?;
        for number in 0..100 {
            control.send(&Message::Cancel { transfer: TransferId(1 + 2 * number) })?;
            control.send(&Message::Heartbeat { time: Time::ZERO })?;
        }
        Ok(())
    };
    scene.say_alone("more after Goodbye", speak, ENDED)?;
    // Its lanes end too.
    let (mut control, mut lane) = scene.enter_with_lane()?;
    control.send(&Message::Goodbye)?;
    scene.pace.blow();
    let answer = lane.end(&mut control)?;
    scene.judge("a lane after Goodbye", answer, ENDED);
    Ok(())
}
