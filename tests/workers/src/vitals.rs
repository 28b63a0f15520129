//! What a process holds, as the kernel sees it: looked at from outside, so that a process that has
//! run out of something can be asked too.

use std::fs;

use rustix::process::Pid;

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Memory that is resident, in KiB.
    pub resident_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Address space, in KiB.
    pub mapped_kib: u64,
    /// Private writable memory, in KiB: what RLIMIT_DATA limits.
    pub data_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Rings of lanes of the same host that are mapped, its own and others'.
    pub rings: u64,
}

impl Vitals {
    /// `None` once the process is gone.
    pub fn of(pid: Pid) -> Option<Self> {
        let directory = format!("/proc/{}", pid.as_raw_nonzero());
        let status = fs::read_to_string(format!("{directory}/status")).ok()?;
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let maps = fs::read_to_string(format!("{directory}/maps")).ok()?;
        Some(Self {
            resident_kib: field("VmRSS:")?,
            mapped_kib: field("VmSize:")?,
            data_kib: field("VmData:")?,
            descriptors: fs::read_dir(format!("{directory}/fd")).ok()?.count() as u64,
            threads: field("Threads:")?,
            rings: maps.lines().filter(|line| line.contains("memfd:kvx-ring")).count() as u64,
        })
    }
}

/// What the threads of one name have done since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Processor time, in clock ticks of 10 ms.
    pub ticks: u64,
    /// How often they went to sleep by themselves.
    pub sleeps: u64,
}

impl Work {
    /// Of the threads with this name, which is cut off after 15 bytes (prctl(2), PR_SET_NAME).
    pub fn of(pid: Pid, name: &str) -> Self {
        let mut work = Self::default();
        let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            if read("comm").trim_end() != name {
                continue;
            }
            // proc_pid_stat(5): the name may hold anything; utime and stime are the 12th and 13th
            // fields after it.
            let stat = read("stat");
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            let times = fields.split_whitespace().skip(11).take(2);
            work.ticks += times.map(|time| time.parse::<u64>().unwrap_or(0)).sum::<u64>();
            let status = read("status");
            let sleeps = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            work.sleeps += sleeps.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        }
        work
    }
}
