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
    /// Processor time used so far, in clock ticks of 10 ms.
    pub ticks: u64,
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
        let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
        // proc_pid_stat(5): the name may hold anything; utime and stime are the 12th and 13th
        // fields after it.
        let (_, fields) = stat.rsplit_once(')')?;
        let times = fields.split_whitespace().skip(11).take(2);
        Some(Self {
            resident_kib: field("VmRSS:")?,
            mapped_kib: field("VmSize:")?,
            data_kib: field("VmData:")?,
            descriptors: fs::read_dir(format!("{directory}/fd")).ok()?.count() as u64,
            threads: field("Threads:")?,
            ticks: times.map(|time| time.parse::<u64>().unwrap_or(0)).sum(),
        })
    }
}
