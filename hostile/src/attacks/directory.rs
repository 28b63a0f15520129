//! The directory: more ranks, and more questions, than anybody has.

use std::net::{Ipv6Addr, SocketAddr};

use kvx_core::wire::message::{DirectoryEntry, Message, RankKey};

use crate::Attack;
use crate::connection::{Control, Gone, Result};
use crate::outcome::Answer;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "rank-flood",
        what: "ranks without end, with names and addresses as long as may be",
        must: "so many are kept for a peer, and none once it is gone",
        run: rank_flood,
    },
    Attack {
        name: "question-flood",
        what: "questions for ranks that never come, each to wait as long as may be",
        must: "so many wait for a peer, the others are answered at once",
        run: question_flood,
    },
    Attack {
        name: "question-churn",
        what: "questions that wait, Goodbye, and the same again in another life",
        must: "nothing of a life that is over waits on",
        run: question_churn,
    },
];

/// The victim may end a connection that brings more than a peer's share.
const BORNE: &[Answer] = &[Answer::Ignored, Answer::ControlEnded];

fn rank(number: u64) -> RankKey {
    let instance = format!("{:x<240}{number}", "hostile-");
    RankKey { instance, dp: 0, pp: 0, tp: number as u32 }
}

fn rank_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
    let entry = DirectoryEntry { engine: control.me.engine, addresses: vec![address; 16] };
    flood(scene, &mut control, |number| Message::DirectoryPut {
        rank: rank(number),
        entry: entry.clone(),
    })
}

fn question_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    flood(scene, &mut control, question)?;
    // And while all of them wait, ranks that they have not asked for.
    let entry = DirectoryEntry { engine: control.me.engine, addresses: Vec::new() };
    flood(scene, &mut control, |number| Message::DirectoryPut {
        rank: rank(number << 20),
        entry: entry.clone(),
    })
}

fn question_churn(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..4 {
        if scene.pace.is_over() {
            break;
        }
        let mut control = scene.enter()?;
        flood(scene, &mut control, question)?;
        let _ = control.send(&Message::Goodbye);
    }
    Ok(())
}

fn question(number: u64) -> Message {
    let rank = RankKey { instance: "nobody".into(), dp: number as u32, pp: 1, tp: 2 };
    Message::DirectoryGet { request: number, rank, wait_ms: u32::MAX }
}

/// Says messages without end, reading now and then.
fn flood(
    scene: &mut Scene<'_>,
    control: &mut Control,
    message: impl Fn(u64) -> Message,
) -> Result<()> {
    for number in 0..scene.pace.flood(1) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        match control.send(&message(number)) {
            Ok(()) => {}
            Err(Gone::Ended) => break,
            Err(other) => return Err(other),
        }
    }
    let answer = control.verdict()?;
    scene.judge("a flood of the directory", answer, BORNE);
    Ok(())
}
