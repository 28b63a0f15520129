//! Slowness: silence, a byte at a time, and connections that nobody reads.

use std::time::{Duration, Instant};

use kvx_core::region::Rights;
use kvx_core::time::Time;
use kvx_core::wire::message::Message;

use crate::Attack;
use crate::connection::{Claim, Control, Gone, Lane, Me, Result, Stream};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "silent-connections",
        what: "hundreds of connections that say nothing, half a handshake, or all but its end",
        must: "others get in all the while, and the silent are hung up on",
        run: silent_connections,
    },
    Attack {
        name: "byte-by-byte-handshake",
        what: "a handshake a byte at a time",
        must: "it is hung up on when its time is over",
        run: byte_by_byte_handshake,
    },
    Attack {
        name: "byte-by-byte",
        what: "control messages and frames a byte at a time",
        must: "they are taken in like any others",
        run: byte_by_byte,
    },
    Attack {
        name: "half-messages",
        what: "control messages that stop half way, and silence",
        must: "others do not wait for the rest",
        run: half_messages,
    },
    Attack {
        name: "never-answers",
        what: "a peer that answers no heartbeat, and acknowledges nothing",
        must: "it is suspect, and nobody waits for it",
        run: never_answers,
    },
    Attack {
        name: "never-reads",
        what: "READs of all that may be read, on many lanes of which nothing is read",
        must: "what is kept for the answers is bounded",
        run: never_reads,
    },
];

/// Longer than the victim gives a handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

fn silent_connections(scene: &mut Scene<'_>) -> Result<()> {
    let mut peer = scene.enter()?;
    let recording = peer.recording.clone();
    let mut held = Vec::new();
    for index in 0..300 {
        scene.pace.blow();
        let mut stream = Stream::connect(scene.target.address)?;
        // As the listener fills up, it ends the oldest: what is said then may meet a closed one.
        let _ = match index % 5 {
            0 => Ok(()),
            1 => stream.send(&recording.hello[..1]),
            2 => stream.send(&recording.hello[..recording.hello.len() - 1]),
            3 => stream.send(&recording.hello),
            _ => {
                let claim = Claim::next(&mut peer)?;
                let outcome = Lane::claim(scene.target, &peer, &claim);
                scene.judge_handshake("a lane among the silent", outcome, &[Answer::Accepted])?;
                Ok(())
            }
        };
        held.push(stream);
        if index % 50 == 49 {
            let outcome = scene.enter();
            let may = &[Answer::Accepted];
            scene.judge_handshake("a peer among the silent", outcome, may)?;
        }
    }
    for mut stream in held {
        let answer = if stream.ends(HANDSHAKE) { Answer::HungUp } else { Answer::Ignored };
        scene.judge("silence in a handshake", answer, &[Answer::HungUp]);
    }
    let answer = peer.verdict()?;
    scene.judge("a peer beside the silent", answer, &[Answer::Ignored]);
    Ok(())
}

fn byte_by_byte_handshake(scene: &mut Scene<'_>) -> Result<()> {
    let hello = scene.enter()?.recording.hello;
    let mut stream = Stream::connect(scene.target.address)?;
    let begun = Instant::now();
    for byte in hello.chunks(1).cycle() {
        if stream.send(byte).is_err() || begun.elapsed() > HANDSHAKE || scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        std::thread::sleep(Duration::from_millis(200));
    }
    if scene.pace.is_over() {
        return Ok(());
    }
    let ended = stream.ends(Duration::from_secs(1));
    let answer = if ended { Answer::HungUp } else { Answer::Ignored };
    scene.judge("a handshake a byte at a time", answer, &[Answer::HungUp]);
    Ok(())
}

fn byte_by_byte(scene: &mut Scene<'_>) -> Result<()> {
    let region = scene.region(Rights::REMOTE_WRITE)?;
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let slot = control.open(region)?;
    let table = vec![Entry::new(slot, 0, 64)];
    let frame = Frame::write(scene.transfer(), scene.later(), table, vec![0xd5; 64]).bytes();
    let message = control.encode(&Message::SlotsClosed(vec![slot; 4]))?;
    let longest = frame.len().max(message.len());
    for index in 0..longest {
        scene.pace.blow();
        for (stream, bytes) in [(&mut lane.stream, &frame), (&mut control.stream, &message)] {
            if let Some(byte) = bytes.get(index..=index) {
                stream.send(byte)?;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    lane.sent += 1;
    let answer = lane.verdict(&mut control)?;
    scene.judge("a frame a byte at a time", answer, &[Answer::Accepted]);
    let answer = control.verdict()?;
    scene.judge("a message a byte at a time", answer, &[Answer::Ignored]);
    Ok(())
}

fn half_messages(scene: &mut Scene<'_>) -> Result<()> {
    let mut held = Vec::new();
    for cut in [1, 23, 24, 25, 1000] {
        let mut control = scene.enter()?;
        scene.pace.blow();
        let whole = crate::forge::message(18, 1, 0, 1 << 19, &[0; 1000]);
        control.stream.send(&whole[..cut.min(whole.len())])?;
        held.push(control);
    }
    let mut other = scene.enter()?;
    let answer = other.verdict()?;
    scene.judge("a peer beside half messages", answer, &[Answer::Ignored]);
    Ok(())
}

fn never_answers(scene: &mut Scene<'_>) -> Result<()> {
    // One that says Resume and nothing more, and one that does not even say that.
    let mut mute = scene.enter()?;
    let mut stranger = Control::dial(scene.target, Me::new()?)?;
    scene.pace.blow();
    let begun = Instant::now();
    let mut heartbeats = 0;
    while begun.elapsed() < Duration::from_secs(7) && !scene.pace.is_over() {
        while let Some(message) = mute.poll(Duration::from_millis(100))? {
            heartbeats += u32::from(matches!(message, Message::Heartbeat { .. }));
        }
        stranger.poll(Duration::ZERO)?;
    }
    if heartbeats == 0 && !scene.pace.is_over() {
        scene.outcome.surprise("seven silent seconds, and no heartbeat".to_owned());
    }
    let answer = mute.verdict()?;
    scene.judge("a word after long silence", answer, &[Answer::Ignored]);
    Ok(())
}

fn never_reads(scene: &mut Scene<'_>) -> Result<()> {
    let region = scene.region(Rights::REMOTE_READ)?;
    let mut control = scene.enter()?;
    let slot = control.open(region)?;
    let mut lanes = Vec::new();
    for _ in 0..16 {
        lanes.push(Lane::open(scene.target, &mut control)?);
    }
    // Answers of a byte a span: little on the wire, much to remember.
    let mut frame = Frame::read(scene.read(), Time::NEVER, vec![Entry::new(slot, 0, 1); 1024]);
    frame.total_runs = 1 << 24;
    let mut number = 0;
    'flood: for _ in 0..scene.pace.flood(1) / 16 {
        for lane in &mut lanes {
            if scene.pace.is_over() {
                break 'flood;
            }
            scene.pace.blow();
            frame.transfer = scene.read().0;
            frame.first_run = 1024 * (number % 1024);
            number += 1;
            match lane.send(&frame) {
                Ok(()) => {}
                Err(Gone::Ended | Gone::Full) => break 'flood,
                Err(other) => return Err(other),
            }
        }
    }
    // The control connection is read: refusals end nothing.
    let answer = control.verdict()?;
    scene.judge("READs that nobody reads", answer, &[Answer::Ignored, Answer::ControlEnded]);
    control.leave();
    Ok(())
}
