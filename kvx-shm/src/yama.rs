//! Who may read this process's memory, where the kernel wants that named by the process itself: Yama
//! under scope 1 (Documentation/admin-guide/LSM/Yama.rst). Not whether it is read in the end: the
//! other side finds that out.
//!
//! Under that scope a process is read by its ancestors, and by the one that it names, with its
//! descendants. There is room for one name. So the first reader is named by its pid; when another one
//! comes, any process is, which leaves ptrace(2)'s own rules: the same user, and root.

use std::fs;
use std::sync::{Mutex, PoisonError};

use rustix::process::{PTracer, Pid, set_ptracer};

const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Whom this process has named, for all its engines.
static NAMED: Mutex<Named> = Mutex::new(Named { process: 0, readers: Readers::None });

/// Lets this process read this one's memory, if that has to be said. A kernel that will not hear of it
/// refuses the read, and the lane with it.
pub(crate) fn let_read(reader: Pid) {
    let scope = fs::read_to_string(SCOPE).unwrap_or_default();
    let own = std::process::id();
    // Threads of one process read each other in any case.
    if asks_for_names(&scope) && reader.as_raw_nonzero().get().cast_unsigned() != own {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.add(own, reader, |tracer| set_ptracer(tracer).is_ok());
    }
}

fn asks_for_names(scope: &str) -> bool {
    scope.trim() == "1"
}

/// What the kernel was told.
#[derive(Debug)]
struct Named {
    /// By which process: a forked child has named nobody.
    process: u32,
    readers: Readers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    None,
    One(Pid),
    Any,
}

impl Named {
    /// A reader more of the process `own`. `name` tells the kernel, and says whether that has heard.
    fn add(&mut self, own: u32, reader: Pid, name: impl FnOnce(PTracer) -> bool) {
        if self.process != own {
            *self = Self { process: own, readers: Readers::None };
        }
        let (readers, tracer) = match self.readers {
            Readers::Any => return,
            // Said again: the name ends with the process, whose pid another one may have by now.
            Readers::One(known) if known == reader => {
                (Readers::One(reader), PTracer::ProcessID(reader))
            }
            Readers::None => (Readers::One(reader), PTracer::ProcessID(reader)),
            Readers::One(_) => (Readers::Any, PTracer::Any),
        };
        if name(tracer) {
            self.readers = readers;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 7;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    fn nobody() -> Named {
        Named { process: 0, readers: Readers::None }
    }

    /// What the kernel is told when this reader comes; `None`: nothing.
    fn told(named: &mut Named, own: u32, reader: i32) -> Option<String> {
        let mut told = None;
        named.add(own, pid(reader), |tracer| {
            told = Some(match tracer {
                PTracer::ProcessID(pid) => pid.to_string(),
                PTracer::Any => "any".to_owned(),
                _ => "none".to_owned(),
            });
            true
        });
        told
    }

    #[test]
    fn the_first_reader_is_named_and_from_the_second_on_any_is() {
        let mut named = nobody();
        assert_eq!(told(&mut named, OWN, 40).as_deref(), Some("40"));
        assert_eq!(told(&mut named, OWN, 40).as_deref(), Some("40"));
        assert_eq!(told(&mut named, OWN, 41).as_deref(), Some("any"));
        assert_eq!(told(&mut named, OWN, 40), None);
    }

    #[test]
    fn a_forked_child_has_named_nobody() {
        let mut named = nobody();
        told(&mut named, OWN, 40);
        told(&mut named, OWN, 41);
        assert_eq!(told(&mut named, OWN + 1, 41).as_deref(), Some("41"));
    }

    #[test]
    fn what_the_kernel_did_not_hear_is_said_again() {
        let mut named = nobody();
        named.add(OWN, pid(40), |_| false);
        assert_eq!(named.readers, Readers::None);
        assert_eq!(told(&mut named, OWN, 41).as_deref(), Some("41"));
    }

    #[test]
    fn names_are_asked_for_under_scope_1_alone() {
        assert!(asks_for_names("1\n"));
        for scope in ["", "0\n", "2\n", "3\n", "11\n"] {
            assert!(!asks_for_names(scope), "{scope:?}");
        }
    }
}
