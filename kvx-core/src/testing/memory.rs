//! The memory of a simulated engine: addresses that are not this process's, mapped to bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::transport::{HostMemory, LocalSpan, MemoryProvider};

/// Bytes between two segments that belong to none.
const GAP: u64 = 1 << 20;

/// An address space of disjoint segments. To touch anything else is a fault of the code under test
/// and panics.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By base address.
    segments: BTreeMap<u64, Vec<u8>>,
}

/// A segment of simulated memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first address.
    pub base: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Memory {
    /// A new segment of `len` bytes, each `fill`.
    pub fn allocate(&mut self, len: usize, fill: u8) -> Segment {
        let last = self.segments.last_key_value();
        let base = last.map_or(GAP, |(base, bytes)| base + bytes.len() as u64 + GAP);
        self.segments.insert(base, vec![fill; len]);
        Segment { base, len: len as u64 }
    }

    /// `len` bytes at `address`.
    ///
    /// # Panics
    /// They are not all in one segment.
    pub fn bytes(&self, address: u64, len: usize) -> &[u8] {
        let (base, bytes) = self.segments.range(..=address).next_back().expect("a wild address");
        let from = (address - base) as usize;
        bytes.get(from..from + len).expect("an access beyond a segment")
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// They are not all in one segment.
    pub fn bytes_mut(&mut self, address: u64, len: usize) -> &mut [u8] {
        let (base, bytes) =
            self.segments.range_mut(..=address).next_back().expect("a wild address");
        let from = (address - base) as usize;
        bytes.get_mut(from..from + len).expect("an access beyond a segment")
    }

    /// The bytes of a span of registered memory.
    ///
    /// # Panics
    /// The span does not lie in one segment.
    pub fn span(&self, memory: &dyn MemoryProvider, span: LocalSpan) -> &[u8] {
        let host = memory.host(span).expect("host memory");
        self.bytes(host.address, host.len as usize)
    }

    /// All segments, by base address.
    pub fn segments(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.segments.iter().map(|(base, bytes)| (*base, &bytes[..]))
    }
}

impl Segment {
    /// The segment as a provider, to be registered.
    ///
    /// # Panics
    /// It is empty.
    pub fn provider(self) -> Arc<dyn MemoryProvider> {
        Arc::new(HostMemory::new(self.base, self.len).expect("a segment with bytes"))
    }
}
