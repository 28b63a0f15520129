//! Regions without memory, for benchmarks that never touch a byte.

use std::sync::Arc;

use kvx_core::region::{Region, RegionKey, Registry, Rights};
use kvx_core::transport::{HostMemory, MemoryProvider};

/// Bytes from one region to the next.
const STEP: u64 = 1 << 31;

/// Memory number `index`: addresses that nobody follows.
pub(crate) fn memory(index: u64) -> Arc<dyn MemoryProvider> {
    let base = (index + 1) * STEP;
    Arc::new(HostMemory::new(base, STEP / 2).expect("memory with bytes"))
}

/// Registers memory number `index`.
pub(crate) fn register(registry: &Registry, index: u64) -> Arc<Region> {
    let key = RegionKey::new([index as u8; 16]);
    registry.register(memory(index), Rights::all(), key).expect("room for a region")
}
