//! Machines for tests: what their files say. The texts are in the kernel's own formats, shortened and
//! put together for what each machine stands for; none is a copy of a single machine's.

use super::files::Files;

/// Paths, and what their files hold or their links say. Directories are there by what lies in them.
#[derive(Debug)]
pub(super) struct Machine(pub(super) &'static [(&'static str, &'static str)]);

impl Machine {
    fn get(&self, path: &str) -> Result<String, String> {
        let found = self.0.iter().find(|(name, _)| *name == path);
        let none = || format!("read {path}: No such file or directory (os error 2)");
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(none)
    }
}

impl Files for Machine {
    fn read(&self, path: &str) -> Result<String, String> {
        self.get(path)
    }

    fn link(&self, path: &str) -> Result<String, String> {
        self.get(path)
    }

    fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let below =
            self.0.iter().filter_map(|(name, _)| name.strip_prefix(path)?.strip_prefix('/'));
        let mut names: Vec<_> =
            below.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        if names.is_empty() { self.get(path).map(|_| names) } else { Ok(names) }
    }

    fn exists(&self, path: &str) -> bool {
        self.get(path).is_ok() || self.names(path).is_ok()
    }
}

/// A machine without /proc and /sys.
pub(super) const NOTHING: Machine = Machine(&[]);

/// Root on a virtual machine: no limits, control groups of version 1, no Yama.
pub(super) const ROOT_BOX: Machine = Machine(&[
    (
        "/proc/self/limits",
        "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max open files            1048576              1048576              files     
Max locked memory         unlimited            unlimited            bytes     
Max address space         unlimited            unlimited            bytes     
",
    ),
    (
        "/proc/self/status",
        "\
Name:\tkvx
Umask:\t0022
State:\tR (running)
Uid:\t0\t0\t0\t0
NSpid:\t13435
CapInh:\t0000000000000000
CapPrm:\t000001ffffffffff
CapEff:\t000001ffffffffff
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t0
Seccomp:\t0
Seccomp_filters:\t0
Cpus_allowed:\t3
Cpus_allowed_list:\t0-1
Mems_allowed_list:\t0
",
    ),
    ("/proc/self/ns/pid", "pid:[4026531836]"),
    ("/proc/self/ns/ipc", "ipc:[4026531839]"),
    ("/proc/self/ns/net", "net:[4026531833]"),
    ("/proc/self/ns/user", "user:[4026531837]"),
    ("/proc/sys/kernel/random/boot_id", "2f5cbb9e-7f29-4c0b-9b3e-7a0ad0b6a6f4\n"),
    (
        "/proc/self/cgroup",
        "\
9:name=systemd:/
4:memory:/jobs/7
3:cpuset:/
1:cpu,cpuacct:/
0::/
",
    ),
    (
        "/proc/self/mountinfo",
        "\
22 21 0:20 / /proc rw,relatime - proc proc rw
25 24 0:23 / /dev/shm rw,nosuid,nodev - tmpfs tmpfs rw,inode64
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
",
    ),
    ("/sys/fs/cgroup/cpu,cpuacct/cpu.shares", "1024\n"),
    ("/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "9223372036854771712\n"),
    ("/sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes", "73314304\n"),
    ("/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "9223372036854771712\n"),
    ("/proc/meminfo", "MemTotal:       24684092 kB\nMemFree:  1 kB\nMemAvailable:   21912072 kB\n"),
    ("/sys/devices/system/cpu/online", "0-1\n"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    (
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size advise [never] deny force\n",
    ),
    ("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n"),
    ("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0\n"),
    ("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n"),
    ("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "12\n"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
    ("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("/proc/sys/net/core/rmem_max", "4194304\n"),
    ("/proc/sys/net/core/wmem_max", "4194304\n"),
]);

/// A user in a container: Yama's scope 1, a seccomp filter, 64 KiB to lock, 1,024 files, namespaces
/// of its own, and limits of a control group of version 2.
pub(super) const CONTAINER: Machine = Machine(&[
    (
        "/proc/self/limits",
        "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max open files            1024                 524288               files     
Max locked memory         65536                65536                bytes     
",
    ),
    (
        "/proc/self/status",
        "\
Name:\tkvx
Uid:\t1000\t1000\t1000\t1000
NSpid:\t17
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t00000000a80425fb
NoNewPrivs:\t0
Seccomp:\t2
Seccomp_filters:\t1
Cpus_allowed:\t00000000,00000fff
Cpus_allowed_list:\t0-7,16-19
",
    ),
    ("/proc/self/ns/pid", "pid:[4026532741]"),
    ("/proc/self/ns/ipc", "ipc:[4026532740]"),
    ("/proc/self/ns/net", "net:[4026532743]"),
    ("/proc/self/ns/user", "user:[4026532620]"),
    ("/proc/sys/kernel/random/boot_id", "0ae5b0a4-6d0a-4b8c-8f3b-8b0a52a3a7de\n"),
    ("/proc/sys/kernel/yama/ptrace_scope", "1\n"),
    ("/proc/self/cgroup", "0::/\n"),
    (
        "/proc/self/mountinfo",
        "\
741 740 0:65 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
742 741 0:30 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
744 738 0:66 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k,inode64
",
    ),
    ("/sys/fs/cgroup/memory.max", "2147483648\n"),
    ("/sys/fs/cgroup/memory.current", "2147483648\n"),
    (
        "/sys/fs/cgroup/memory.stat",
        "\
anon 1342177280
file 805306368
inactive_anon 4096
active_file 268435456
inactive_file 536870912
",
    ),
    ("/sys/fs/cgroup/cpu.max", "250000 100000\n"),
    ("/proc/meminfo", "MemTotal:  263856084 kB\nMemAvailable:  201326592 kB\n"),
    ("/sys/devices/system/cpu/online", "0-63\n"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
    ("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n"),
    ("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t1048576\n"),
    ("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
]);
