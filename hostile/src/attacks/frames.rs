//! Frames that are none: headers and tables that break a rule, payloads that do not fit, ACKs and
//! READ data that nobody asked for.

use std::time::Duration;

use kvx_core::error::Refusal;
use kvx_core::id::{Slot, TransferId};
use kvx_core::region::Rights;

use crate::Attack;
use crate::connection::{Lane, Result};
use crate::forge::{Entry, Frame};
use crate::outcome::Answer;
use crate::scene::{Scene, refused};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "bad-headers",
        what: "headers in which one field breaks a rule of PROTOCOL 5.1",
        must: "each ends its lane; the control connection goes on",
        run: bad_headers,
    },
    Attack {
        name: "bad-tables",
        what: "tables whose lengths are 0, absurd, or do not add up",
        must: "each ends its lane, or is refused",
        run: bad_tables,
    },
    Attack {
        name: "false-acks",
        what: "ACKs of frames that were never sent, and a flood of ACKs that say nothing",
        must: "the former end the lane, the latter are ignored",
        run: false_acks,
    },
    Attack {
        name: "unasked-read-data",
        what: "READ data that nobody asked for",
        must: "it is passed over",
        run: unasked_read_data,
    },
    Attack {
        name: "half-frames",
        what: "frames that stop after every part of them: silence, then the end",
        must: "each holds its lane alone, and nothing once that has ended",
        run: half_frames,
    },
    Attack {
        name: "longer-than-said",
        what: "payloads longer than declared, and ones that never end",
        must: "what is beyond is no frame and ends the lane",
        run: longer_than_said,
    },
    Attack {
        name: "read-beyond-credit",
        what: "READ requests beyond the credit, whose answers are never read",
        must: "they are refused as Busy from twice the credit on",
        run: read_beyond_credit,
    },
];

fn bad_headers(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let entry = Entry::new(Slot(0), 0, 64);
    let until = scene.later();
    let write = Frame::write(TransferId(1), until, vec![entry], vec![0xee; 64]);
    let read = Frame::read(TransferId(1 << 63 | 1), until, vec![entry]);
    let data = Frame::read_data(TransferId(1 << 63 | 1), 0, 1, vec![0xee; 64]);
    let ack = Frame::ack(0, 0);
    type Change = fn(&mut Frame);
    let bad: [(&Frame, Change); 40] = [
        (&write, |f| f.magic = *b"KVX\n"),
        (&write, |f| f.magic = [0; 4]),
        (&write, |f| f.kind = 0),
        (&write, |f| f.kind = 5),
        (&write, |f| f.kind = 255),
        (&write, |f| f.flags = 1),
        (&write, |f| f.flags = 2),
        (&write, |f| f.flags = 4),
        (&write, |f| f.flags = 255),
        (&write, |f| f.reserved = 1),
        (&write, |f| f.payload_len = 0),
        (&write, |f| f.payload_len = (4 << 20) + 1),
        (&write, |f| f.payload_len = u32::MAX),
        (&write, |f| f.runs = 0),
        (&write, |f| f.runs = 1025),
        (&write, |f| f.runs = u32::MAX),
        (&write, |f| f.transfer = 0),
        (&write, |f| f.transfer = 1 << 63 | 5),
        (&write, |f| f.first_run = 1),
        (&write, |f| f.first_run = u32::MAX),
        (&write, |f| f.total_runs = 0),
        (&write, |f| f.total_runs = (1 << 24) + 1),
        (&write, |f| f.total_runs = u32::MAX),
        (&write, |f| f.table_crc = 1),
        (&write, |f| f.payload_crc = 1),
        (&write, |f| f.digest = 1),
        (&read, |f| f.grant = 1),
        (&read, |f| f.payload_len = 1),
        (&read, |f| f.flags = 2),
        (&read, |f| f.runs = 1025),
        (&data, |f| f.grant = 1),
        (&data, |f| f.expiry = 1),
        (&data, |f| f.payload_len = 0),
        (&data, |f| f.table_crc = 1),
        (&ack, |f| f.flags = 1),
        (&ack, |f| f.transfer = 1),
        (&ack, |f| f.runs = 1),
        (&ack, |f| f.total_runs = 1),
        (&ack, |f| f.payload_len = 1),
        (&ack, |f| (f.grant, f.expiry) = (0, 1)),
    ];
    for (index, (good, change)) in bad.into_iter().enumerate() {
        let mut frame = good.clone();
        change(&mut frame);
        let mut lane = Lane::open(scene.target, &mut control)?;
        scene.pace.blow();
        let answer = match lane.send(&frame) {
            Ok(()) => lane.end(&mut control)?,
            Err(_) => Answer::LaneEnded,
        };
        scene.judge(&format!("bad header {index}"), answer, &[Answer::LaneEnded]);
    }
    Ok(())
}

