//! One pool: memory that its engine allocates, or ordinary memory of this command's own. Not what
//! is in it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clap::ValueEnum;
use kvx::error::Invalid;
use kvx::transport::{HostSpan, LocalSpan, MemoryKind, MemoryProvider};
use kvx::{Buffer, Engine, Region, Rights};

use super::super::Problem;

/// Who allocates the memory of a row, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum Owner {
    /// The engine: transports that share memory may map it
    Engine,
    /// The caller, as most serving engines do: anonymous memory that is registered as it is
    Caller,
}

impl Owner {
    /// How users write it.
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Caller => "caller",
        }
    }
}

/// Memory of a region.
#[derive(Clone, Debug)]
pub(super) enum Pool {
    Engine(Buffer),
    Caller(Arc<OwnPool>),
}

impl Pool {
    /// Allocates and registers so many pools of `len` bytes, of which every page is there.
    pub(super) fn allocate(
        engine: &Engine,
        owner: Owner,
        (count, len): (u32, u64),
        rights: Rights,
    ) -> Result<(Vec<Self>, Vec<Region>), Problem> {
        let mut pools = Vec::new();
        match owner {
            Owner::Engine => {
                for _ in 0..count {
                    let (buffer, region) = engine.allocate(len, rights)?;
                    pools.push((Self::Engine(buffer), region));
                }
            }
            Owner::Caller => {
                for pool in OwnPool::allocate(count, len)? {
                    let region = engine.register_provider(Arc::clone(&pool) as _, rights)?;
                    pools.push((Self::Caller(pool), region));
                }
            }
        }
        Ok(pools.into_iter().unzip())
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Engine(buffer) => buffer.len(),
            Self::Caller(own) => own.len,
        }
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Invalid> {
        match self {
            Self::Engine(buffer) => buffer.write(offset, bytes),
            Self::Caller(own) => own.write(offset, bytes),
        }
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Invalid> {
        match self {
            Self::Engine(buffer) => buffer.read(offset, bytes),
            Self::Caller(own) => own.read(offset, bytes),
        }
    }
}

const WORD: usize = size_of::<u64>();

/// Words of a page.
const PAGE_WORDS: usize = 512;

/// Bytes of a page.
const PAGE: u64 = (PAGE_WORDS * WORD) as u64;

/// Atomics, because transfers read and write registered memory while it is borrowed.
#[derive(Debug)]
#[repr(C, align(4096))]
struct Page([AtomicU64; PAGE_WORDS]);

/// A part of this command's own memory. It is neither moved nor freed as long as a region has it.
#[derive(Debug)]
pub(super) struct OwnPool {
    /// All pools, one after another: one allocation, as the bare loops have one, so that both lie
    /// on pages of the same kind.
    all: Arc<Vec<Page>>,
    /// The first page of this pool.
    first: usize,
    /// Bytes, which lie in `all`; at least 1.
    len: u64,
}

impl OwnPool {
    /// So many pools of `len` bytes, each from the beginning of a page on; all zero, and touched.
    fn allocate(count: u32, len: u64) -> io::Result<Vec<Arc<Self>>> {
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let pages = usize::try_from(len.div_ceil(PAGE)).map_err(|_| too_much())?;
        let whole = pages.checked_mul(count as usize).ok_or_else(too_much)?;
        let mut all = Vec::new();
        all.try_reserve_exact(whole)?;
        all.resize_with(whole, || Page([const { AtomicU64::new(0) }; PAGE_WORDS]));
        let all = Arc::new(all);
        let pool = |index| Self { all: Arc::clone(&all), first: index * pages, len };
        Ok((0..count as usize).map(|index| Arc::new(pool(index))).collect())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Invalid> {
        let mut at = self.range(offset, bytes.len())?;
        let (head, bytes) = bytes.split_at(head(at, bytes.len()));
        let (words, tail) = bytes.as_chunks::<WORD>();
        self.merge(at, head);
        at += head.len();
        for word in words {
            self.word(at).store(u64::from_ne_bytes(*word), Relaxed);
            at += WORD;
        }
        self.merge(at, tail);
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Invalid> {
        let mut at = self.range(offset, bytes.len())?;
        let (head, bytes) = bytes.split_at_mut(head(at, bytes.len()));
        let (words, tail) = bytes.as_chunks_mut::<WORD>();
        self.part(at, head);
        at += head.len();
        for word in words {
            *word = self.word(at).load(Relaxed).to_ne_bytes();
            at += WORD;
        }
        self.part(at, tail);
        Ok(())
    }

    /// `offset` as an index, if the range lies inside.
    fn range(&self, offset: u64, len: usize) -> Result<usize, Invalid> {
        let (len, region_len) = (len as u64, self.len);
        match offset.checked_add(len) {
            // The memory is there, so that its length is a usize.
            Some(end) if end <= region_len => Ok(offset as usize),
            _ => Err(Invalid::OutOfBounds { index: 0, offset, len, region_len }),
        }
    }

    /// Replaces bytes of one word, and leaves the others as they are.
    fn merge(&self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let skip = at % WORD;
        let merged = |word: u64| {
            let mut word = word.to_ne_bytes();
            word[skip..skip + bytes.len()].copy_from_slice(bytes);
            Some(u64::from_ne_bytes(word))
        };
        // It always has a new value to store.
        let _ = self.word(at).fetch_update(Relaxed, Relaxed, merged);
    }

    /// Reads bytes of one word.
    fn part(&self, at: usize, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let (skip, word) = (at % WORD, self.word(at).load(Relaxed).to_ne_bytes());
        bytes.copy_from_slice(&word[skip..skip + bytes.len()]);
    }

    /// The word that this byte is in.
    fn word(&self, at: usize) -> &AtomicU64 {
        let word = at / WORD;
        &self.all[self.first + word / PAGE_WORDS].0[word % PAGE_WORDS]
    }
}

/// Bytes of the range before its first whole word.
fn head(at: usize, len: usize) -> usize {
    (at.wrapping_neg() % WORD).min(len)
}

impl MemoryProvider for OwnPool {
    fn kind(&self) -> MemoryKind {
        MemoryKind::Host
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn base(&self) -> u64 {
        self.all[self.first..].as_ptr().expose_provenance() as u64
    }

    fn host(&self, span: LocalSpan) -> Option<HostSpan> {
        let len = u64::from(span.len);
        let end = span.offset.checked_add(len)?;
        (end <= self.len).then(|| HostSpan { address: self.base() + span.offset, len })
    }
}
