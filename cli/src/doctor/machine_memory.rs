//! How much memory there is: the machine's, and what its control group leaves the process.

use super::cgroup::{Controller, Group, Version};
use super::files::{Files, parsed};
use super::finding::Finding;
use super::numbers::{field, number};
use crate::text::bytes_text;

/// Hardly a KV pool fits in less.
const LITTLE: u64 = 1 << 30;

/// What version 1 says where there is no limit: the largest number of whole pages, of any size.
const NO_LIMIT_V1: u64 = 1 << 62;

pub(super) fn findings(files: &dyn Files) -> Vec<Finding> {
    vec![machine(files), group(files)]
}

fn machine(files: &dyn Files) -> Finding {
    const NAME: &str = "memory";
    let kib = |name: &'static str| {
        move |text: &str| {
            field(text, name)?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        }
    };
    let read = |name| parsed(files, "/proc/meminfo", kib(name));
    match (read("MemTotal:"), read("MemAvailable:")) {
        (Ok(all), Ok(free)) => {
            let found = format!("{}, {} available", bytes_text(all), bytes_text(free));
            if free >= LITTLE {
                return Finding::ok(NAME, found);
            }
            let advice = "End what else uses memory on this host, or take a larger one.";
            Finding::warning(NAME, found, advice)
        }
        (Err(why), _) | (_, Err(why)) => Finding::unknown(NAME, why),
    }
}

/// A limit of a group, and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    max: u64,
    /// But for the page cache, which the kernel drops first.
    used: u64,
}

impl Limit {
    fn left(self) -> u64 {
        self.max.saturating_sub(self.used)
    }
}

fn group(files: &dyn Files) -> Finding {
    const NAME: &str = "memory limit";
    let limits = Group::find(files, Controller::Memory).and_then(|group| {
        let version = group.version;
        group.limits(files, max_file(version), |directory| limit(files, version, directory))
    });
    let tightest = match limits {
        Ok(limits) => limits.into_iter().min_by_key(|limit| limit.left()),
        Err(why) => return Finding::unknown(NAME, why),
    };
    let Some(limit) = tightest else { return Finding::ok(NAME, "none by control groups") };
    let [max, used, left] = [limit.max, limit.used, limit.left()].map(bytes_text);
    let found = format!("{max} by the control group, {used} used, {left} left");
    if limit.left() >= LITTLE {
        return Finding::ok(NAME, found);
    }
    let advice = "Raise the limit before the worker starts: --memory for docker run, \
                  resources.limits.memory in a pod, MemoryMax= in a systemd unit.";
    Finding::warning(NAME, found, advice)
}

/// The file that holds a group's limit.
const fn max_file(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "memory.max",
    }
}

/// The limit of one directory, if it has one.
fn limit(files: &dyn Files, version: Version, directory: &str) -> Result<Option<Limit>, String> {
    let path = |file| format!("{directory}/{file}");
    let Some(max) = parsed(files, &path(max_file(version)), max)? else { return Ok(None) };
    let (used, cache) = match version {
        Version::V1 => ("memory.usage_in_bytes", ["total_inactive_file ", "total_active_file "]),
        Version::V2 => ("memory.current", ["inactive_file ", "active_file "]),
    };
    let used = parsed(files, &path(used), number)?;
    // Without it the cache counts as used.
    let stat = files.read(&path("memory.stat")).unwrap_or_default();
    let cached = cache.into_iter().filter_map(|name| field(&stat, name)?.parse().ok());
    let used = used.saturating_sub(cached.fold(0, u64::saturating_add));
    Ok(Some(Limit { max, used }))
}

/// A number, or that there is none.
fn max(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "max" => Some(None),
        text => number(text).map(|max| Some(max).filter(|max| *max < NO_LIMIT_V1)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::machines::{CONTAINER, Machine, NOTHING, ROOT_BOX};
    use super::*;

    #[test]
    fn the_machine_tells_what_it_has() {
        assert_eq!(machine(&ROOT_BOX).found, "23.5 GiB, 20.9 GiB available");
        assert!(machine(&NOTHING).found.starts_with("unknown: "));
    }

    #[test]
    fn a_group_without_a_limit_has_none() {
        assert_eq!(group(&ROOT_BOX), Finding::ok("memory limit", "none by control groups"));
    }

    #[test]
    fn the_page_cache_is_not_counted_as_used() {
        let finding = group(&CONTAINER);
        assert_eq!(finding.found, "2.0 GiB by the control group, 1.2 GiB used, 768.0 MiB left");
        assert_eq!(finding.state(), State::Warning);
    }

    #[test]
    fn of_limits_above_each_other_the_tightest_is_told() {
        let machine = Machine(&[
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/proc/self/mountinfo", "1 0 0:1 / /g rw - cgroup2 cgroup2 rw\n"),
            ("/g/a/b/cgroup.procs", "1\n"),
            ("/g/a/memory.max", "8589934592\n"),
            ("/g/a/memory.current", "1073741824\n"),
        ]);
        assert_eq!(
            group(&machine).found,
            "8.0 GiB by the control group, 1.0 GiB used, 7.0 GiB left"
        );
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_unknown() {
        let machine = Machine(&[
            ("/proc/self/cgroup", "0::/a\n"),
            ("/proc/self/mountinfo", "1 0 0:1 / /g rw - cgroup2 cgroup2 rw\n"),
            ("/g/a/memory.max", "lots\n"),
        ]);
        assert_eq!(group(&machine).found, "unknown: /g/a/memory.max says \"lots\\n\"");
        assert!(group(&NOTHING).found.starts_with("unknown: "));
    }
}
