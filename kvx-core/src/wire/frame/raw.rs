//! The raw form of headers and table entries: little-endian structs that are their own bytes.
//! Nothing here is trusted but what [`decode`] returns.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::{FRAME_HEADER_LEN, FRAME_SPAN_LEN, FrameFlags, FrameHeader, FrameKind, WireSpan};
use crate::id::{GrantId, Slot, TransferId};
use crate::time::Time;
use crate::wire::{MAX_FRAME_PAYLOAD, MAX_FRAME_SPANS, MAX_RUNS, WireError};

/// The first four bytes of every frame. A stream that lost its place shows at once.
const MAGIC: [u8; 4] = *b"KVXF";

/// PROTOCOL 5.1, field by field.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    kind: u8,
    flags: u8,
    reserved: U16,
    payload_len: U32,
    runs: U32,
    transfer: U64,
    /// ACK: processed.
    grant: U64,
    /// ACK: refused.
    expiry: U64,
    first_run: U32,
    total_runs: U32,
    table_crc: U32,
    payload_crc: U32,
    digest: U64,
}

const _: () = assert!(size_of::<RawHeader>() == FRAME_HEADER_LEN);

pub(super) fn encode(header: &FrameHeader) -> [u8; FRAME_HEADER_LEN] {
    let (grant, expiry) = match header.kind {
        FrameKind::Ack => (header.processed, header.refused),
        FrameKind::Write => (header.grant.map_or(0, |grant| grant.0), header.expiry.as_nanos()),
        FrameKind::ReadRequest => (0, header.expiry.as_nanos()),
        FrameKind::ReadData => (0, 0),
    };
    transmute!(RawHeader {
        magic: MAGIC,
        kind: header.kind.code(),
        flags: header.flags.bits(),
        reserved: U16::ZERO,
        payload_len: header.payload_len.into(),
        runs: header.runs.into(),
        transfer: header.transfer.0.into(),
        grant: grant.into(),
        expiry: expiry.into(),
        first_run: header.first_run.into(),
        total_runs: header.total_runs.into(),
        table_crc: header.table_crc.into(),
        payload_crc: header.payload_crc.into(),
        digest: header.digest.into(),
    })
}

pub(super) fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<FrameHeader, WireError> {
    let raw: RawHeader = transmute!(*bytes);
    if raw.magic != MAGIC {
        return Err(WireError::Magic { what: "frame" });
    }
    let kind = FrameKind::from_code(raw.kind)
        .ok_or(WireError::Unknown { what: "frame kind", value: raw.kind.into() })?;
    let flags = FrameFlags::from_bits(raw.flags)
        .ok_or(WireError::Unknown { what: "frame flags", value: raw.flags.into() })?;
    zero("frame header, reserved field", raw.reserved.get().into())?;
    check_unused(&raw, kind, flags)?;

    let mut header = FrameHeader {
        kind,
        flags,
        payload_len: raw.payload_len.get(),
        transfer: TransferId(raw.transfer.get()),
        grant: None,
        expiry: Time::ZERO,
        first_run: raw.first_run.get(),
        runs: raw.runs.get(),
        total_runs: raw.total_runs.get(),
        table_crc: raw.table_crc.get(),
        payload_crc: raw.payload_crc.get(),
        digest: raw.digest.get(),
        processed: 0,
        refused: 0,
    };
    if kind == FrameKind::Ack {
        (header.processed, header.refused) = (raw.grant.get(), raw.expiry.get());
        return at_most("refused frames of an ACK", header.refused, header.processed)
            .map(|()| header);
    }
    header.grant = Some(raw.grant.get()).filter(|grant| *grant != 0).map(GrantId);
    header.expiry = Time::from_nanos(raw.expiry.get());

    not_zero("frame transfer", header.transfer.0)?;
    not_zero("frame runs", header.runs.into())?;
    at_most("frame runs", header.runs.into(), MAX_FRAME_SPANS as u64)?;
    at_most("frame total runs", header.total_runs.into(), MAX_RUNS.into())?;
    let end = u64::from(header.first_run) + u64::from(header.runs);
    at_most("frame's last run", end, header.total_runs.into())?;
    if kind.has_payload() {
        not_zero("frame payload", header.payload_len.into())?;
        at_most("frame payload", header.payload_len.into(), MAX_FRAME_PAYLOAD.into())?;
    }
    Ok(header)
}

/// Fields that the kind and the flags leave unused are zero, so that a later version can use them.
fn check_unused(raw: &RawHeader, kind: FrameKind, flags: FrameFlags) -> Result<(), WireError> {
    let ack = kind == FrameKind::Ack;
    let summed = flags.contains(FrameFlags::CHECKSUM);
    let unused = [
        (ack, "flags of an ACK", raw.flags.into()),
        (ack, "transfer of an ACK", raw.transfer.get()),
        (ack, "runs of an ACK", raw.runs.get().into()),
        (ack, "first run of an ACK", raw.first_run.get().into()),
        (ack, "total runs of an ACK", raw.total_runs.get().into()),
        (!kind.has_payload(), "payload of a frame without", raw.payload_len.get().into()),
        (
            !kind.has_payload(),
            "digest flag of a frame without payload",
            (flags & FrameFlags::DIGEST).bits().into(),
        ),
        (!ack && kind != FrameKind::Write, "grant of a READ", raw.grant.get()),
        (kind == FrameKind::ReadData, "expiry of READ data", raw.expiry.get()),
        (
            !summed || !kind.has_table(),
            "table checksum of a frame without",
            raw.table_crc.get().into(),
        ),
        (
            !summed || !kind.has_payload(),
            "payload checksum of a frame without",
            raw.payload_crc.get().into(),
        ),
        (!flags.contains(FrameFlags::DIGEST), "digest of a frame without", raw.digest.get()),
    ];
    unused
        .into_iter()
        .filter(|(unused, ..)| *unused)
        .try_for_each(|(_, what, value)| zero(what, value))
}

fn zero(what: &'static str, value: u64) -> Result<(), WireError> {
    if value == 0 { Ok(()) } else { Err(WireError::Value { what, value }) }
}

fn not_zero(what: &'static str, value: u64) -> Result<(), WireError> {
    if value != 0 { Ok(()) } else { Err(WireError::Value { what, value }) }
}

fn at_most(what: &'static str, value: u64, limit: u64) -> Result<(), WireError> {
    if value <= limit { Ok(()) } else { Err(WireError::Limit { what, value, limit }) }
}

/// A table entry as it stands on the wire. A lane reads a table into the bytes of a slice of these
/// (`zerocopy::IntoBytes::as_mut_bytes`), and sends one from them.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct RawSpan {
    slot: U32,
    len: U32,
    offset: U64,
}

const _: () = assert!(size_of::<RawSpan>() == FRAME_SPAN_LEN);

impl RawSpan {
    /// The entry in the machine's own order. Nothing is checked; [`super::decode_table`] does.
    pub fn get(self) -> WireSpan {
        WireSpan { slot: Slot(self.slot.get()), len: self.len.get(), offset: self.offset.get() }
    }
}

impl From<WireSpan> for RawSpan {
    fn from(span: WireSpan) -> Self {
        Self { slot: span.slot.0.into(), len: span.len.into(), offset: span.offset.into() }
    }
}

pub(super) fn crc(table: &[RawSpan]) -> u32 {
    crc32c::crc32c(table.as_bytes())
}
