//! Whether processes of this host may read each other's memory (process_vm_readv(2)) and share
//! their own (pidfd_getfd(2)), and if not, what refuses it. Only the transport shm needs that.

use std::fmt;

use nix::errno::Errno;
use rustix::process::{DumpableBehavior, dumpable_behavior};

use super::files::{Files, parsed};
use super::finding::Finding;
use super::numbers::number;
use super::probe::{self, Outcomes};
use super::status::{Capability, Status};

const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Whom Yama lets look into a process besides root
/// (Documentation/admin-guide/LSM/Yama.rst).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// Yama is not there.
    Absent,
    /// 0: whom ptrace(2) lets, any process of the same user.
    Classic,
    /// 1: its ancestors, and whom it names.
    Restricted,
    /// 2: who has CAP_SYS_PTRACE.
    Admin,
    /// 3: nobody.
    Nobody,
    /// Why it is not known.
    Unknown(String),
}

impl Scope {
    fn read(files: &dyn Files) -> Self {
        if !files.exists(YAMA) && files.exists("/proc/sys/kernel") {
            return Self::Absent;
        }
        parsed(files, YAMA, Self::parse).unwrap_or_else(Self::Unknown)
    }

    fn parse(text: &str) -> Option<Self> {
        match number(text)? {
            0 => Some(Self::Classic),
            1 => Some(Self::Restricted),
            2 => Some(Self::Admin),
            3 => Some(Self::Nobody),
            _ => None,
        }
    }
}

pub(super) fn findings(files: &dyn Files, status: &Status) -> Vec<Finding> {
    let scope = Scope::read(files);
    let mut findings = vec![yama(&scope, status)];
    match probe::attempt() {
        Ok(outcomes) => {
            let dumpable = dumpable_behavior();
            let is_dumpable = dumpable.map_or(true, |is| is == DumpableBehavior::Dumpable);
            findings.push(reading(outcomes, &scope, status, is_dumpable));
            findings.push(taking(outcomes, status));
            findings.push(together(outcomes));
        }
        Err(why) => {
            findings.extend([READING, TAKING, TOGETHER].map(|name| Finding::unknown(name, &why)));
        }
    }
    findings
}

/// A note that processes cannot read each other, and what lets them.
fn cannot_read(name: &'static str, found: impl Into<String>, remedy: &str) -> Finding {
    let advice = "TCP does without; to let processes of one host share memory, ";
    Finding::note(name, found, advice.to_owned() + remedy)
}

const LOWER_SCOPE: &str = "set the host's scope to 1 (sysctl kernel.yama.ptrace_scope=1), or give \
                           the workers CAP_SYS_PTRACE.";

const BOOT_WITHOUT: &str = "boot the host without kernel.yama.ptrace_scope=3, which holds until \
                            then.";

fn yama(scope: &Scope, status: &Status) -> Finding {
    const NAME: &str = "yama";
    match scope {
        Scope::Absent => Finding::ok(NAME, "not there: ptrace(2) alone decides who reads whom"),
        Scope::Classic => Finding::ok(NAME, "scope 0: processes of one user may read each other"),
        Scope::Restricted => {
            let found = "scope 1: a process is read by those that it names itself, as kvx does";
            Finding::ok(NAME, found)
        }
        Scope::Admin if status.has(Capability::SysPtrace) == Ok(true) => {
            Finding::ok(NAME, "scope 2: CAP_SYS_PTRACE is needed to read others, and is there")
        }
        Scope::Admin => {
            let found = "scope 2: CAP_SYS_PTRACE is needed to read others, and is not there";
            cannot_read(NAME, found, LOWER_SCOPE)
        }
        Scope::Nobody => cannot_read(NAME, "scope 3: no process may read another", BOOT_WITHOUT),
        Scope::Unknown(why) => Finding::unknown(NAME, why),
    }
}

const READING: &str = "process_vm_readv";

