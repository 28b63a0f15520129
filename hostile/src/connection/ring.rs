//! What a lane of memory on the same host is made of (PROTOCOL 11): its greeting, and its rings, of
//! which every word can be chosen.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kvx_core::proto::LaneKey;
use kvx_core::wire::{FRAME_HEADER_LEN, FrameHeader};
use kvx_shm::testing::ForgedRing;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use zerocopy::little_endian::{I32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::stream::PATIENCE;
use super::{Gone, Result, Stream};
use crate::forge::Frame;
use crate::random;

/// What is said on the socket of such a lane.
pub(crate) mod say {
    pub(crate) const FINE: u8 = 1;
    pub(crate) const REFUSED: u8 = 2;
    pub(crate) const BELL: u8 = 3;
    pub(crate) const GONE: u8 = 4;
    pub(crate) const READY: u8 = 5;
}

/// What each side says first.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Greeting {
    pub(crate) magic: [u8; 8],
    pub(crate) boot: [u8; 16],
    pub(crate) pids: [U64; 2],
    pub(crate) pid: I32,
    pub(crate) ring: I32,
    pub(crate) answer_address: U64,
    pub(crate) challenge: [u8; 16],
}

/// Both rings of a lane.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(crate) own: Arc<ForgedRing>,
    theirs: File,
    /// The victim's memory.
    memory: File,
    /// Words written here, and read there.
    pub(crate) produced: u64,
    consumed: u64,
    /// Payloads that the victim may still copy, and until it has read so far.
    kept: VecDeque<(u64, Vec<u8>)>,
}

impl Greeting {
    /// Bytes of a greeting.
    pub(crate) const LEN: usize = size_of::<Self>();

    /// The victim's, which comes first of all.
    pub(crate) fn heard(stream: &mut Stream) -> Result<Self> {
        let bytes = stream.take(Self::LEN, PATIENCE)?.ok_or(Gone::Silent("a greeting"))?;
        Self::read_from_bytes(&bytes).map_err(|_| Gone::Silent("a greeting"))
    }

    /// The attacker's, as it should be.
    pub(crate) fn own(ring: &ForgedRing) -> Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = boot.chars().filter(char::is_ascii_hexdigit).collect();
        let boot = u128::from_str_radix(&digits, 16).map_err(|why| Gone::Own(why.to_string()))?;
        let pids = fs::metadata("/proc/self/ns/pid")?;
        Ok(Self {
            magic: *b"KVXSHM1\n",
            boot: boot.to_be_bytes(),
            pids: [pids.dev().into(), pids.ino().into()],
            pid: std::process::id().cast_signed().into(),
            ring: ring.number().into(),
            answer_address: (ring.address() + 8 * Rings::ANSWER as u64).into(),
            challenge: random::unique()?,
        })
    }

    /// The ring that it names, taken out of the process that it names.
    pub(crate) fn take_ring(&self) -> Result<File> {
        let lacks = Gone::Lacks("a victim whose processes and memory it may look into");
        let process = Pid::from_raw(self.pid.get()).ok_or(lacks.clone())?;
        let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(|_| lacks.clone())?;
        let ring = pidfd_getfd(&pidfd, self.ring.get(), PidfdGetfdFlags::empty());
        ring.map(File::from).map_err(|_| lacks)
    }
}

impl Rings {
    /// Words of a ring, and of the page before it.
    pub(crate) const RING: usize = 1 << 15;
    pub(crate) const PAGE: usize = 512;
    /// Where the words of the page are.
    pub(crate) const PRODUCED: usize = 0;
    pub(crate) const CONSUMED: usize = 16;
    pub(crate) const ASLEEP: usize = 32;
    pub(crate) const FULL: usize = 48;
    pub(crate) const ANSWER: usize = 80;
    pub(crate) const COPYING: usize = 96;

    /// Sets up a lane, rightly.
    pub(crate) fn meet(stream: &mut Stream, key: &LaneKey) -> Result<Self> {
        let own = Arc::new(ForgedRing::new(Self::PAGE + Self::RING)?);
        stream.send(Greeting::own(&own)?.as_bytes())?;
        let theirs = Greeting::heard(stream)?;
        put_answer(&own, key, &theirs);
        stream.send(&[say::READY])?;
        hear(stream, say::READY)?;
        let rings = Self::of(own, &theirs)?;
        stream.send(&[say::FINE])?;
        hear(stream, say::FINE)?;
        Ok(rings)
    }

    /// With one who greets so.
    pub(crate) fn of(own: Arc<ForgedRing>, theirs: &Greeting) -> Result<Self> {
        let memory = File::open(format!("/proc/{}/mem", theirs.pid.get()))?;
        let (theirs, kept) = (theirs.take_ring()?, VecDeque::new());
        Ok(Self { own, theirs, memory, produced: 0, consumed: 0, kept })
    }

    /// Sends a frame with its payload.
    pub(crate) fn send(&mut self, stream: &mut Stream, frame: &Frame) -> Result<()> {
        let payload = frame.payload.clone();
        let source = (payload.as_ptr().expose_provenance() as u64, payload.len() as u64);
        let sources = if payload.is_empty() { vec![] } else { vec![source] };
        let words = message(frame, &sources);
        self.await_room(stream, words.len() as u64)?;
        self.kept.push_back((self.produced + words.len() as u64, payload));
        self.write(&words);
        stream.send(&[say::BELL])
    }