fn bad_tables(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let until = scene.later();
    let ends = &[Answer::LaneEnded];
    let of = |len: u32, count: usize| vec![Entry::new(Slot(0), 0, len); count];
    let tables = [
        ("a run of no bytes", vec![Entry::new(Slot(0), 0, 64), Entry::new(Slot(0), 0, 0)], 64),
        ("runs longer than the payload", of(64, 2), 64),
        ("runs shorter than the payload", of(16, 2), 64),
        ("runs of 4 GiB", of(u32::MAX, 1024), 64),
        ("runs that come round to the payload", of(1 << 31, 2), 64),
    ];
    for (what, table, len) in tables {
        let frame = Frame::write(scene.transfer(), until, table, vec![0xee; len]);
        let mut lane = Lane::open(scene.target, &mut control)?;
        scene.strike(what, (&mut control, &mut lane), &frame, ends)?;
    }
    for (what, table) in [
        ("a READ of more than 4 MiB", of(1 << 20, 5)),
        ("a READ of 4 TiB", of(u32::MAX, 1024)),
        ("a READ of nothing", of(0, 3)),
    ] {
        let frame = Frame::read(scene.read(), until, table);
        let mut lane = Lane::open(scene.target, &mut control)?;
        scene.strike(what, (&mut control, &mut lane), &frame, ends)?;
    }
    let frame = Frame::write(scene.transfer(), until, of(1, 1024), vec![0xee; 1024]);
    let unknown = &[refused(Refusal::UnknownSlot)];
    scene.strike_alone("a table as long as may be", &mut control, &frame, unknown)
}

fn false_acks(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let ends = &[Answer::LaneEnded];
    for (processed, refused) in [(1, 0), (1, 1), (u64::MAX, 0), (u64::MAX, u64::MAX), (0, 5)] {
        let mut lane = Lane::open(scene.target, &mut control)?;
        scene.pace.blow();
        let answer = match lane.send(&Frame::ack(processed, refused)) {
            Ok(()) => lane.end(&mut control)?,
            Err(_) => Answer::LaneEnded,
        };
        scene.judge("an ACK of what was never sent", answer, ends);
    }
    let mut lane = Lane::open(scene.target, &mut control)?;
    let acks: Vec<u8> = Frame::ack(0, 0).bytes().repeat(64);
    for _ in 0..scene.pace.flood(1) / 64 {
        if scene.pace.is_over() {
            break;
        }
        scene.pace.blow();
        lane.stream.send(&acks)?;
    }
    let frame =
        Frame::write(scene.transfer(), scene.later(), vec![Entry::new(Slot(9), 0, 8)], vec![0; 8]);
    let unknown = &[refused(Refusal::UnknownSlot)];
    scene.strike("a frame after a flood of ACKs", (&mut control, &mut lane), &frame, unknown)?;
    Ok(())
}

fn unasked_read_data(scene: &mut Scene<'_>) -> Result<()> {
    let (mut control, mut lane) = scene.enter_with_lane()?;
    for (transfer, len) in [(1, 64), (1 << 63 | 1, 64), (1 << 63 | 1, 4 << 20), (u64::MAX, 1)] {
        let frame = Frame::read_data(TransferId(transfer), 0, 1 << 24, vec![0xee; len]);
        let passed = &[Answer::Accepted];
        scene.strike("READ data", (&mut control, &mut lane), &frame, passed)?;
    }
    Ok(())
}

