//! Rings that lie: positions and lengths that cannot be or change, memory that is not there, and
//! what is never read, never rung for, or rung for without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvx_core::id::Slot;
use kvx_core::region::Rights;
use kvx_core::transport::TransportKind;

use super::YARD;
use crate::Attack;
use crate::connection::{Control, Gone, Lane, Result, Rings, message, say};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::Scene;
use crate::target::Ask;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "ring-positions",
        what: "positions beyond the ring, beyond what was written, and going back",
        must: "each ends its lane, and the control connection goes on",
        run: positions,
    },
    Attack {
        name: "ring-messages",
        what: "messages of no length, of a wrong one, longer than what was written, and without an \
               end; with more and with less to copy than they say, and none",
        must: "each ends its lane",
        run: messages,
    },
    Attack {
        name: "changing-messages",
        what: "messages whose words change while they are read",
        must: "what is taken in is one of them or none: not a byte lands beyond",
        run: changing_messages,
    },
    Attack {
        name: "named-memory",
        what: "WRITEs of memory that is not there: unmapped, in the kernel, at the end of addresses, \
               in part, and gone while it is copied",
        must: "each ends its lane; nobody is told that it landed",
        run: named_memory,
    },
    Attack {
        name: "never-released",
        what: "READs whose answers are never released, by one who says that it copies for ever; and \
               the memory is deregistered",
        must: "deregistration returns, and the lane ends",
        run: never_released,
    },
    Attack {
        name: "bells",
        what: "bells without end, none at all, marks that always change, and words that are none",
        must: "what was written is taken in when the bell rings; other words end the lane",
        run: bells,
    },
];

const ENDED: &[Answer] = &[Answer::LaneEnded];

/// A control connection with a lane of the same host, and a slot that may be written.
struct Open {
    control: Control,
    lane: Lane,
    slot: Slot,
}

impl Open {
    fn new(scene: &mut Scene<'_>) -> Result<Self> {
        let region = scene.region(Rights::REMOTE_WRITE)?;
        if scene.target.transport != TransportKind::Shm {
            return Err(Gone::Lacks("lanes over shm"));
        }
        let (mut control, lane) = scene.enter_with_lane()?;
        let slot = control.open(region)?;
        Ok(Self { control, lane, slot })
    }

    /// A WRITE into the yard of this payload; the payload itself is the caller's to name.
    fn write(&self, scene: &mut Scene<'_>, len: u32) -> Frame {
        let table = vec![Entry::new(self.slot, 0, len)];
        let frame = Frame::write(scene.transfer(), scene.later(), table, Vec::new());
        Frame { payload_len: len, ..frame }
    }

    /// Writes words into the ring as they are, and rings.
    fn say(&mut self, words: &[u64]) -> Result<()> {
        self.lane.rings()?.write(words);
        self.lane.stream.send(&[say::BELL])
    }

    /// Sets a word of the page, and rings.
    fn set(&mut self, index: usize, word: u64) -> Result<()> {
        self.lane.rings()?.set(index, word);
        self.lane.stream.send(&[say::BELL])
    }

    /// The lane must end, and nothing else.
    fn must_end(mut self, scene: &mut Scene<'_>, what: &str) -> Result<()> {
        scene.pace.blow();
        let answer = self.lane.end(&mut self.control)?;
        scene.judge(what, answer, ENDED);
        self.control.leave();
        Ok(())
    }

    /// A WRITE that is right is taken in.
    fn must_go_on(&mut self, scene: &mut Scene<'_>, what: &str) -> Result<()> {
        let frame = Frame { payload: vec![0xe1; 64], ..self.write(scene, 64) };
        let at = (&mut self.control, &mut self.lane);
        scene.strike(what, at, &frame, &[Answer::Accepted]).map(drop)
    }
}

fn positions(scene: &mut Scene<'_>) -> Result<()> {
    let ring = Rings::RING as u64;
    for produced in [ring + 1, 1 << 32, 1 << 63, u64::MAX] {
        let mut open = Open::new(scene)?;
        open.set(Rings::PRODUCED, produced)?;
        open.must_end(scene, "written beyond the ring")?;
    }
    // Back behind what was read.
    for back in [1, 9, ring] {
        let mut open = Open::new(scene)?;
        open.must_go_on(scene, "a WRITE before going back")?;
        let produced = open.lane.rings()?.produced;
        open.set(Rings::PRODUCED, produced.wrapping_sub(back))?;
        open.must_end(scene, "written less than was read")?;
    }
    for consumed in [1 << 20, 1 << 63, u64::MAX] {
        let mut open = Open::new(scene)?;
        // It has acknowledged this, and looks how far that was read when it has more to say.
        open.must_go_on(scene, "a WRITE before the ring is read on")?;
        open.lane.rings()?.set(Rings::CONSUMED, consumed);
        let frame = Frame { payload: vec![0xe1; 64], ..open.write(scene, 64) };
        open.lane.send(&frame)?;
        open.must_end(scene, "read what was never written")?;
    }
    Ok(())
}