    /// Writes words into the ring, and says that they are there. Rings no bell.
    pub(crate) fn write(&mut self, words: &[u64]) {
        for (word, at) in words.iter().zip(self.produced..) {
            self.put(at, *word);
        }
        self.produced += words.len() as u64;
        self.set(Self::PRODUCED, self.produced);
    }

    /// One word of the ring, wherever that is.
    pub(crate) fn put(&self, at: u64, word: u64) {
        self.set(Self::PAGE + at as usize % Self::RING, word);
    }

    /// A word of the whole.
    pub(crate) fn set(&self, index: usize, word: u64) {
        self.own.words()[index].store(word, Ordering::SeqCst);
    }

    /// The next frame of the victim with its payload, if one comes in time.
    pub(crate) fn next(
        &mut self,
        stream: &mut Stream,
        wait: Duration,
    ) -> Result<Option<(FrameHeader, Vec<u8>)>> {
        let until = Instant::now() + wait;
        let mut ended = Ok(None);
        loop {
            if let Some(frame) = self.read()? {
                self.set(Self::CONSUMED, self.consumed);
                // A victim that has ended the lane does not hear it.
                let _ = stream.send(&[say::BELL]);
                return Ok(Some(frame));
            }
            // What was written before the end is there.
            ended?;
            if Instant::now() >= until {
                return Ok(None);
            }
            ended = stream.take(1, Duration::from_millis(1));
        }
    }

    /// A frame, if one is there; the victim is not told that it was read.
    pub(crate) fn read(&mut self) -> Result<Option<(FrameHeader, Vec<u8>)>> {
        let end = loop {
            if self.theirs(Self::PRODUCED)? == self.consumed {
                return Ok(None);
            }
            let first = self.theirs(Self::PAGE + self.consumed as usize % Self::RING)?;
            let end = self.consumed + (first & LOWER);
            // What is said of pools is nothing to an attacker, who reads all memory alike.
            if first <= LOWER {
                break end;
            }
            self.consumed = end;
        };
        let mut bytes = Vec::new();
        for at in self.consumed + 1..end {
            let word = self.theirs(Self::PAGE + at as usize % Self::RING)?;
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        let header = bytes.first_chunk().ok_or(Gone::Silent("a header"))?;
        let header = FrameHeader::decode(header)?;
        let mut payload = Vec::new();
        let sources = bytes.get(FRAME_HEADER_LEN + header.table_len()..).unwrap_or_default();
        let (words, _) = sources.as_chunks();
        let (pairs, _) = words.as_chunks();
        for [address, len] in pairs.iter().map(|pair| pair.map(u64::from_ne_bytes)) {
            let from = payload.len();
            payload.resize(from + (len & LOWER) as usize, 0);
            self.memory.read_exact_at(&mut payload[from..], address)?;
        }
        self.consumed = end;
        Ok(Some((header, payload)))
    }

    fn theirs(&self, word: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        self.theirs.read_exact_at(&mut bytes, 8 * word as u64)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn await_room(&mut self, stream: &mut Stream, words: u64) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let read = self.theirs(Self::CONSUMED)?;
            while self.kept.pop_front_if(|(end, _)| *end <= read).is_some() {}
            if self.produced + words <= read + Self::RING as u64 {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Gone::Full);
            }
            stream.take(1, Duration::from_millis(1))?;
        }
    }
}

/// The lower half of a word: above it stand the kind of a message, and a source's pool.
const LOWER: u64 = u32::MAX as u64;

/// Answers the challenge of a greeting, as the dialer that the attacker is.
pub(crate) fn put_answer(ring: &ForgedRing, key: &LaneKey, theirs: &Greeting) {
    let answer = key.answer(b"kvx 1 shm", true, &theirs.challenge);
    let (words, _) = answer.as_chunks();
    for (place, word) in ring.words()[Rings::ANSWER..].iter().zip(&words[..2]) {
        place.store(u64::from_ne_bytes(*word), Ordering::SeqCst);
    }
}

/// A message of this frame, with its payload at these addresses, so many bytes each.
pub(crate) fn message(frame: &Frame, sources: &[(u64, u64)]) -> Vec<u64> {
    let head = Frame { payload: Vec::new(), ..frame.clone() }.bytes();
    let (head, _) = head.as_chunks();
    let mut words = vec![0];
    words.extend(head.iter().map(|word| u64::from_ne_bytes(*word)));
    words.extend(sources.iter().flat_map(|(address, len)| [*address, *len]));
    words[0] = words.len() as u64;
    words
}

/// Waits for a byte, which must be this one.
fn hear(stream: &mut Stream, byte: u8) -> Result<()> {
    match stream.take(1, PATIENCE)?.as_deref() {
        Some([said]) if *said == byte => Ok(()),
        Some([say::REFUSED]) => Err(Gone::Lacks("a victim that reaches its memory")),
        _ => Err(Gone::Silent("a word of a lane that is set up")),
    }
}
