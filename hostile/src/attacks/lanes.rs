//! Lanes: opened without a proof, with an old one, for another peer, or too many of them.

use kvx_core::error::Refusal;
use kvx_core::id::{Association, EngineId, LaneId, Slot};
use kvx_core::wire::handshake::{HandshakeMessage, LaneProof};
use kvx_core::wire::message::Message;

use crate::Attack;
use crate::connection::{Claim, Control, Gone, Lane, Result, Stream};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::{Scene, refused};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "forged-lanes",
        what: "lanes under forged engines, associations, names and transports",
        must: "each is rejected as NoControl or Duplicate",
        run: forged_lanes,
    },
    Attack {
        name: "lane-proofs",
        what: "lanes without a proof, with a wrong one, and with a recorded one",
        must: "each is hung up on",
        run: lane_proofs,
    },
    Attack {
        name: "lane-flood",
        what: "as many lanes as can be had, and then their opening and closing without end",
        must: "at most 64 are open, and the closed ones that are not retired are bounded",
        run: lane_flood,
    },
    Attack {
        name: "lane-churn",
        what: "lanes that carry a large frame each, are closed and rightly retired, without end",
        must: "nothing of a lane that both sides have retired is kept",
        run: lane_churn,
    },
    Attack {
        name: "lane-lies",
        what: "lanes retired before they open, twice, or with frames that were never sent",
        must: "what was never opened is answered, what contradicts ends the connection",
        run: lane_lies,
    },
];

fn forged_lanes(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let good = Claim::next(&mut control)?;
    let (own, theirs) = good.associations;
    let random = scene.random.next() | 1;
    let mut claims = vec![
        Claim { engine: EngineId(scene.random.array()), ..good },
        Claim { associations: (own, Association(random)), ..good },
        Claim { associations: (Association(random), theirs), ..good },
        Claim { associations: (theirs, own), ..good },
        // Names of the other side's.
        Claim { lane: LaneId(good.lane.0 ^ 1), ..good },
        Claim { lane: LaneId(good.lane.0 ^ 1 ^ 1 << 31), ..good },
        Claim { transport: 0, ..good },
        Claim { transport: 99, ..good },
    ];
    claims.extend(scene.target.engine.map(|engine| Claim { engine, ..good }));
    claims.extend(scene.target.other.as_ref().map(|other| Claim { engine: other.engine, ..good }));
    let no_control = &[Answer::Rejected("NoControl"), Answer::HungUp];
    for claim in claims {
        let outcome = Lane::claim(scene.target, &control, &claim);
        scene.judge_handshake("a forged lane", outcome, no_control)?;
    }
    // The right one may open, once.
    let outcome = Lane::claim(scene.target, &control, &good);
    let open = scene.judge_handshake("the right lane", outcome, &[Answer::Accepted])?;
    control.barrier()?;
    settle(scene, &control, &good)?;
    drop(open);
    // Another peer's lanes, whose session key is not known.
    let stranger = scene.enter()?;
    let claim = Claim::next(&mut control)?;
    let outcome = Lane::claim(scene.target, &stranger, &claim);
    // The victim proves itself first, by a key that the stranger does not have.
    let wrong = &[Answer::Rejected("WrongKey")];
    scene.judge_handshake("another peer's lane", outcome, wrong)?;
    let answer = control.verdict()?;
    scene.judge("after forged lanes", answer, &[Answer::Ignored]);
    Ok(())
}

/// Claims the name of an open lane until the victim has taken the lane in: then it is a duplicate.
fn settle(scene: &mut Scene<'_>, control: &Control, claim: &Claim) -> Result<()> {
    let outcome = Lane::claim(scene.target, control, claim);
    // Where the first proof is still on its way both get this far, and the second hears nothing.
    let twice = &[Answer::Rejected("Duplicate"), Answer::Accepted];
    scene.judge_handshake("the same lane again", outcome, twice).map(drop)
}

fn lane_proofs(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let claim = Claim::next(&mut control)?;
    let (first, [hello, proof]) = Lane::claim(scene.target, &control, &claim)?;
    drop(first);
    control.barrier()?;
    let hung_up = &[Answer::HungUp];
    // The recorded one: its name was used.
    let mut stream = Stream::connect(scene.target.address)?;
    stream.send(&hello)?;
    let outcome = stream.handshake();
    let used = &[Answer::Rejected("Duplicate")];
    scene.judge_handshake("a recorded LaneHello", outcome, used)?;
    // Fresh names with old, forged and missing proofs.
    let forged = HandshakeMessage::LaneProof(LaneProof { mac: scene.random.array() }).encode()?;
    for (what, words) in [
        ("a recorded proof", &proof[..]),
        ("a forged proof", &forged[..]),
        ("a Hello for a proof", &control.recording.hello.clone()[..]),
        ("frames for a proof", &crate::forge::Frame::ack(0, 0).bytes()[..]),
    ] {
        let claim = Claim::next(&mut control)?;
        let mut stream = challenged(scene, &claim)?;
        stream.send(words)?;
        let outcome = stream.handshake();
        scene.judge_handshake(what, outcome, hung_up)?;
    }
    let claim = Claim::next(&mut control)?;
    let mut stream = challenged(scene, &claim)?;
    stream.finish()?;
    let outcome = stream.handshake();
    scene.judge_handshake("no proof at all", outcome, hung_up)?;
    let answer = control.verdict()?;
    scene.judge("after lanes without a proof", answer, &[Answer::Ignored]);
    Ok(())
}

