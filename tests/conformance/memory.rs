//! Registered memory whose every byte is known, and the naive copy that says what it should hold.

use std::sync::atomic::{AtomicU64, Ordering};

use kvx::{Buffer, Engine, Peer, Prepared, Region, RegionId, Rights, Span, Spans, TransferOp};
use kvx_core::testing::oracle;

pub(crate) const READ_WRITE: Rights = Rights::REMOTE_READ.union(Rights::REMOTE_WRITE);

/// A buffer and its region, full of bytes that no other memory of this process holds in the same
/// places: what moved wrongly, or beside its target, is seen.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) buffer: Buffer,
    pub(crate) region: Region,
}

impl Memory {
    pub(crate) fn new(engine: &Engine, len: u64, rights: Rights) -> Self {
        let (buffer, region) = engine.allocate(len, rights).unwrap();
        buffer.write(0, &pattern(len as usize)).unwrap();
        Self { buffer, region }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.buffer.len() as usize];
        self.buffer.read(0, &mut bytes).unwrap();
        bytes
    }

    /// Fills it with one byte: whatever lands later is seen.
    pub(crate) fn poison(&self) {
        self.buffer.fill(0, self.buffer.len(), POISON).unwrap();
    }

    /// Nothing has landed since [`Self::poison`].
    pub(crate) fn assert_poisoned(&self) {
        let bytes = self.bytes();
        let landed = bytes.iter().position(|byte| *byte != POISON);
        assert_eq!(landed, None, "a byte landed after the fence, at this offset");
    }
}

const POISON: u8 = 0xA5;

/// `len` bytes that look random and are new each time.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let mut state = SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Fails at the first byte that differs, without printing the others.
#[track_caller]
pub(crate) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "length of {what}");
    if found != expected {
        let offset = found.iter().zip(expected).position(|(found, expected)| found != expected);
        let offset = offset.unwrap_or_default();
        panic!("{what}: byte {offset} is {}, not {}", found[offset], expected[offset]);
    }
}

pub(crate) const fn span(region: u32, offset: u64, len: u64) -> Span {
    Span { region, offset, len }
}

/// Makes `target`'s memory known to `engine`.
pub(crate) fn add(engine: &Engine, target: &Engine, memory: &[&Memory]) -> Peer {
    let blob = target.metadata(memory.iter().map(|memory| &memory.region)).unwrap();
    engine.add_peer(&blob).unwrap()
}

/// The ids of all regions that the peer's blob named, in its order.
pub(crate) fn ids(peer: &Peer) -> Vec<RegionId> {
    peer.regions().iter().map(|region| region.id).collect()
}

/// Prepares pairs of a local and a remote span; remote spans count the regions of the blob.
pub(crate) fn prepare(
    peer: &Peer,
    op: TransferOp,
    local: &[&Memory],
    pairs: &[(Span, Span)],
) -> kvx::Result<Prepared> {
    let regions: Vec<&Region> = local.iter().map(|memory| &memory.region).collect();
    let (ours, theirs): (Vec<Span>, Vec<Span>) = pairs.iter().copied().unzip();
    let (ours, theirs): (Spans, Spans) = (ours.into_iter().collect(), theirs.into_iter().collect());
    peer.prepare(op, (&regions, &ours), (&ids(peer), &theirs))
}

/// What the memory of both sides must hold after a transfer.
pub(crate) struct Model {
    local: Vec<Vec<u8>>,
    remote: Vec<Vec<u8>>,
}

impl Model {
    /// What it holds at present.
    pub(crate) fn of(local: &[&Memory], remote: &[&Memory]) -> Self {
        let all = |memory: &[&Memory]| memory.iter().map(|memory| memory.bytes()).collect();
        Self { local: all(local), remote: all(remote) }
    }

    /// Copies pair by pair.
    pub(crate) fn copy(&mut self, op: TransferOp, pairs: &[(Span, Span)]) {
        let (ours, theirs): (Vec<Span>, Vec<Span>) = pairs.iter().copied().unzip();
        let (ours, theirs) = (ours.into_iter().collect(), theirs.into_iter().collect());
        match op {
            TransferOp::Write => {
                oracle::copy_spans(&ours, &self.local, &theirs, &mut self.remote);
            }
            TransferOp::Read => oracle::copy_spans(&theirs, &self.remote, &ours, &mut self.local),
        }
    }

    /// Compares every byte of both sides, those around the targets included.
    #[track_caller]
    pub(crate) fn check(&self, local: &[&Memory], remote: &[&Memory]) {
        let sides = [("local", local, &self.local), ("remote", remote, &self.remote)];
        for (side, found, expected) in sides {
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_same(&found.bytes(), expected, &format!("{side} memory {index}"));
            }
        }
    }
}

/// Moves the pairs and compares all memory of both sides with the naive copy.
#[track_caller]
pub(crate) fn transfer_and_check(
    peer: &Peer,
    op: TransferOp,
    local: &[&Memory],
    remote: &[&Memory],
    pairs: &[(Span, Span)],
) {
    let mut model = Model::of(local, remote);
    model.copy(op, pairs);
    let prepared = prepare(peer, op, local, pairs).unwrap();
    let report = prepared.post(kvx::PostOptions::new()).unwrap().wait().unwrap();
    let bytes: u64 = pairs.iter().map(|(local, _)| local.len).sum();
    assert_eq!((report.bytes, report.runs as usize), (bytes, prepared.runs()));
    model.check(local, remote);
}
