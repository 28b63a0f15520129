//! Limits of the process (getrlimit(2)): open files, and locked memory. Not those of its group.

use super::files::{Files, parsed};
use super::finding::Finding;
use super::namespaces::{Kind, is_initial};
use super::numbers::field;
use super::status::{Capability, Status};
use crate::text::{bytes_text, count_text};

const PATH: &str = "/proc/self/limits";

/// Descriptors that a process needs besides those of its peers.
const OTHERS: u64 = 128;

/// Peers below which a worker may well run out of descriptors.
const FEW_PEERS: u64 = 64;

/// Peers that a large deployment has.
const MANY_PEERS: u64 = 256;

/// A limit; `None` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    soft: Option<u64>,
    hard: Option<u64>,
}

/// `lanes` are those to each peer, if an engine has told; `shares_memory`: they may be of the
/// transport shm.
pub(super) fn findings(
    files: &dyn Files,
    status: &Status,
    lanes: Option<u16>,
    shares_memory: bool,
) -> Vec<Finding> {
    let limit = |name| parsed(files, PATH, |text| parse(text, name));
    let nofile = match limit("Max open files") {
        Ok(limit) => open_files(limit, lanes, shares_memory),
        Err(why) => Finding::unknown("nofile", why),
    };
    let memlock = match limit("Max locked memory") {
        Ok(limit) => locked_memory(limit, lifts_memlock(files, status)),
        Err(why) => Finding::unknown("memlock", why),
    };
    vec![nofile, memlock]
}

/// The limit of this name in a text as /proc/self/limits is.
fn parse(text: &str, name: &str) -> Option<Limit> {
    let mut columns = field(text, name)?.split_whitespace();
    let mut value = || match columns.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(Limit { soft: value()?, hard: value()? })
}

/// A peer takes a control connection and its lanes; those of shm take three descriptors each.
fn open_files(limit: Limit, lanes: Option<u16>, shares_memory: bool) -> Finding {
    const NAME: &str = "nofile";
    let Some(soft) = limit.soft else { return Finding::ok(NAME, "no limit of open files") };
    // What the engine asks for where it is not told otherwise, at most.
    let lanes = u64::from(lanes.unwrap_or(4));
    let each = if shares_memory { 3 * lanes + 1 } else { lanes + 1 };
    let peers = soft.saturating_sub(OTHERS) / each;
    let found = format!(
        "{} open files, enough for about {} {} of {lanes} {}",
        count_text(soft),
        count_text(peers),
        if peers == 1 { "peer" } else { "peers" },
        if lanes == 1 { "lane" } else { "lanes" },
    );
    let advice = match limit.hard {
        Some(hard) if hard <= soft => {
            "Raise the hard limit: LimitNOFILE=65536 in a systemd unit, --ulimit nofile=65536 for \
             docker run, or /etc/security/limits.conf."
                .to_owned()
        }
        hard => {
            let most = hard.map_or(65_536, |hard| hard.min(65_536));
            format!("Raise the soft limit before the worker starts: ulimit -n {most}.")
        }
    };
    match peers {
        ..FEW_PEERS => Finding::warning(NAME, found, advice),
        FEW_PEERS..MANY_PEERS => Finding::note(NAME, found, advice),
        _ => Finding::ok(NAME, found),
    }
}

/// Whether a capability makes the limit of locked memory void, which only counts in the initial
/// user namespace (`capable` and not `ns_capable` is asked: mm/mlock.c, can_do_mlock).
fn lifts_memlock(files: &dyn Files, status: &Status) -> bool {
    status.has(Capability::IpcLock) == Ok(true) && is_initial(files, Kind::User) != Ok(Some(false))
}

/// Memory that a NIC reaches is pinned and counts here; TCP pins none.
fn locked_memory(limit: Limit, is_lifted: bool) -> Finding {
    const NAME: &str = "memlock";
    let Some(soft) = limit.soft else { return Finding::ok(NAME, "no limit of locked memory") };
    let size = bytes_text(soft);
    if is_lifted {
        return Finding::ok(NAME, format!("{size} may be locked; CAP_IPC_LOCK lifts the limit"));
    }
    let found =
        format!("{size} may be locked: no matter for TCP, too little for RDMA to pin a KV pool");
    let advice = "Before RDMA is used, lift the limit: LimitMEMLOCK=infinity in a systemd unit, \
                  --ulimit memlock=-1 for docker run, or ulimit -l unlimited.";
    Finding::note(NAME, found, advice)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::machines::{CONTAINER, Machine, NOTHING, ROOT_BOX};
    use super::*;

    fn found(machine: &Machine, lanes: Option<u16>) -> [(State, String); 2] {
        let findings = findings(machine, &Status::read(machine), lanes, false);
        let found = findings.into_iter().map(|finding| (finding.state(), finding.found));
        found.collect::<Vec<_>>().try_into().unwrap()
    }

    #[test]
    fn root_may_open_and_lock_as_much_as_it_needs() {
        let [nofile, memlock] = found(&ROOT_BOX, Some(2));
        let enough = "1,048,576 open files, enough for about 349,482 peers of 2 lanes";
        assert_eq!(nofile, (State::Ok, enough.to_owned()));
        assert_eq!(memlock, (State::Ok, "no limit of locked memory".to_owned()));
    }

    #[test]
    fn a_container_s_64_kib_do_not_hold_a_pool_and_1024_files_are_few_peers() {
        let [nofile, memlock] = found(&CONTAINER, Some(4));
        assert_eq!(nofile.0, State::Note);
        assert!(nofile.1.contains("179 peers of 4 lanes"), "{}", nofile.1);
        assert_eq!(memlock.0, State::Note);
        assert!(memlock.1.starts_with("64.0 KiB may be locked"), "{}", memlock.1);
        let [nofile, _] = found(&CONTAINER, Some(64));
        assert_eq!(nofile.0, State::Warning);
    }

    #[test]
    fn the_soft_limit_can_be_raised_up_to_the_hard_one() {
        let advice = |soft, hard| {
            let limit = Limit { soft: Some(soft), hard };
            open_files(limit, None, false).advice().unwrap_or_default().to_owned()
        };
        assert!(advice(1024, Some(4096)).ends_with("ulimit -n 4096."));
        assert!(advice(1024, None).ends_with("ulimit -n 65536."));
        assert!(advice(1024, Some(1024)).starts_with("Raise the hard limit"));
    }

    #[test]
    fn the_capability_lifts_the_limit_only_in_the_initial_user_namespace() {
        let capable = Status::read(&ROOT_BOX);
        assert!(lifts_memlock(&ROOT_BOX, &capable));
        assert!(!lifts_memlock(&CONTAINER, &capable));
        let limit = Limit { soft: Some(1 << 16), hard: None };
        assert_eq!(locked_memory(limit, true).state(), State::Ok);
    }

    #[test]
    fn lanes_that_share_memory_take_three_descriptors() {
        let limit = Limit { soft: Some(OTHERS + 900), hard: None };
        let found = |shares_memory| open_files(limit, Some(4), shares_memory).found;
        assert!(found(false).ends_with("about 180 peers of 4 lanes"), "{}", found(false));
        assert!(found(true).ends_with("about 69 peers of 4 lanes"), "{}", found(true));
    }

    #[test]
    fn odd_limits_are_unknown() {
        for text in ["", "Max open files", "Max open files   many  more files"] {
            assert_eq!(parse(text, "Max open files"), None, "{text:?}");
        }
        let [nofile, memlock] = found(&NOTHING, None);
        assert!(nofile.1.starts_with("unknown: ") && memlock.1.starts_with("unknown: "));
    }
}