/// What the reads of the child mean.
fn reading(outcomes: Outcomes, scope: &Scope, status: &Status, is_dumpable: bool) -> Finding {
    let Outcomes { own, other, named, .. } = outcomes;
    let refused = |why: fmt::Arguments<'_>, remedy: &str| {
        cannot_read(READING, format!("refused: {why}"), remedy)
    };
    let errno = match (own, other, named) {
        (Ok(()), Ok(()), _) => {
            return Finding::ok(READING, "works: a child process has read this one's memory");
        }
        (Ok(()), Err(_), Ok(())) => {
            let found = "works for a process that the one to be read has named (PR_SET_PTRACER)";
            return Finding::ok(READING, found);
        }
        (Err(Errno::ENOSYS), ..) if status.is_filtered != Ok(true) => {
            let why = format_args!("the kernel does not have it (ENOSYS)");
            let remedy = "run a kernel that is built with CONFIG_CROSS_MEMORY_ATTACH.";
            return refused(why, remedy);
        }
        (Err(errno), ..) => {
            let cause = match status.is_filtered {
                Ok(true) => "a seccomp filter",
                _ => "the system",
            };
            let why =
                format_args!("{cause} forbids it even for a process's own memory ({errno:?})");
            let remedy = "allow process_vm_readv in the container's seccomp profile, or start \
                          it with --cap-add=SYS_PTRACE, for which Docker's own profile allows \
                          it.";
            return refused(why, remedy);
        }
        (Ok(()), Err(_), Err(errno)) => errno,
    };
    let capable = status.has(Capability::SysPtrace) == Ok(true);
    match scope {
        Scope::Nobody => {
            refused(format_args!("Yama's scope 3 forbids it to everyone ({errno:?})"), BOOT_WITHOUT)
        }
        Scope::Admin if !capable => {
            let why = format_args!("Yama's scope 2 asks for CAP_SYS_PTRACE ({errno:?})");
            refused(why, LOWER_SCOPE)
        }
        _ if !is_dumpable => {
            let why = format_args!("this process is not dumpable ({errno:?})");
            let remedy = "start the workers from a program that its user may read, without \
                          set-uid or file capabilities: the kernel closes processes that gained \
                          rights.";
            refused(why, remedy)
        }
        _ => {
            let why =
                format_args!("by ptrace(2)'s rules, even to a process that was named ({errno:?})");
            let remedy = "look for a security module (AppArmor, SELinux) that forbids ptrace, \
                          or give the workers CAP_SYS_PTRACE.";
            refused(why, remedy)
        }
    }
}

const TAKING: &str = "pidfd_getfd";

/// What it means that the child could take a descriptor, or could not.
fn taking(outcomes: Outcomes, status: &Status) -> Finding {
    let Outcomes { named, taken, .. } = outcomes;
    let Err(errno) = taken else {
        return Finding::ok(TAKING, "works: a child process has taken a descriptor of this one");
    };
    if named.is_err() && errno != Errno::ENOSYS {
        let remedy = format!("see {READING}: the same rules hold for both.");
        return cannot_read(TAKING, format!("refused ({errno:?}), as {READING} is"), &remedy);
    }
    if status.is_filtered == Ok(true) {
        let found = format!("refused: a seccomp filter forbids it, or pidfd_open ({errno:?})");
        let remedy = "allow pidfd_open and pidfd_getfd in the container's seccomp profile, or start \
                      it with --cap-add=SYS_PTRACE, for which Docker's own profile allows them.";
        return cannot_read(TAKING, found, remedy);
    }
    let found = format!("refused: the kernel does not have it, or forbids it ({errno:?})");
    cannot_read(TAKING, found, "run Linux 5.6 or later.")
}

const TOGETHER: &str = "shared memory";

