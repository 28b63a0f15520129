//! Frames: what travels on a lane. A header of 64 bytes, for some kinds a table, then payload.
//!
//! Not how frames are sent or where they may land: the transports and the peer state machine know.
//! The bytes are those of PROTOCOL 5.

mod raw;
#[cfg(test)]
mod tests;

use bitflags::bitflags;

use crate::id::{GrantId, Slot, TransferId};
use crate::time::Time;
use crate::wire::{MAX_FRAME_PAYLOAD, MAX_FRAME_SPANS, WireError};

pub use raw::RawSpan;

/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: usize = 64;

/// Bytes of one table entry.
pub const FRAME_SPAN_LEN: usize = 16;

/// What a frame is. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Runs of a WRITE: a table entry a run, then their bytes.
    Write = 1,
    /// Asks for runs of a READ: a table entry a run, no payload.
    ReadRequest = 2,
    /// Runs of a READ, from the owner to the reader: no table, then their bytes.
    ReadData = 3,
    /// Acknowledges the frames of the other direction: no table, no payload.
    Ack = 4,
}

impl FrameKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 4] = [Self::Write, Self::ReadRequest, Self::ReadData, Self::Ack];

    /// The kind of this wire number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The wire number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether a table stands between header and payload.
    pub const fn has_table(self) -> bool {
        matches!(self, Self::Write | Self::ReadRequest)
    }

    /// Whether bytes of regions follow.
    pub const fn has_payload(self) -> bool {
        matches!(self, Self::Write | Self::ReadData)
    }
}

bitflags! {
    /// What a frame carries besides.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FrameFlags: u8 {
        /// `table_crc` and `payload_crc` are filled in. Only with the feature agreed on.
        const CHECKSUM = 1;
        /// `digest` is the digest of the whole transfer. Only with the feature agreed on.
        const DIGEST = 2;
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: FrameKind,
    /// What it carries besides.
    pub flags: FrameFlags,
    /// Bytes after the table; at most [`crate::wire::MAX_FRAME_PAYLOAD`]; for a WRITE the sum of
    /// the table's lengths.
    pub payload_len: u32,
    /// The transfer, as its initiator counts. Zero in an ACK.
    pub transfer: TransferId,
    /// WRITE: the grant under which it writes, if any.
    pub grant: Option<GrantId>,
    /// WRITE and READ request: from this point of the receiving engine's clock on, nothing of the
    /// frame may land or be read. [`Time::ZERO`] in the other kinds.
    pub expiry: Time,
    /// The first run; runs count from 0 in the order of the initiator's plan.
    pub first_run: u32,
    /// The number of runs, at most [`crate::wire::MAX_FRAME_SPANS`]; at least 1 but for an ACK.
    pub runs: u32,
    /// The runs of the whole transfer, at most [`crate::wire::MAX_RUNS`].
    pub total_runs: u32,
    /// CRC-32C of the table.
    pub table_crc: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// Digest of the whole transfer.
    pub digest: u64,
    /// ACK: frames (not ACKs) of the other direction dealt with on this lane since it opened.
    pub processed: u64,
    /// ACK: how many of those were refused. The acknowledgement takes effect when as many
    /// `Refused` messages for this lane have come over control.
    pub refused: u64,
}

/// Which runs of a transfer a frame carries: `count` runs from `first` on, of `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRuns {
    /// The first run.
    pub first: u32,
    /// The number of runs.
    pub count: u32,
    /// The runs of the whole transfer.
    pub total: u32,
}

impl FrameHeader {
    /// The header of a WRITE without checksums.
    pub const fn write(
        transfer: TransferId,
        grant: Option<GrantId>,
        expiry: Time,
        runs: FrameRuns,
        payload_len: u32,
    ) -> Self {
        let bare = Self::bare(FrameKind::Write, transfer, runs);
        Self { grant, expiry, payload_len, ..bare }
    }

