//! Published regions: questions for them that come too often. Lists that lie, a listener tells
//! ([`super::listening`]).

use kvx_core::wire::message::Message;

use crate::Attack;
use crate::connection::{Control, Gone, Result};
use crate::outcome::Answer;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "list-flood",
        what: "questions for published regions, each as soon as the last is answered",
        must: "each is answered, and one answer at most is kept",
        run: list_flood,
    },
    Attack {
        name: "impatient-lists",
        what: "questions for published regions while the last answer is not acknowledged",
        must: "the second one ends the connection",
        run: impatient_lists,
    },
];

fn list_flood(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    for _ in 0..scene.pace.flood(10) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        control.send(&Message::ListRegions)?;
        listed(&mut control)?;
    }
    let answer = control.verdict()?;
    scene.judge("questions one after the other", answer, &[Answer::Ignored]);
    Ok(())
}

/// Waits for the end of an answer.
fn listed(control: &mut Control) -> Result<()> {
    control.find("RegionsListed", |message| {
        matches!(message, Message::RegionsListed { more: false, .. }).then_some(())
    })
}

fn impatient_lists(scene: &mut Scene<'_>) -> Result<()> {
    let ended = &[Answer::ControlEnded];
    let at_once = |control: &mut Control| {
        let question = control.encode(&Message::ListRegions)?;
        let again = control.encode(&Message::ListRegions)?;
        control.stream.send(&[question, again].concat())
    };
    scene.say_alone("two questions at once", at_once, ended)?;
    let unheard = |control: &mut Control| {
        control.acknowledges = false;
        control.send(&Message::ListRegions)?;
        listed(control)?;
        control.send(&Message::ListRegions)
    };
    scene.say_alone("a question before an acknowledgement", unheard, ended)?;
    let flood = |control: &mut Control| {
        control.acknowledges = false;
        for _ in 0..1000 {
            match control.send(&Message::ListRegions) {
                Ok(()) => {}
                Err(Gone::Ended | Gone::Full) => break,
                Err(other) => return Err(other),
            }
        }
        Ok(())
    };
    scene.say_alone("a thousand questions", flood, ended)
}