/// A lane's connection up to the victim's challenge.
fn challenged(scene: &mut Scene<'_>, claim: &Claim) -> Result<Stream> {
    use kvx_core::wire::handshake::LaneHello;
    let mut stream = Stream::connect(scene.target.address)?;
    let (association, peer_association) = claim.associations;
    let hello = LaneHello {
        engine: claim.engine,
        association,
        peer_association,
        lane: claim.lane,
        transport: claim.transport,
        nonce: scene.random.array(),
    };
    stream.send(&HandshakeMessage::LaneHello(hello).encode()?)?;
    stream.handshake()?;
    Ok(stream)
}

fn lane_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let mut open = Vec::new();
    let busy = loop {
        scene.pace.blow();
        match Lane::open(scene.target, &mut control) {
            Ok(lane) => open.push(lane),
            Err(Gone::Rejected(error)) => break error,
            Err(Gone::Ended) => return Err(Gone::Ended),
            Err(other) => return Err(other),
        }
        if open.len() > 1000 {
            scene.outcome.surprise(format!("{} lanes are open at once", open.len()));
            return Ok(());
        }
    };
    let outcome: Result<()> = Err(Gone::Rejected(busy));
    scene.judge_handshake("one lane too many", outcome, &[Answer::Rejected("Busy")])?;
    drop(open);
    control.barrier()?;
    // The lanes are closed, and their ends are never confirmed.
    let churn = scene.pace.flood(10);
    let mut refused = 0u32;
    for _ in 0..churn {
        if scene.pace.is_over() {
            break;
        }
        let outcome = Lane::open(scene.target, &mut control);
        refused += u32::from(matches!(outcome, Err(Gone::Rejected(_))));
        let may = &[Answer::Accepted, Answer::Rejected("Busy")];
        scene.judge_handshake("lanes that come and go", outcome, may)?;
    }
    if churn >= 2000 && refused == 0 && !scene.pace.is_over() {
        scene.outcome.surprise(format!("{churn} lanes that were not retired, and no end"));
    }
    let answer = control.verdict()?;
    scene.judge("after a flood of lanes", answer, &[Answer::Ignored]);
    Ok(())
}

fn lane_churn(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    for _ in 0..scene.pace.flood(10) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        let mut lane = Lane::open(scene.target, &mut control)?;
        // A slot that was never given out: the table is read all the same.
        let entries = vec![Entry::new(Slot(u32::MAX), 0, 1); 1024];
        lane.send(&Frame::read(scene.read(), scene.later(), entries))?;
        let answer = lane.verdict(&mut control)?;
        scene.judge("a request for what is not there", answer, &[refused(Refusal::UnknownSlot)]);
        let id = lane.id;
        drop(lane);
        control.send(&Message::LaneRetired { lane: id, processed: 0 })?;
    }
    let answer = control.verdict()?;
    scene.judge("after lanes that came and went", answer, &[Answer::Ignored]);
    control.leave();
    Ok(())
}

fn lane_lies(scene: &mut Scene<'_>) -> Result<()> {
    // A lane retired before it opens: it must not open any more.
    let mut control = scene.enter()?;
    let claim = Claim::next(&mut control)?;
    control.send(&Message::LaneRetired { lane: claim.lane, processed: 0 })?;
    control.find("LaneRetired", |message| {
        matches!(message, Message::LaneRetired { lane, .. } if *lane == claim.lane).then_some(())
    })?;
    let outcome = Lane::claim(scene.target, &control, &claim);
    let barred = &[Answer::Rejected("Duplicate")];
    scene.judge_handshake("a lane that was retired before", outcome, barred)?;
    let ended = &[Answer::ControlEnded];
    let retire = |processed: u64, times: u32| {
        move |control: &mut Control, lane: LaneId| {
            let message = Message::LaneRetired { lane, processed };
            (0..times).try_for_each(|_| control.send(&message))
        }
    };
    for processed in [1, u64::MAX] {
        let (mut control, lane) = scene.enter_with_lane()?;
        scene.pace.blow();
        let said = retire(processed, 1)(&mut control, lane.id);
        let answer = said.map_or(Ok(Answer::ControlEnded), |()| control.verdict())?;
        scene.judge("a lane that dealt with what was never sent", answer, ended);
    }
    // Many lanes that never were: only so many can be remembered, each a gap from the next.
    let barred = |control: &mut Control| {
        (0..10_000u32).try_for_each(|index| {
            let lane = LaneId(control.lane_named(1000 + 7 * index).0);
            control.send(&Message::LaneRetired { lane, processed: 0 })
        })
    };
    scene.say_alone("lanes that never were", barred, ended)
}