fn messages(scene: &mut Scene<'_>) -> Result<()> {
    for len in [0, 1, 8, 4106, 32_768, 32_769, 1 << 32, u64::MAX] {
        let mut open = Open::new(scene)?;
        let frame = open.write(scene, 64);
        let mut words = message(&frame, &[(4096, 64)]);
        words[0] = len;
        open.say(&words)?;
        open.must_end(scene, &format!("a message of {len} words"))?;
    }
    let payload = [0xe1_u8; 64];
    let at = payload.as_ptr().expose_provenance() as u64;
    for (what, sources) in [
        ("a payload at no place", vec![]),
        ("a payload that is too short", vec![(at, 63)]),
        ("a payload that is too long", vec![(at, 65)]),
        ("a payload with a place of no bytes", vec![(at, 64), (at, 0)]),
        ("a payload whose lengths come round", vec![(at, u64::MAX), (at, 65)]),
        ("a payload of all that can be addressed", vec![(0, u64::MAX)]),
    ] {
        let mut open = Open::new(scene)?;
        let frame = open.write(scene, 64);
        open.say(&message(&frame, &sources))?;
        open.must_end(scene, what)?;
    }
    // A payload where there may be none.
    let mut open = Open::new(scene)?;
    open.say(&message(&Frame::ack(0, 0), &[(at, 64)]))?;
    open.must_end(scene, "an ACK with a payload")?;
    Ok(())
}

fn changing_messages(scene: &mut Scene<'_>) -> Result<()> {
    let rounds = scene.pace.flood(200).clamp(20, 1000);
    let payload = vec![0xe1_u8; YARD as usize];
    let at = payload.as_ptr().expose_provenance() as u64;
    let mut open = Open::new(scene)?;
    let mut whole = 0;
    for _ in 0..rounds {
        if scene.pace.is_over() {
            break;
        }
        let frame = open.write(scene, 64);
        let good = message(&frame, &[(at, 64)]);
        // Of the same length: another place, far outside, more bytes, another kind, another length.
        let mut bad = good.clone();
        bad[0] = scene.random.next() % 40;
        for word in &mut bad[1..] {
            if scene.random.below(3) == 0 {
                *word ^= 1 << scene.random.below(64);
            }
        }
        let rings = open.lane.rings()?;
        let (own, from) = (Arc::clone(&rings.own), rings.produced);
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let (first, second) = (good.clone(), bad);
        let changes = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for words in [&second, &first] {
                    for (word, place) in words.iter().zip(from..) {
                        let place = Rings::PAGE + place as usize % Rings::RING;
                        own.words()[place].store(*word, Ordering::Relaxed);
                    }
                }
            }
        });
        scene.pace.blow();
        let said = open.say(&good);
        open.lane.sent += 1;
        let verdict = said.and_then(|()| open.lane.verdict(&mut open.control));
        over.store(true, Ordering::Relaxed);
        let _ = changes.join();
        match verdict {
            // Whatever it was taken for, its table was looked at once it was copied.
            Ok(answer @ (Answer::Accepted | Answer::Refused(_))) => {
                whole += 1;
                scene.outcome.count(answer);
            }
            Ok(Answer::LaneEnded) | Err(Gone::Ended | Gone::Full) => {
                scene.outcome.count(Answer::LaneEnded);
                open.control.leave();
                open = Open::new(scene)?;
            }
            Ok(answer) => scene.judge("a message that changes", answer, ENDED),
            Err(other) => return Err(other),
        }
    }
    if whole == rounds {
        scene.outcome.surprise("no message that changed was ever seen to".to_owned());
    }
    open.control.leave();
    Ok(())
}