/// What engines here will do.
fn together(outcomes: Outcomes) -> Finding {
    let Outcomes { named, taken, .. } = outcomes;
    if named.is_ok() && taken.is_ok() {
        let found = "engines of one user and one pid namespace move bytes by shm here; the log \
                     names peers for which it is ruled out, and why";
        return Finding::ok(TOGETHER, found);
    }
    let found = "engines here move bytes by TCP, though they are on one host";
    cannot_read(TOGETHER, found, "mend what is refused above.")
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::machines::{CONTAINER, NOTHING, ROOT_BOX};
    use super::*;

    const WORKS: Outcomes = Outcomes { own: Ok(()), other: Ok(()), named: Ok(()), taken: Ok(()) };
    const REFUSED: Outcomes = Outcomes {
        own: Ok(()),
        other: Err(Errno::EPERM),
        named: Err(Errno::EPERM),
        taken: Err(Errno::EPERM),
    };

    #[test]
    fn yama_is_absent_or_has_a_scope() {
        assert_eq!(Scope::read(&ROOT_BOX), Scope::Absent);
        assert_eq!(Scope::read(&CONTAINER), Scope::Restricted);
        assert!(matches!(Scope::read(&NOTHING), Scope::Unknown(_)));
        assert_eq!(
            (Scope::parse("3\n"), Scope::parse("4"), Scope::parse("")),
            (Some(Scope::Nobody), None, None)
        );
    }

    #[test]
    fn scope_2_is_ok_for_who_has_the_capability() {
        let (root, container) = (Status::read(&ROOT_BOX), Status::read(&CONTAINER));
        assert_eq!(yama(&Scope::Admin, &root).state(), State::Ok);
        assert_eq!(yama(&Scope::Admin, &container).state(), State::Note);
        assert_eq!(yama(&Scope::Nobody, &root).state(), State::Note);
    }

    #[test]
    fn under_scope_1_the_reader_must_be_named() {
        let container = Status::read(&CONTAINER);
        let found = |outcomes| reading(outcomes, &Scope::Restricted, &container, true);
        assert!(found(WORKS).found.starts_with("works: "));
        let named = found(Outcomes { named: Ok(()), ..REFUSED });
        assert_eq!(named.state(), State::Ok);
        assert!(named.found.contains("PR_SET_PTRACER"), "{named:?}");
    }

    #[test]
    fn a_descriptor_is_taken_or_something_refuses_it() {
        let (root, container) = (Status::read(&ROOT_BOX), Status::read(&CONTAINER));
        assert_eq!(taking(WORKS, &container).state(), State::Ok);
        let only = |errno| Outcomes { taken: Err(errno), ..WORKS };
        let cases = [
            (REFUSED, &container, "as process_vm_readv is"),
            (only(Errno::EPERM), &container, "seccomp filter"),
            (only(Errno::ENOSYS), &root, "kernel does not have it"),
        ];
        for (outcomes, status, expected) in cases {
            let finding = taking(outcomes, status);
            assert_eq!(finding.state(), State::Note, "{finding:?}");
            assert!(finding.found.contains(expected), "{expected}: {finding:?}");
        }
    }

    #[test]
    fn memory_is_shared_where_both_calls_work() {
        assert_eq!(together(WORKS).state(), State::Ok);
        let named = Outcomes { other: Err(Errno::EPERM), ..WORKS };
        assert_eq!(together(named).state(), State::Ok);
        for lacks in [REFUSED, Outcomes { taken: Err(Errno::ENOSYS), ..WORKS }] {
            assert!(together(lacks).found.contains("by TCP"), "{lacks:?}");
        }
    }

    #[test]
    fn what_refuses_is_named() {
        let (root, container) = (Status::read(&ROOT_BOX), Status::read(&CONTAINER));
        let no_call = Outcomes { own: Err(Errno::ENOSYS), ..REFUSED };
        let filtered = Outcomes { own: Err(Errno::EPERM), ..REFUSED };
        let cases = [
            (no_call, Scope::Absent, &root, true, "kernel does not have it"),
            (no_call, Scope::Absent, &container, true, "seccomp filter"),
            (filtered, Scope::Restricted, &container, true, "seccomp filter"),
            (filtered, Scope::Absent, &root, true, "the system forbids"),
            (REFUSED, Scope::Admin, &container, true, "scope 2"),
            (REFUSED, Scope::Nobody, &root, true, "scope 3"),
            (REFUSED, Scope::Restricted, &container, false, "not dumpable"),
            (REFUSED, Scope::Classic, &container, true, "ptrace(2)'s rules"),
        ];
        for (outcomes, scope, status, is_dumpable, expected) in cases {
            let finding = reading(outcomes, &scope, status, is_dumpable);
            assert_eq!(finding.state(), State::Note, "{finding:?}");
            assert!(finding.found.contains(expected), "{expected}: {finding:?}");
        }
    }
}
