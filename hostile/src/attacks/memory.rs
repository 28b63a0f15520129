//! Memory that was not given away: forged slots, places, region keys and rights.

use kvx_core::error::Refusal;
use kvx_core::id::{RegionId, Slot};
use kvx_core::region::{RegionKey, Rights};
use kvx_core::wire::message::{Message, OpenRegion};

use super::YARD;
use crate::Attack;
use crate::connection::{Control, Lane, Result};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::{Scene, refused};
use crate::target::Ask;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "forged-slots",
        what: "WRITEs and READs of slots that were never opened, and of another peer's",
        must: "each is refused as UnknownSlot",
        run: forged_slots,
    },
    Attack {
        name: "forged-places",
        what: "offsets and lengths outside the region, up to the end of u64",
        must: "each is refused as OutOfBounds, with the good runs beside it",
        run: forged_places,
    },
    Attack {
        name: "wrong-rights",
        what: "WRITEs to a region that is read-only, READs of one that is write-only",
        must: "each is refused as NoRight",
        run: wrong_rights,
    },
    Attack {
        name: "guessed-keys",
        what: "region keys that are guessed, of another region, or for regions that are not there",
        must: "each is refused as WrongKey, alike whether the region exists",
        run: guessed_keys,
    },
    Attack {
        name: "deregistered",
        what: "frames into a region after its deregistration has returned",
        must: "each is refused as RegionClosed, and its key opens nothing",
        run: deregistered,
    },
];

fn forged_slots(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane) = scene.enter_with_lane()?;
    // A slot that is another peer's has no meaning here.
    let (mut other, mut others_lane) = scene.enter_with_lane()?;
    let mut slots = vec![0, 1, 2, 1000, u32::MAX, scene.random.next() as u32 | 1 << 20];
    if let Some(region) = scene.target.shown_allowing(Rights::empty()) {
        let slot = other.open(region)?;
        slots.push(slot.0);
        // What a peer opened, it may use; the other still may not.
        if region.rights.contains(Rights::REMOTE_WRITE) {
            let frame = write(scene, slot, 0, 64);
            let may = &[Answer::Accepted];
            scene.strike("a WRITE that is allowed", (&mut other, &mut others_lane), &frame, may)?;
        }
    }
    for slot in slots.into_iter().map(Slot) {
        let unknown = &[refused(Refusal::UnknownSlot)];
        let frame = write(scene, slot, 0, 64);
        scene.strike("WRITE to a forged slot", (&mut control, &mut lane), &frame, unknown)?;
        let frame = read(scene, slot, 0, 64);
        scene.strike("READ of a forged slot", (&mut control, &mut lane), &frame, unknown)?;
    }
    Ok(())
}

fn forged_places(scene: &mut Scene<'_>) -> Result<()> {
    let region = scene.region(Rights::REMOTE_WRITE)?;
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let slot = control.open(region)?;
    let len = region.len;
    let places: [(u64, u32); 10] = [
        (len, 1),
        (len - 1, 2),
        (0, u32::try_from(len + 1).unwrap_or(u32::MAX).min(4 << 20)),
        (u64::MAX, 1),
        (u64::MAX - 1, 2),
        (u64::MAX - 63, 64),
        (1 << 63, 64),
        (len.wrapping_neg(), 64),
        (scene.random.next() | 1 << 62, 64),
        (u64::MAX - len + 1, 4096),
    ];
    let outside = &[refused(Refusal::OutOfBounds)];
    for (offset, run) in places {
        // A run of a region that is too short for `run` bytes is outside whatever its offset.
        if offset.checked_add(run.into()).is_some_and(|end| end <= len) {
            continue;
        }
        let frame = write(scene, slot, offset, run);
        scene.strike("WRITE outside the region", (&mut control, &mut lane), &frame, outside)?;
        // Good runs around a bad one: not a byte of the frame lands.
        let good = Entry::new(slot, YARD, 64);
        let table = vec![good, Entry::new(slot, offset, 64), good];
        let frame = Frame::write(scene.transfer(), scene.later(), table, vec![0xee; 192]);
        if offset.checked_add(64).is_none_or(|end| end > len) {
            let what = "WRITE with one run outside the region";
            scene.strike(what, (&mut control, &mut lane), &frame, outside)?;
        }
    }
    if region.rights.contains(Rights::REMOTE_READ) {
        for offset in [len, len - 1, u64::MAX, u64::MAX - 63, 1 << 63] {
            let frame = read(scene, slot, offset, 64);
            scene.strike("READ outside the region", (&mut control, &mut lane), &frame, outside)?;
        }
    }
    Ok(())
}

fn wrong_rights(scene: &mut Scene<'_>) -> Result<()> {
    let readable = scene.region_with_only(Rights::REMOTE_READ)?;
    let writable = scene.region_with_only(Rights::REMOTE_WRITE)?;
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let denied = &[refused(Refusal::NoRight)];
    let slot = control.open(readable)?;
    for offset in [0, readable.len - 64] {
        let frame = write(scene, slot, offset, 64);
        scene.strike("WRITE to a read-only region", (&mut control, &mut lane), &frame, denied)?;
    }
    let slot = control.open(writable)?;
    for offset in [0, writable.len - 64] {
        let frame = read(scene, slot, offset, 64);
        scene.strike("READ of a write-only region", (&mut control, &mut lane), &frame, denied)?;
    }
    Ok(())
}

