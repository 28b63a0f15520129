//! Transfers whose frames contradict each other, come late, come again, or come after their end.

use std::time::Duration;

use kvx_core::error::Refusal;
use kvx_core::id::{GrantId, Slot, TransferId};
use kvx_core::region::Rights;
use kvx_core::time::Time;
use kvx_core::wire::message::Message;

use crate::Attack;
use crate::clock;
use crate::connection::{Control, Gone, Lane, Result};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::{Scene, refused};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "contradictions",
        what: "frames of one transfer that differ in its runs or its grant, and runs sent twice",
        must: "contradictions are refused, runs that landed before are passed over",
        run: contradictions,
    },
    Attack {
        name: "after-the-end",
        what: "frames of transfers that are complete, cancelled or refused",
        must: "each is refused as Fenced",
        run: after_the_end,
    },
    Attack {
        name: "expired",
        what: "frames that have expired, or do so half way",
        must: "each is refused as Expired",
        run: expired,
    },
    Attack {
        name: "many-gaps",
        what: "a transfer's runs one by one from its end, each beside a gap",
        must: "they are taken in, up to a bound, without holding others up",
        run: many_gaps,
    },
    Attack {
        name: "many-transfers",
        what: "the first run of very many transfers, which never end",
        must: "they are taken in, up to the budget of a peer",
        run: many_transfers,
    },
];

/// A place in the yard, with the right to write there.
fn yard(scene: &mut Scene<'_>) -> Result<(Control, Lane, Slot)> {
    let region = scene.region(Rights::REMOTE_WRITE)?;
    let (mut control, lane) = scene.enter_with_lane()?;
    let slot = control.open(region)?;
    Ok((control, lane, slot))
}

/// One run of 64 bytes of a transfer of `total`.
fn run_of(transfer: TransferId, until: Time, slot: Slot, run: u32, total: u32) -> Frame {
    let entry = Entry::new(slot, u64::from(run % 64) * 64, 64);
    let mut frame = Frame::write(transfer, until, vec![entry], vec![0xd0; 64]);
    (frame.first_run, frame.total_runs) = (run, total);
    frame
}

fn contradictions(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane, slot) = yard(scene)?;
    let at = &mut (&mut control, &mut lane);
    let until = scene.later();
    let (landed, passed) = (&[Answer::Accepted], &[Answer::Accepted]);
    let inconsistent = &[refused(Refusal::Inconsistent)];
    let fenced = &[refused(Refusal::Fenced)];

    // Another number of runs, another grant.
    let transfer = scene.transfer();
    let first = run_of(transfer, until, slot, 0, 4);
    scene.strike("the first run", (at.0, at.1), &first, landed)?;
    let other = run_of(transfer, until, slot, 1, 5);
    scene.strike("a run of another total", (at.0, at.1), &other, inconsistent)?;
    scene.strike("a run after a contradiction", (at.0, at.1), &first, fenced)?;
    let transfer = scene.transfer();
    let first = run_of(transfer, until, slot, 0, 4);
    scene.strike("the first run", (at.0, at.1), &first, landed)?;
    let other = run_of(transfer, until, slot, 1, 4).under(GrantId(1));
    scene.strike("a run under a grant", (at.0, at.1), &other, &[refused(Refusal::NotGranted)])?;

    // The same run with other bytes and in another place.
    let transfer = scene.transfer();
    let mut run = run_of(transfer, until, slot, 2, 4);
    scene.strike("a run", (at.0, at.1), &run, landed)?;
    run.payload = vec![0xd1; 64];
    if let Some(entry) = run.table.first_mut() {
        entry.offset = 1024;
    }
    scene.strike("the same run elsewhere", (at.0, at.1), &run, passed)?;
    Ok(())
}

