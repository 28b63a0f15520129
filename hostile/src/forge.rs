//! Frames and control messages of which every byte can be chosen. kvx's own encoders refuse to
//! write what is wrong; these do not look.

use kvx_core::id::{GrantId, Slot, TransferId};
use kvx_core::time::Time;
use kvx_core::wire::message::MESSAGE_HEADER_LEN;

/// A frame, field by field (PROTOCOL 5.1), with its table and whatever follows.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// 1 WRITE, 2 READ request, 3 READ data, 4 ACK.
    pub kind: u8,
    /// Bit 0 checksums, bit 1 digest.
    pub flags: u8,
    /// What must be 0.
    pub reserved: u16,
    /// The payload's length as declared.
    pub payload_len: u32,
    /// Runs as declared.
    pub runs: u32,
    /// The transfer.
    pub transfer: u64,
    /// The grant, or 0. ACK: frames dealt with.
    pub grant: u64,
    /// The expiry. ACK: frames refused.
    pub expiry: u64,
    /// The first run.
    pub first_run: u32,
    /// Runs of the whole transfer.
    pub total_runs: u32,
    /// CRC-32C of the table.
    pub table_crc: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// Digest of the transfer.
    pub digest: u64,
    /// The table as sent, whatever `runs` declares.
    pub table: Vec<Entry>,
    /// The payload as sent, whatever `payload_len` declares.
    pub payload: Vec<u8>,
}

/// One table entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The region's slot.
    pub slot: u32,
    /// Bytes.
    pub len: u32,
    /// Where in the region.
    pub offset: u64,
}

impl Frame {
    /// A well-formed WRITE of a transfer that is this one frame.
    pub fn write(transfer: TransferId, expiry: Time, table: Vec<Entry>, payload: Vec<u8>) -> Self {
        let runs = table.len() as u32;
        Self {
            payload_len: payload.len() as u32,
            expiry: expiry.as_nanos(),
            table,
            payload,
            ..Self::bare(1, transfer.0, runs)
        }
    }

    /// The same under a grant.
    pub fn under(mut self, grant: GrantId) -> Self {
        self.grant = grant.0;
        self
    }

    /// A well-formed READ request of a transfer that is this one frame.
    pub fn read(transfer: TransferId, expiry: Time, table: Vec<Entry>) -> Self {
        let runs = table.len() as u32;
        Self { expiry: expiry.as_nanos(), table, ..Self::bare(2, transfer.0, runs) }
    }

    /// READ data of a transfer of `total` runs.
    pub fn read_data(transfer: TransferId, first: u32, total: u32, payload: Vec<u8>) -> Self {
        Self {
            payload_len: payload.len() as u32,
            first_run: first,
            total_runs: total,
            payload,
            ..Self::bare(3, transfer.0, 1)
        }
    }

    /// An ACK.
    pub fn ack(processed: u64, refused: u64) -> Self {
        Self { grant: processed, expiry: refused, ..Self::bare(4, 0, 0) }
    }

    /// The frame's bytes: header, table and payload as they stand here.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.table.len() * 16 + self.payload.len());
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.reserved.to_le_bytes());
        bytes.extend_from_slice(&self.payload_len.to_le_bytes());
        bytes.extend_from_slice(&self.runs.to_le_bytes());
        bytes.extend_from_slice(&self.transfer.to_le_bytes());
        bytes.extend_from_slice(&self.grant.to_le_bytes());
        bytes.extend_from_slice(&self.expiry.to_le_bytes());
        bytes.extend_from_slice(&self.first_run.to_le_bytes());
        bytes.extend_from_slice(&self.total_runs.to_le_bytes());
        bytes.extend_from_slice(&self.table_crc.to_le_bytes());
        bytes.extend_from_slice(&self.payload_crc.to_le_bytes());
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        for entry in &self.table {
            bytes.extend_from_slice(&entry.slot.to_le_bytes());
            bytes.extend_from_slice(&entry.len.to_le_bytes());
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    fn bare(kind: u8, transfer: u64, runs: u32) -> Self {
        Self {
            magic: *b"KVXF",
            kind,
            flags: 0,
            reserved: 0,
            payload_len: 0,
            runs,
            transfer,
            grant: 0,
            expiry: 0,
            first_run: 0,
            total_runs: runs,
            table_crc: 0,
            payload_crc: 0,
            digest: 0,
            table: Vec::new(),
            payload: Vec::new(),
        }
    }
}

impl Entry {
    /// `len` bytes at `offset` of a slot.
    pub const fn new(slot: Slot, offset: u64, len: u32) -> Self {
        Self { slot: slot.0, len, offset }
    }
}

/// A control message (PROTOCOL 4.1): the header says `declared` bytes of body, `body` is sent.
pub fn message(kind: u16, sequence: u64, acknowledged: u64, declared: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MESSAGE_HEADER_LEN + body.len());
    bytes.extend_from_slice(&declared.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&acknowledged.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// An extension (PROTOCOL 2.2) that nobody knows: bytes that a reader must pass over.
pub fn extension(number: u16, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + len);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    bytes.resize(8 + len, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use kvx_core::wire::{FrameHeader, FrameKind};

    use super::*;

    #[test]
    fn what_is_not_forged_is_well_formed() {
        let entry = Entry::new(Slot(3), 64, 5);
        let until = Time::from_nanos(9);
        let frames = [
            Frame::write(TransferId(1), until, vec![entry], vec![7; 5]),
            Frame::write(TransferId(1), until, vec![entry], vec![7; 5]).under(GrantId(4)),
            Frame::read(TransferId(1 << 63 | 1), until, vec![entry]),
            Frame::read_data(TransferId(1 << 63 | 1), 2, 3, vec![7; 5]),
            Frame::ack(5, 1),
        ];
        let kinds = [
            FrameKind::Write,
            FrameKind::Write,
            FrameKind::ReadRequest,
            FrameKind::ReadData,
            FrameKind::Ack,
        ];
        for (frame, kind) in frames.iter().zip(kinds) {
            let bytes = frame.bytes();
            let header = FrameHeader::decode(bytes.first_chunk().unwrap()).unwrap();
            assert_eq!(header.kind, kind);
            let rest = bytes.len() - 64;
            assert_eq!(rest, header.table_len() + header.payload_len as usize);
        }
    }
}
