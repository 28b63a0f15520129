//! The capabilities that matter to kvx (capabilities(7)). What follows from them stands elsewhere.

use super::files::Files;
use super::finding::Finding;
use super::namespaces::{Kind, is_initial};
use super::status::{Capability, Status};

pub(super) fn findings(files: &dyn Files, status: &Status) -> Vec<Finding> {
    let initial = is_initial(files, Kind::User) != Ok(Some(false));
    let finding = |name, capability, says: [&str; 3]| {
        let [yes, within, no] = says;
        match status.has(capability) {
            Ok(true) if initial => Finding::ok(name, format!("yes: {yes}")),
            Ok(true) => Finding::ok(name, format!("within this user namespace alone: {within}")),
            Ok(false) => Finding::ok(name, format!("no: {no}")),
            Err(why) => Finding::unknown(name, why),
        }
    };
    // The kernel asks for the first in the initial user namespace (mm/mlock.c, can_do_mlock), for
    // the second in that of the process that is read (kernel/ptrace.c, ptrace_has_cap).
    vec![
        finding(
            "CAP_IPC_LOCK",
            Capability::IpcLock,
            [
                "memory may be locked beyond the limit",
                "the limit of locked memory holds",
                "the limit of locked memory holds",
            ],
        ),
        finding(
            "CAP_SYS_PTRACE",
            Capability::SysPtrace,
            [
                "memory of other users' processes may be read",
                "its other users' processes may be read",
                "memory of other users' processes may not be read",
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::machines::{CONTAINER, NOTHING, ROOT_BOX};
    use super::*;

    #[test]
    fn a_capability_is_there_or_not_or_unknown() {
        let found = |files: &dyn Files| {
            findings(files, &Status::read(files)).into_iter().map(|finding| finding.found)
        };
        assert!(found(&ROOT_BOX).all(|found| found.starts_with("yes: ")));
        assert!(found(&CONTAINER).all(|found| found.starts_with("no: ")));
        assert!(found(&NOTHING).all(|found| found.starts_with("unknown: ")));
        let elsewhere = findings(&CONTAINER, &Status::read(&ROOT_BOX));
        assert!(elsewhere[0].found.starts_with("within this user namespace alone"));
        assert!(elsewhere.iter().all(|finding| finding.state() == State::Ok));
    }
}