    /// The header of a READ request without checksums.
    pub const fn read_request(transfer: TransferId, expiry: Time, runs: FrameRuns) -> Self {
        Self { expiry, ..Self::bare(FrameKind::ReadRequest, transfer, runs) }
    }

    /// The header of the answer to the READ request `request`, without checksums. `payload_len` is
    /// the sum of the lengths in the request's table.
    pub const fn read_data(request: &FrameHeader, payload_len: u32) -> Self {
        Self { payload_len, ..Self::bare(FrameKind::ReadData, request.transfer, request.range()) }
    }

    /// An ACK of `processed` frames, `refused` of which were refused.
    pub const fn ack(processed: u64, refused: u64) -> Self {
        let none = FrameRuns { first: 0, count: 0, total: 0 };
        Self { processed, refused, ..Self::bare(FrameKind::Ack, TransferId(0), none) }
    }

    const fn bare(kind: FrameKind, transfer: TransferId, runs: FrameRuns) -> Self {
        Self {
            kind,
            flags: FrameFlags::empty(),
            payload_len: 0,
            transfer,
            grant: None,
            expiry: Time::ZERO,
            first_run: runs.first,
            runs: runs.count,
            total_runs: runs.total,
            table_crc: 0,
            payload_crc: 0,
            digest: 0,
            processed: 0,
            refused: 0,
        }
    }

    /// The runs that the frame carries.
    pub const fn range(&self) -> FrameRuns {
        FrameRuns { first: self.first_run, count: self.runs, total: self.total_runs }
    }

    /// Entries of the table between header and payload.
    pub const fn table_entries(&self) -> usize {
        if self.kind.has_table() { self.runs as usize } else { 0 }
    }

    /// Bytes of the table between header and payload.
    pub const fn table_len(&self) -> usize {
        self.table_entries() * FRAME_SPAN_LEN
    }

    /// The header's bytes. Fields that the kind does not use are written as zeros.
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        raw::encode(self)
    }

    /// The header of these bytes, every rule of PROTOCOL 5.1 checked: what the fields' docs say
    /// holds of the result, and unused fields are zero.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Self, WireError> {
        raw::decode(bytes)
    }
}

/// One table entry: 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireSpan {
    /// The owner's region.
    pub slot: Slot,
    /// Length in bytes, at least 1.
    pub len: u32,
    /// Offset in the region.
    pub offset: u64,
}

/// Fills `out` with the entries of the table that came with `header`: no length is zero, and
/// together they are the payload of a WRITE, or fit the answer of a READ request.
///
/// # Errors
/// When the table breaks these rules; `out` holds nothing of use then.
pub fn decode_table(
    header: &FrameHeader,
    table: &[RawSpan],
    out: &mut Vec<WireSpan>,
) -> Result<(), WireError> {
    out.clear();
    if table.len() != header.table_entries() || table.len() > MAX_FRAME_SPANS {
        return Err(WireError::Value { what: "frame table entries", value: table.len() as u64 });
    }
    let bytes = size_of_val(table);
    out.try_reserve(table.len()).map_err(|_| WireError::Memory { what: "frame table", bytes })?;

    // At most 1,024 lengths below 2^32: the sum cannot wrap.
    let mut sum = 0u64;
    for raw in table {
        let span = raw.get();
        if span.len == 0 {
            return Err(WireError::Value { what: "frame span length", value: 0 });
        }
        sum += u64::from(span.len);
        out.push(span);
    }
    match header.kind {
        FrameKind::Write if sum != u64::from(header.payload_len) => {
            Err(WireError::Value { what: "sum of the frame's span lengths", value: sum })
        }
        FrameKind::ReadRequest if sum > u64::from(MAX_FRAME_PAYLOAD) => Err(WireError::Limit {
            what: "sum of the frame's span lengths",
            value: sum,
            limit: MAX_FRAME_PAYLOAD.into(),
        }),
        _ => Ok(()),
    }
}

/// CRC-32C of a table, as `table_crc` carries it.
pub fn table_crc(table: &[RawSpan]) -> u32 {
    raw::crc(table)
}