fn named_memory(scene: &mut Scene<'_>) -> Result<()> {
    let payload = [0xe1_u8; 64];
    let at = payload.as_ptr().expose_provenance() as u64;
    let kernel = 0xffff_8880_0000_0000;
    for (what, sources) in [
        ("memory at no address", vec![(0, 64)]),
        ("memory that is not mapped", vec![(4096, 64)]),
        ("memory of the kernel", vec![(kernel, 64)]),
        ("memory at the end of what can be mapped", vec![(0x7fff_ffff_ffc0, 64)]),
        ("memory between user and kernel", vec![(1 << 56, 64)]),
        ("memory at the end of addresses", vec![(u64::MAX - 63, 64)]),
        ("memory beyond the end of addresses", vec![(u64::MAX, 64)]),
        ("memory that comes round", vec![(u64::MAX - 31, 64)]),
        ("memory that is there in part", vec![(at, 32), (4096, 32)]),
        ("memory that is there at the end", vec![(kernel, 32), (at, 32)]),
        ("memory of which a byte is there", vec![(at, 1), (u64::MAX, 63)]),
    ] {
        let mut open = Open::new(scene)?;
        let frame = open.write(scene, 64);
        open.say(&message(&frame, &sources))?;
        open.must_end(scene, what)?;
    }
    // As many bytes and places as a message may name, and none of them there.
    let mut open = Open::new(scene)?;
    let len = YARD as u32;
    let frame = open.write(scene, len);
    let sources: Vec<(u64, u64)> = (0..1024).map(|page| (page << 12, 4)).collect();
    open.say(&message(&frame, &sources))?;
    open.must_end(scene, "a thousand places that are not there")?;
    for _ in 0..scene.pace.flood(500).clamp(4, 40) {
        let mut open = Open::new(scene)?;
        let frame = open.write(scene, len);
        // Large enough for the allocator to map it alone, and unmap it when it is dropped.
        let memory = vec![0xe1_u8; 4 << 20];
        let at = memory.as_ptr().expose_provenance() as u64;
        let going = std::thread::spawn(move || drop(memory));
        open.say(&message(&frame, &[(at, len.into())]))?;
        let _ = going.join();
        open.lane.sent += 1;
        scene.pace.blow();
        let answer = match open.lane.verdict(&mut open.control) {
            Err(Gone::Ended) => Answer::LaneEnded,
            other => other?,
        };
        let may = &[Answer::LaneEnded, Answer::Accepted];
        scene.judge("memory that goes while it is copied", answer, may);
        open.control.leave();
    }
    Ok(())
}

fn never_released(scene: &mut Scene<'_>) -> Result<()> {
    let both = Rights::REMOTE_READ | Rights::REMOTE_WRITE;
    let region = scene.target.shown.iter().rev().find(|region| region.rights == both);
    let lacks = "the metadata of a region that may be read and written";
    let region = region.ok_or(Gone::Lacks(lacks))?;
    let mut open = Open::new(scene)?;
    let slot = open.control.open(region)?;
    // It says that it copies, and never that it has.
    open.set(Rings::COPYING, 1)?;
    for _ in 0..16 {
        let table = vec![Entry::new(slot, 0, YARD as u32)];
        let frame = Frame::read(scene.read(), scene.later(), table);
        scene.pace.blow();
        open.lane.send(&frame)?;
    }
    // Until an answer is there, which is never released.
    let begun = std::time::Instant::now();
    while open.lane.rings()?.read()?.is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(Gone::Silent("an answer to a READ"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    scene.ask(Ask::Deregister(region.id))?;
    open.must_end(scene, "an answer that is not released when its memory goes")
}

fn bells(scene: &mut Scene<'_>) -> Result<()> {
    // No bell: nobody has to look.
    let mut open = Open::new(scene)?;
    let payload = [0xe1_u8; 64];
    let at = payload.as_ptr().expose_provenance() as u64;
    let frame = open.write(scene, 64);
    open.lane.rings()?.write(&message(&frame, &[(at, 64)]));
    open.lane.sent += 1;
    std::thread::sleep(Duration::from_millis(50));
    scene.pace.blow();
    open.lane.stream.send(&[say::BELL])?;
    let answer = open.lane.verdict(&mut open.control)?;
    scene.judge("a bell that comes late", answer, &[Answer::Accepted]);
    // Many for nothing.
    let many = [say::BELL; 4096];
    for _ in 0..scene.pace.flood(64) {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        open.lane.stream.send(&many)?;
    }
    open.must_go_on(scene, "a WRITE after a flood of bells")?;
    // Marks that are others each time: it rings for what it writes, and no more.
    let rings = open.lane.rings()?;
    let own = Arc::clone(&rings.own);
    let over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&over);
    let marks = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            own.words()[Rings::ASLEEP].fetch_add(1, Ordering::Relaxed);
            own.words()[Rings::FULL].fetch_add(1, Ordering::Relaxed);
        }
    });
    let gone_on = (0..100).try_for_each(|_| open.must_go_on(scene, "a WRITE under changing marks"));
    over.store(true, Ordering::Relaxed);
    let _ = marks.join();
    gone_on?;
    open.lane.stream.send(&[say::GONE])?;
    open.must_end(scene, "memory that is said to be gone")?;
    for word in [0, say::FINE, say::REFUSED, say::READY, 0x4b, 0xff] {
        let mut open = Open::new(scene)?;
        open.lane.stream.send(&[say::BELL, word])?;
        open.must_end(scene, &format!("the word {word}"))?;
    }
    Ok(())
}
