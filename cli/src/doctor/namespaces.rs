//! Which namespaces the process is in (namespaces(7)), and which boot of which host this is.
//!
//! Engines of one host reach each other's memory only if they can name each other's processes, and
//! they know that they are on one host by the boot id.

use super::files::{Files, parsed};
use super::finding::Finding;

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pid,
    Ipc,
    Net,
    User,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid namespace",
            Self::Ipc => "ipc namespace",
            Self::Net => "net namespace",
            Self::User => "user namespace",
        }
    }

    /// Its name in /proc/PID/ns.
    const fn file(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Net => "net",
            Self::User => "user",
        }
    }

    /// The inode number of the initial one (include/uapi/linux/nsfs.h; before that was made an
    /// interface, include/linux/proc_ns.h). That of the network's is fixed since Linux 6.18.
    const fn initial(self) -> u64 {
        match self {
            Self::Pid => 0xefff_fffc,
            Self::Ipc => 0xefff_ffff,
            Self::Net => 0xefff_fff9,
            Self::User => 0xefff_fffd,
        }
    }
}

pub(super) fn findings(files: &dyn Files) -> Vec<Finding> {
    let kinds = [Kind::Pid, Kind::Ipc, Kind::Net, Kind::User];
    let mut findings: Vec<_> = kinds.into_iter().map(|kind| finding(files, kind)).collect();
    findings.push(match parsed(files, "/proc/sys/kernel/random/boot_id", boot_id) {
        Ok(id) => Finding::ok("boot id", id),
        Err(why) => Finding::unknown("boot id", why),
    });
    findings
}

fn finding(files: &dyn Files, kind: Kind) -> Finding {
    let name = kind.name();
    let inode = match own(files, kind) {
        Ok(inode) => inode,
        Err(why) => return Finding::unknown(name, why),
    };
    let found = match is_initial(files, kind) {
        Ok(Some(true)) => return Finding::ok(name, format!("{inode}, the initial one")),
        Ok(Some(false)) => format!("{inode}, not the initial one"),
        _ => format!("{inode}; whether it is the initial one cannot be told"),
    };
    match kind {
        Kind::Pid => {
            let advice = "TCP does without; to share memory with workers in other containers of \
                          this host, start all with one pid namespace: --pid=host for docker \
                          run, shareProcessNamespace or hostPID in a pod.";
            Finding::note(name, found, advice)
        }
        Kind::User => {
            let advice = "For capabilities that count on the whole host (CAP_IPC_LOCK to pin \
                          memory), start the container without user namespace remapping, or \
                          raise its limits instead.";
            Finding::note(name, found, advice)
        }
        // Engines reach each other over sockets, whose addresses are told, and by memfds.
        Kind::Ipc | Kind::Net => Finding::ok(name, found),
    }
}

/// Whether the process is in the initial namespace of this kind; `None`: that cannot be told.
///
/// # Errors
/// Why the process's own cannot be read.
pub(super) fn is_initial(files: &dyn Files, kind: Kind) -> Result<Option<bool>, String> {
    let inode = own(files, kind)?;
    if inode == kind.initial() {
        return Ok(Some(true));
    }
    if kind != Kind::Net {
        return Ok(Some(false));
    }
    // The first process of the host stays in the initial one, and may be looked at by root.
    let host = is_initial(files, Kind::Pid) == Ok(Some(true));
    let first = files.link("/proc/1/ns/net").ok().and_then(|link| parse(&link));
    Ok(first.filter(|_| host).map(|first| first == inode))
}

fn own(files: &dyn Files, kind: Kind) -> Result<u64, String> {
    let path = format!("/proc/self/ns/{}", kind.file());
    let link = files.link(&path)?;
    parse(&link).ok_or_else(|| format!("{path} says {link:?}"))
}

/// The number in a link such as `pid:[4026531836]`.
fn parse(link: &str) -> Option<u64> {
    let (_, number) = link.split_once(":[")?;
    number.strip_suffix(']')?.parse().ok()
}

fn boot_id(text: &str) -> Option<String> {
    let id = text.trim();
    let is_uuid = id.len() == 36 && id.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    is_uuid.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::machines::{CONTAINER, Machine, NOTHING, ROOT_BOX};
    use super::*;

    #[test]
    fn a_host_is_in_the_initial_namespaces() {
        let findings = findings(&ROOT_BOX);
        assert!(findings.iter().all(|finding| finding.state() == State::Ok), "{findings:?}");
        let initial = findings.iter().filter(|finding| finding.found.ends_with("the initial one"));
        assert_eq!(initial.count(), 4);
        assert_eq!(findings[4].found, "2f5cbb9e-7f29-4c0b-9b3e-7a0ad0b6a6f4");
    }

    #[test]
    fn a_container_is_not() {
        let findings = findings(&CONTAINER);
        let states: Vec<_> = findings.iter().map(Finding::state).collect();
        assert_eq!(states, [State::Note, State::Ok, State::Ok, State::Note, State::Ok]);
        assert!(findings[2].found.contains("cannot be told"), "{findings:?}");
    }

    #[test]
    fn an_older_kernel_s_network_is_compared_with_that_of_the_first_process() {
        let links = |own: &'static str| {
            Machine(Box::leak(Box::new([
                ("/proc/self/ns/pid", "pid:[4026531836]"),
                ("/proc/1/ns/net", "net:[4026531840]"),
                ("/proc/self/ns/net", own),
            ])))
        };
        assert_eq!(is_initial(&links("net:[4026531840]"), Kind::Net), Ok(Some(true)));
        assert_eq!(is_initial(&links("net:[4026532001]"), Kind::Net), Ok(Some(false)));
    }

    #[test]
    fn odd_links_are_unknown() {
        for odd in ["", "pid", "pid:[", "pid:[x]", "pid:[-1]", "pid:[4026531836"] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
        assert_eq!((boot_id(""), boot_id("none\n")), (None, None));
        assert!(findings(&NOTHING).iter().all(|finding| finding.found.starts_with("unknown: ")));
    }
}
