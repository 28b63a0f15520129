//! How much memory the machine has left. Not whether an engine will allocate it: that looks itself.

use std::fs;

/// What the machine can free without swapping. A control group's tighter limit is seen by the
/// engines, which refuse to allocate beyond it.
pub(crate) fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
