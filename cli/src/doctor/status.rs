//! What /proc/self/status tells of this process (proc_pid_status(5)): capabilities, seccomp, CPUs.

use super::files::Files;
use super::numbers::{field, list_len};

const PATH: &str = "/proc/self/status";

/// A capability, by its number in capabilities(7).
#[derive(Clone, Copy, Debug)]
pub(super) enum Capability {
    IpcLock = 14,
    SysPtrace = 19,
}

/// The process's status; each field on its own may be unknown, with the reason.
#[derive(Clone, Debug)]
pub(super) struct Status {
    effective: Result<u64, String>,
    /// Whether a filter decides which system calls are allowed.
    pub(super) is_filtered: Result<bool, String>,
    /// CPUs that the process may run on.
    pub(super) cpus_allowed: Result<u64, String>,
}

impl Status {
    pub(super) fn read(files: &dyn Files) -> Self {
        match files.read(PATH) {
            Ok(text) => Self::parse(&text),
            Err(why) => Self {
                effective: Err(why.clone()),
                is_filtered: Err(why.clone()),
                cpus_allowed: Err(why),
            },
        }
    }

    fn parse(text: &str) -> Self {
        let missing = |name: &str| format!("{PATH} has no {name} that makes sense");
        let effective = field(text, "CapEff:").and_then(|set| u64::from_str_radix(set, 16).ok());
        let seccomp = field(text, "Seccomp:").and_then(|mode| mode.parse::<u8>().ok());
        let cpus = field(text, "Cpus_allowed_list:").and_then(list_len);
        Self {
            effective: effective.ok_or_else(|| missing("CapEff")),
            is_filtered: seccomp.map(|mode| mode != 0).ok_or_else(|| missing("Seccomp")),
            cpus_allowed: cpus.ok_or_else(|| missing("Cpus_allowed_list")),
        }
    }

    /// Whether the process has this capability.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub(super) fn has(&self, capability: Capability) -> Result<bool, String> {
        let effective = self.effective.clone()?;
        Ok(effective & (1 << capability as u64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::machines::{CONTAINER, ROOT_BOX};
    use super::*;

    #[test]
    fn root_has_every_capability_and_a_container_none_of_them() {
        let root = Status::read(&ROOT_BOX);
        assert_eq!(
            (root.has(Capability::IpcLock), root.is_filtered.clone()),
            (Ok(true), Ok(false))
        );
        assert_eq!((root.has(Capability::SysPtrace), root.cpus_allowed), (Ok(true), Ok(2)));
        let container = Status::read(&CONTAINER);
        assert_eq!(container.has(Capability::IpcLock), Ok(false));
        assert_eq!(container.has(Capability::SysPtrace), Ok(false));
        assert_eq!((container.is_filtered, container.cpus_allowed), (Ok(true), Ok(12)));
    }

    #[test]
    fn a_status_that_lacks_a_field_or_makes_no_sense_is_unknown() {
        for text in ["", "CapEff:\nSeccomp:\tx\nCpus_allowed_list:\t", "\0\u{fffd}"] {
            let status = Status::parse(text);
            assert!(status.has(Capability::IpcLock).is_err(), "{text:?}");
            assert!(status.is_filtered.is_err() && status.cpus_allowed.is_err(), "{text:?}");
        }
    }
}
