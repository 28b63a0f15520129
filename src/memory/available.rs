//! How much memory can be had without the kernel killing a process for it. An estimate for
//! refusing early, not a reservation.
//!
//! With overcommit, as Linux is run nearly everywhere, `fallocate` on a memfd that is too large
//! does not fail: it takes page after page until the OOM killer ends a process, usually the one
//! that asked. So the question has to be asked before, of the machine and of the control groups.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that may be allocated now: what the machine can free without swapping, or what the
/// process's control groups (version 2) leave, whichever is less. `u64::MAX` where neither says.
pub(super) fn available() -> u64 {
    let machine =
        fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_available(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_path(&text));
    let groups = groups.and_then(|path| groups_available(&path));
    machine.into_iter().chain(groups).min().unwrap_or(u64::MAX)
}

fn machine_available(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemAvailable:")?.strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The directory of the process's group, from `/proc/self/cgroup`. Inside a container with a
/// group namespace it is the root, where the container's own limits are.
fn group_path(cgroup: &str) -> Option<PathBuf> {
    let path = field(cgroup, "0::")?.trim_start_matches('/');
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// The least that the group and those above it leave.
fn groups_available(group: &Path) -> Option<u64> {
    let groups = group.ancestors().take_while(|path| path.starts_with("/sys/fs/cgroup"));
    let limits = groups.filter_map(|path| {
        let read = |file: &str| fs::read_to_string(path.join(file)).ok();
        group_available(&read("memory.max")?, &read("memory.current")?, &read("memory.stat")?)
    });
    limits.min()
}

/// The limit, less what is used, but for the page cache, which the kernel drops first. `None`
/// where there is no limit (`max`).
fn group_available(max: &str, current: &str, stat: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let cache = |name| field(stat, name).and_then(|bytes| bytes.parse().ok()).unwrap_or(0_u64);
    let cached = cache("inactive_file ").saturating_add(cache("active_file "));
    Some(max.saturating_sub(current.saturating_sub(cached)))
}

/// What follows `name` on the line that begins with it.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_what_it_has() {
        let text = "MemTotal:       24684092 kB\nMemAvailable:   100 kB\n";
        assert_eq!(machine_available(text), Some(102_400));
        assert_eq!(machine_available("MemAvailable: lots"), None);
        let available = available();
        assert!(available > 1 << 20 && available < 1 << 50, "{available}");
    }

    #[test]
    fn a_control_group_leaves_its_limit_less_what_cannot_be_dropped() {
        let stat = "anon 70\ninactive_anon 5\nactive_file 10\ninactive_file 20\n";
        assert_eq!(group_available("150\n", "100\n", stat), Some(80));
        assert_eq!(group_available("50\n", "100\n", "anon 100\n"), Some(0));
        assert_eq!(group_available("max\n", "100\n", stat), None);
    }

    #[test]
    fn the_own_group_is_found_beside_those_of_version_1() {
        let text = "4:memory:/old\n0::/user.slice/a.service\n";
        assert_eq!(group_path(text), Some("/sys/fs/cgroup/user.slice/a.service".into()));
        assert_eq!(group_path("0::/\n"), Some("/sys/fs/cgroup/".into()));
        assert_eq!(group_path("4:memory:/old\n"), None);
    }
}