fn half_frames(scene: &mut Scene<'_>) -> Result<()> {
    let region = scene.region(Rights::REMOTE_WRITE)?;
    let mut control = scene.enter()?;
    let slot = control.open(region)?;
    let mut held = Vec::new();
    let places = [(slot, "a good frame"), (Slot(u32::MAX), "a bad one")];
    for (cut, (slot, _)) in [1, 63, 64, 70, 80, 81, 2000].into_iter().zip(places.iter().cycle()) {
        let table = vec![Entry::new(*slot, 0, 4096)];
        let bytes = Frame::write(scene.transfer(), scene.later(), table, vec![0xd2; 4096]).bytes();
        let mut lane = Lane::open(scene.target, &mut control)?;
        scene.pace.blow();
        lane.stream.send(&bytes[..cut])?;
        held.push(lane);
    }
    let answer = control.verdict()?;
    scene.judge("half frames and silence", answer, &[Answer::Ignored]);
    std::thread::sleep(Duration::from_millis(200));
    for mut lane in held {
        lane.stream.finish()?;
        let answer = lane.end(&mut control)?;
        scene.judge("the end inside a frame", answer, &[Answer::LaneEnded]);
    }
    Ok(())
}

fn longer_than_said(scene: &mut Scene<'_>) -> Result<()> {
    let region = scene.region(Rights::REMOTE_WRITE)?;
    let mut control = scene.enter()?;
    let good = control.open(region)?;
    for slot in [good, Slot(u32::MAX)] {
        let mut lane = Lane::open(scene.target, &mut control)?;
        let table = vec![Entry::new(slot, 0, 64)];
        let mut frame = Frame::write(scene.transfer(), scene.later(), table, vec![0xd3; 64]);
        frame.payload.resize(1 << 20, 0xee);
        frame.payload_len = 64;
        scene.pace.blow();
        // The rest may meet a connection that is closed already.
        let _ = lane.send(&frame);
        let answer = lane.end(&mut control)?;
        scene.judge("a payload longer than declared", answer, &[Answer::LaneEnded]);
    }
    // One that says 4 MiB and brings a byte now and then: it may, until it expires.
    let mut lane = Lane::open(scene.target, &mut control)?;
    let table = vec![Entry::new(good, 0, 4096)];
    let until = crate::clock::now() + Duration::from_millis(300);
    let frame = Frame::write(scene.transfer(), until, table, vec![0xd4; 4096]);
    let bytes = frame.bytes();
    for byte in bytes.chunks(64) {
        lane.stream.send(byte)?;
        std::thread::sleep(Duration::from_millis(10));
    }
    lane.sent += 1;
    let answer = lane.verdict(&mut control)?;
    scene.judge("a payload too slow for its expiry", answer, &[refused(Refusal::Expired)]);
    Ok(())
}

fn read_beyond_credit(scene: &mut Scene<'_>) -> Result<()> {
    let region = scene.region(Rights::REMOTE_READ)?;
    let (mut control, mut lane) = scene.enter_with_lane()?;
    let slot = control.open(region)?;
    let until = scene.later();
    // 1,024 spans of as many bytes as fit: 256 of them are four times the credit.
    let len = (region.len / 2).clamp(1, 2048) as u32;
    let transfer = scene.read();
    let mut frame = Frame::read(transfer, until, vec![Entry::new(slot, 0, len); 1024]);
    frame.total_runs = 1024 * 256;
    for index in 0..256 {
        scene.pace.blow();
        frame.first_run = index * 1024;
        lane.send(&frame)?;
    }
    // Nothing of the lane is read; the refusals come over control.
    let busy = control.refusals(lane.id, 1)?.map(|told| told.refusal);
    let answer = busy.map_or(Answer::Accepted, refused);
    scene.judge("READs beyond the credit", answer, &[refused(Refusal::Busy)]);
    let answer = control.verdict()?;
    scene.judge("after READs beyond the credit", answer, &[Answer::Ignored]);
    Ok(())
}