fn after_the_end(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane, slot) = yard(scene)?;
    let at = &mut (&mut control, &mut lane);
    let until = scene.later();
    let (landed, fenced) = (&[Answer::Accepted], &[refused(Refusal::Fenced)]);

    let complete = run_of(scene.transfer(), until, slot, 0, 1);
    scene.strike("a transfer of one run", (at.0, at.1), &complete, landed)?;
    scene.strike("a replay of it", (at.0, at.1), &complete, fenced)?;
    let longer = run_of(TransferId(complete.transfer), until, slot, 1, 2);
    scene.strike("more of it", (at.0, at.1), &longer, fenced)?;

    let cancelled = scene.transfer();
    let first = run_of(cancelled, until, slot, 0, 3);
    scene.strike("the first run", (at.0, at.1), &first, landed)?;
    at.0.send(&Message::Cancel { transfer: cancelled })?;
    at.0.find("Fenced", |message| {
        matches!(message, Message::Fenced { transfer } if *transfer == cancelled).then_some(())
    })?;
    for run in 0..3 {
        let late = run_of(cancelled, until, slot, run, 3);
        scene.strike("a run after Cancel", (at.0, at.1), &late, fenced)?;
    }

    // Cancelled before it began, while a frame of it is on the way, and twice.
    let never = scene.transfer();
    let frame = run_of(never, until, slot, 0, 1);
    let bytes = frame.bytes();
    at.1.stream.send(&bytes[..80])?;
    at.1.sent += 1;
    at.0.send(&Message::Cancel { transfer: never })?;
    at.0.send(&Message::Cancel { transfer: never })?;
    at.0.barrier()?;
    at.1.stream.send(&bytes[80..])?;
    let answer = at.1.verdict(at.0)?;
    // The table may have come before Cancel or after it: nothing of the payload has.
    scene.judge("a frame that Cancel overtook", answer, fenced);
    Ok(())
}

fn expired(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane, slot) = yard(scene)?;
    let late = &[refused(Refusal::Expired)];
    let transfer = scene.transfer();
    let now = clock::now();
    let past = Time::from_nanos(now.as_nanos() - 1);
    for until in [Time::ZERO, Time::from_nanos(1), past] {
        let frame = run_of(transfer, until, slot, 0, 2);
        scene.strike("a WRITE that came late", (&mut control, &mut lane), &frame, late)?;
    }
    // It expires between its header and its payload.
    let frame = run_of(transfer, clock::now() + Duration::from_millis(300), slot, 0, 2);
    let bytes = frame.bytes();
    lane.stream.send(&bytes[..100])?;
    lane.sent += 1;
    std::thread::sleep(Duration::from_millis(400));
    lane.stream.send(&bytes[100..])?;
    let answer = lane.verdict(&mut control)?;
    scene.judge("a WRITE that expires half way", answer, late);
    // One that never expires is within its rights, and so is the same run in time.
    let frame = run_of(transfer, Time::NEVER, slot, 0, 2);
    scene.strike("the same in time", (&mut control, &mut lane), &frame, &[Answer::Accepted])?;
    Ok(())
}

fn many_gaps(scene: &mut Scene<'_>) -> Result<()> {
    let total = 1 << 24;
    let transfer = scene.transfer();
    pile_up(scene, "runs with gaps", |_, slot, until, index| {
        let run = total - 1 - 2 * (index % (total / 2));
        run_of(transfer, until, slot, run, total)
    })
}

fn many_transfers(scene: &mut Scene<'_>) -> Result<()> {
    pile_up(scene, "transfers that never end", |scene, slot, until, _| {
        run_of(scene.transfer(), until, slot, 0, 2)
    })
}

/// Sends frames that the victim must remember, until it refuses them, or has enough.
fn pile_up(
    scene: &mut Scene<'_>,
    what: &str,
    frame: impl Fn(&mut Scene<'_>, Slot, Time, u32) -> Frame,
) -> Result<()> {
    let (mut control, mut lane, slot) = yard(scene)?;
    let until = scene.later();
    let mut frames = || {
        for index in 0..scene.pace.flood(1) as u32 {
            if scene.pace.is_over() {
                break;
            }
            scene.pace.blow();
            lane.send(&frame(scene, slot, until, index))?;
            if index % 1024 == 0 {
                lane.drain()?;
            }
        }
        Ok(())
    };
    let answer = match frames() {
        Ok(()) => lane.verdict(&mut control)?,
        // It has refused more than it remembers, or this is what lies between.
        Err(Gone::Ended | Gone::Full) => control.verdict()?,
        Err(other) => return Err(other),
    };
    let borne = &[Answer::Accepted, refused(Refusal::Busy), Answer::ControlEnded];
    scene.judge(what, answer, borne);
    control.leave();
    Ok(())
}
