//! The CPUs that this process may use: by affinity, and by the quota of its control group.

use super::cgroup::{Controller, Group, Version};
use super::files::{Files, parsed};
use super::finding::Finding;
use super::numbers::list_len;
use super::status::Status;

/// `io_threads` are those of an engine, if the configuration tells.
pub(super) fn findings(
    files: &dyn Files,
    status: &Status,
    io_threads: Option<u64>,
) -> Vec<Finding> {
    vec![affinity(files, status, io_threads), quota(files)]
}

fn affinity(files: &dyn Files, status: &Status, io_threads: Option<u64>) -> Finding {
    const NAME: &str = "affinity";
    let allowed = match &status.cpus_allowed {
        Ok(allowed) => *allowed,
        Err(why) => return Finding::unknown(NAME, why),
    };
    let found = match parsed(files, "/sys/devices/system/cpu/online", list_len) {
        Ok(online) => format!("{allowed} of {online} CPUs"),
        Err(_) => cpus(allowed),
    };
    let Some(threads) = io_threads.filter(|threads| *threads > allowed) else {
        return Finding::ok(NAME, found);
    };
    let advice = "Lower KVX_IO_THREADS to the CPUs that are allowed, or allow more (taskset, \
                  --cpuset-cpus for docker run).";
    Finding::note(NAME, format!("{found} for {threads} I/O threads"), advice)
}

fn cpus(count: u64) -> String {
    if count == 1 { "1 CPU".to_owned() } else { format!("{count} CPUs") }
}

fn quota(files: &dyn Files) -> Finding {
    const NAME: &str = "CPU quota";
    let quotas = Group::find(files, Controller::Cpu).and_then(|group| {
        let version = group.version;
        let file = match version {
            Version::V1 => "cpu.cfs_quota_us",
            Version::V2 => "cpu.max",
        };
        group.limits(files, file, |directory| directory_quota(files, version, directory))
    });
    let tightest = match quotas {
        Ok(quotas) => quotas.into_iter().min_by(f64::total_cmp),
        Err(why) => return Finding::unknown(NAME, why),
    };
    let Some(cpus) = tightest else { return Finding::ok(NAME, "none by control groups") };
    let found = format!("{cpus:.2} CPUs' time by the control group");
    if cpus >= 1.0 {
        return Finding::ok(NAME, found);
    }
    let found = format!("{found}: once it is used up, threads stand still until the next period");
    let advice = "Give the worker a CPU or more: --cpus for docker run, resources.limits.cpu in a \
                  pod, CPUQuota= in a systemd unit.";
    Finding::warning(NAME, found, advice)
}

/// How many CPUs' time one directory allows, if it says.
fn directory_quota(
    files: &dyn Files,
    version: Version,
    directory: &str,
) -> Result<Option<f64>, String> {
    match version {
        Version::V2 => parsed(files, &format!("{directory}/cpu.max"), quota_v2),
        Version::V1 => {
            let read = |file: &str| {
                parsed(files, &format!("{directory}/{file}"), |text| {
                    text.trim().parse::<i64>().ok()
                })
            };
            Ok(ratio(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?))
        }
    }
}

/// What a text such as `150000 100000` or `max 100000` allows.
fn quota_v2(text: &str) -> Option<Option<f64>> {
    let (quota, period) = text.trim().split_once(' ')?;
    match quota {
        "max" => Some(None),
        quota => ratio(quota.parse().ok()?, period.parse().ok()?).map(Some),
    }
}

/// `None` for a quota of -1, which is none.
fn ratio(quota: i64, period: i64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::machines::{CONTAINER, Machine, NOTHING, ROOT_BOX};
    use super::*;

    #[test]
    fn a_root_box_has_all_cpus_and_a_container_a_quota() {
        let found = |files: &dyn Files| {
            let findings = findings(files, &Status::read(files), Some(2)).into_iter();
            findings.map(|finding| (finding.state(), finding.found)).collect::<Vec<_>>()
        };
        let ok = |found: &str| (State::Ok, found.to_owned());
        assert_eq!(found(&ROOT_BOX), [ok("2 of 2 CPUs"), ok("none by control groups")]);
        let container = found(&CONTAINER);
        assert_eq!(container[0], ok("12 of 64 CPUs"));
        assert_eq!(container[1], ok("2.50 CPUs' time by the control group"));
        assert!(found(&NOTHING).iter().all(|(_, found)| found.starts_with("unknown: ")));
    }

    #[test]
    fn more_threads_than_cpus_are_noted() {
        let finding = affinity(&ROOT_BOX, &Status::read(&ROOT_BOX), Some(16));
        assert_eq!(finding.state(), State::Note);
        assert_eq!(finding.found, "2 of 2 CPUs for 16 I/O threads");
    }

    #[test]
    fn of_quotas_above_each_other_the_tightest_holds() {
        let machine = Machine(&[
            ("/proc/self/cgroup", "3:cpuacct,cpu:/a\n"),
            ("/proc/self/mountinfo", "1 0 0:1 / /g rw - cgroup cgroup rw,cpu,cpuacct\n"),
            ("/g/a/cpu.cfs_quota_us", "-1\n"),
            ("/g/a/cpu.cfs_period_us", "100000\n"),
            ("/g/cpu.cfs_quota_us", "50000\n"),
            ("/g/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota(&machine).state(), State::Warning);
        assert!(quota(&machine).found.starts_with("0.50 CPUs' time"));
    }

    #[test]
    fn odd_quotas_make_no_sense() {
        assert_eq!(quota_v2("max 100000\n"), Some(None));
        for odd in ["", "max", "1", "x 1", "1 x", "1 0", "-1 100000"] {
            assert_eq!(quota_v2(odd), None, "{odd:?}");
        }
    }
}
