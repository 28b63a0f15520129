//! What client and server of the limit say to each other before and between reps: fixed numbers,
//! little-endian. Not the reps' bytes, which have no framing at all.

use std::io::{self, Read, Write};

use kvx::TransferOp;

use super::super::shape::MAX_BLOCKS;
use super::super::workload::{Blocks, Span};
use super::memory::invalid;

/// The first bytes of every connection, so that anything else shows at once.
const MAGIC: [u8; 8] = *b"KVXLIM2\n";

/// The longest reason that travels.
const MAX_REASON: usize = 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// A new session: its setup follows, then orders.
    Session,
    /// The data connection of this place in a session.
    Data { session: u64, place: u64 },
}

/// What the client wants measured.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) op: TransferOp,
    pub(super) blocks: Blocks,
}

/// What the client wants done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A rep over so many connections, looked at afterwards or not.
    Rep { connections: u8, checked: bool },
    /// Answer pings on a connection that the client opens now, until it ends.
    Pings,
}

impl Hello {
    pub(super) fn write(self, mut stream: impl Write) -> io::Result<()> {
        let (session, place) = match self {
            Self::Session => (0, 0),
            Self::Data { session, place } => (session, place),
        };
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, [session, place]);
        stream.write_all(&bytes)
    }

    pub(super) fn read(mut stream: impl Read) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(invalid("a connection that is none of a limit's"));
        }
        let [session, place] = numbers(stream)?;
        Ok(if session == 0 { Self::Session } else { Self::Data { session, place } })
    }
}

impl Setup {
    /// Bytes of memory that a side needs to serve it, roughly.
    pub(super) fn cost(&self) -> u64 {
        let Blocks { source, source_len, target_len, .. } = &self.blocks;
        cost(*source_len.max(target_len) as u64, source.len() as u64)
    }

    pub(super) fn write(&self, mut stream: impl Write) -> io::Result<()> {
        let Self { op, blocks } = self;
        let op = if *op == TransferOp::Read { 1 } else { 0 };
        let lens = [blocks.source_len, blocks.target_len, blocks.source.len()];
        let mut bytes = Vec::new();
        put(&mut bytes, [op]);
        put(&mut bytes, lens.map(|len| len as u64));
        for (source, target) in blocks.source.iter().zip(&blocks.target) {
            put(&mut bytes, [source.offset, target.offset, source.len].map(|n| n as u64));
        }
        stream.write_all(&bytes)
    }

    /// Memory grows with what arrives, not with what is announced.
    pub(super) fn read(mut stream: impl Read) -> io::Result<Self> {
        let [op, source_len, target_len, pairs] = numbers(&mut stream)?;
        let op = match op {
            0 => TransferOp::Write,
            1 => TransferOp::Read,
            _ => return Err(invalid("an unknown operation")),
        };
        if pairs > MAX_BLOCKS {
            return Err(invalid("too many blocks"));
        }
        let (mut source, mut target) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let [from, to, len] = numbers(&mut stream)?;
            source.try_reserve(1)?;
            target.try_reserve(1)?;
            source.push(Span { offset: size(from)?, len: size(len)? });
            target.push(Span { offset: size(to)?, len: size(len)? });
        }
        let (source_len, target_len) = (size(source_len)?, size(target_len)?);
        let blocks = Blocks { source, target, source_len, target_len };
        Ok(Self { op, blocks })
    }
}

impl Order {
    pub(super) fn write(self, mut stream: impl Write) -> io::Result<()> {
        stream.write_all(&match self {
            Self::Rep { connections, checked } => [1 + u8::from(checked), connections],
            Self::Pings => [3, 0],
        })
    }

    /// The next order; `None` when the client is done.
    pub(super) fn read(mut stream: impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; 2];
        match stream.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        match bytes {
            [verb @ 1..=2, connections] => Ok(Some(Self::Rep { connections, checked: verb == 2 })),
            [3, _] => Ok(Some(Self::Pings)),
            _ => Err(invalid("an unknown order")),
        }
    }
}

/// Bytes of memory that a side needs for so many pairs in `len` bytes, roughly.
pub(crate) fn cost(len: u64, pairs: u64) -> u64 {
    const OF_A_PAIR: u64 = 256;
    len.saturating_add(pairs.saturating_mul(OF_A_PAIR))
}

/// The number that stands for a failure in an answer: that it is not allowed on this host at all is
/// told from others.
const FAILED: u64 = 1;
const REFUSED: u64 = 2;

/// Whether an error says that what was tried is not allowed, or not there, on this host.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}

/// Answers with a number, or with why not.
pub(super) fn answer(mut stream: impl Write, outcome: &io::Result<u64>) -> io::Result<()> {
    let mut bytes = Vec::new();
    match outcome {
        Ok(number) => put(&mut bytes, [0, *number]),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.as_bytes();
            let reason = &reason[..reason.len().min(MAX_REASON)];
            let failed = if is_refusal(error) { REFUSED } else { FAILED };
            put(&mut bytes, [failed, reason.len() as u64]);
            bytes.extend_from_slice(reason);
        }
    }
    stream.write_all(&bytes)
}

/// What the server answers; its failure is this side's.
pub(super) fn read_answer(mut stream: impl Read) -> io::Result<u64> {
    match numbers(&mut stream)? {
        [0, number] => Ok(number),
        [failed @ (FAILED | REFUSED), len] => {
            let mut reason = Vec::new();
            stream.take(len.min(MAX_REASON as u64)).read_to_end(&mut reason)?;
            let reason = String::from_utf8_lossy(&reason);
            let kind = match failed {
                REFUSED => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            Err(io::Error::new(kind, format!("the server of the limit: {reason}")))
        }
        _ => Err(invalid("an unknown answer")),
    }
}

fn put<const N: usize>(bytes: &mut Vec<u8>, numbers: [u64; N]) {
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn numbers<const N: usize>(mut stream: impl Read) -> io::Result<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        *number = u64::from_le_bytes(bytes);
    }
    Ok(numbers)
}

fn size(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| invalid("a size beyond this machine"))
}