fn guessed_keys(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let mut asked = Vec::new();
    let guess = |id: RegionId, key: [u8; 16]| OpenRegion { region: id, key: RegionKey::new(key) };
    let known = scene.target.shown.iter().map(|region| *region.key.as_bytes());
    let known: Vec<[u8; 16]> = known.chain([[0; 16], [0xff; 16]]).collect();
    for hidden in &scene.target.hidden {
        asked.extend(known.iter().map(|key| guess(hidden.id, *key)));
        asked.push(guess(hidden.id, scene.random.array()));
    }
    for shown in &scene.target.shown {
        let bits = shown.id.to_bits();
        // The region before and after it in the table, and other lives of its own entry.
        for id in [bits + 1, bits ^ 1 << 32, bits ^ 3 << 32, bits.wrapping_add(1 << 32)] {
            let id = RegionId::from_bits(id);
            if scene.target.shown.iter().all(|known| known.id != id) {
                asked.push(guess(id, *shown.key.as_bytes()));
            }
        }
        let mut key = *shown.key.as_bytes();
        key[scene.random.below(16)] ^= 1 << scene.random.below(8);
        asked.push(guess(shown.id, key));
    }
    for _ in 0..1000 {
        asked.push(guess(RegionId::from_bits(scene.random.next()), scene.random.array()));
    }
    for part in asked.chunks(512) {
        scene.pace.blow();
        control.send(&Message::OpenRegions(part.to_vec()))?;
        let answers = control.find("RegionsOpened", |message| match message {
            Message::RegionsOpened(answers) => Some(answers.clone()),
            _ => None,
        })?;
        for answer in answers {
            let answer = answer.slot.map_or_else(refused, |_| Answer::Accepted);
            scene.judge("a guessed region key", answer, &[refused(Refusal::WrongKey)]);
        }
    }
    Ok(())
}

fn deregistered(scene: &mut Scene<'_>) -> Result<()> {
    // The last of those given away, which no other attack needs.
    let both = Rights::REMOTE_READ | Rights::REMOTE_WRITE;
    let region = scene.target.shown.iter().rev().find(|region| region.rights == both);
    let lacks = "the metadata of a region that may be read and written";
    let region = region.ok_or(crate::connection::Gone::Lacks(lacks))?;
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let slot = control.open(region)?;
    let frame = write(scene, slot, 0, 64);
    scene.strike("WRITE before", (&mut control, &mut lane), &frame, &[Answer::Accepted])?;
    // One that has begun, and whose payload comes when the region is gone.
    let mut begun = Lane::open(scene.target, &mut control)?;
    let frame = write(scene, slot, 0, YARD as u32);
    let bytes = frame.bytes();
    begun.stream.send(&bytes[..bytes.len() - 2048])?;
    begun.sent += 1;
    scene.ask(Ask::Deregister(region.id))?;
    begun.stream.send(&bytes[bytes.len() - 2048..])?;
    let closed = &[refused(Refusal::RegionClosed)];
    let answer = begun.verdict(&mut control)?;
    scene.judge("the rest of a WRITE after deregistration", answer, closed);
    for _ in 0..3 {
        let frame = write(scene, slot, YARD, 64);
        scene.strike("WRITE after deregistration", (&mut control, &mut lane), &frame, closed)?;
        let frame = read(scene, slot, YARD, 64);
        scene.strike("READ after deregistration", (&mut control, &mut lane), &frame, closed)?;
    }
    reopen(scene, &mut control, region.id, &region.key)
}

/// Shows the key of a region that is gone.
fn reopen(
    scene: &mut Scene<'_>,
    control: &mut Control,
    region: RegionId,
    key: &RegionKey,
) -> Result<()> {
    control.send(&Message::OpenRegions(vec![OpenRegion { region, key: key.clone() }]))?;
    let answer = control.find("RegionsOpened", |message| match message {
        Message::RegionsOpened(answers) => answers.first().map(|answer| answer.slot),
        _ => None,
    })?;
    let answer = answer.map_or_else(refused, |_| Answer::Accepted);
    scene.judge("the key of a region that is gone", answer, &[refused(Refusal::WrongKey)]);
    Ok(())
}

/// A WRITE of one run.
fn write(scene: &mut Scene<'_>, slot: Slot, offset: u64, len: u32) -> Frame {
    let table = vec![Entry::new(slot, offset, len)];
    Frame::write(scene.transfer(), scene.later(), table, vec![0xee; len as usize])
}

/// A READ request of one run.
fn read(scene: &mut Scene<'_>, slot: Slot, offset: u64, len: u32) -> Frame {
    Frame::read(scene.read(), scene.later(), vec![Entry::new(slot, offset, len)])
}
