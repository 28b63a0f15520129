//! A worker that becomes another program, or dies, while its connections stay open.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::container::CONTAINED;
use crate::worker::MARK;

/// `keep`: a child keeps all descriptors open, and does nothing, until its pid namespace ends or, if
/// it shares that of the test, until the worker does.
pub(super) fn keep() -> String {
    let is_apart = std::env::var_os(CONTAINED).is_some();
    // SAFETY: the child calls nothing but prctl(2) and pause(2), which are async-signal-safe.
    let child = unsafe { libc::fork() };
    if child == 0 {
        if !is_apart {
            // SAFETY: takes numbers only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        }
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
    }
    assert!(child > 0, "{}", std::io::Error::last_os_error());
    "ok".to_owned()
}

/// `exec`: the process becomes a worker anew, without an engine. It answers before: a command that
/// came earlier would be read by the one that goes.
pub(super) fn exec() -> ! {
    println!("\n{MARK}ok");
    let mut command = Command::new("/proc/self/exe");
    let failed = command.args(std::env::args_os().skip(1)).exec();
    panic!("{failed}");
}
