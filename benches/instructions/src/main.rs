//! Fixed work of which `cargo xtask instructions` counts the instructions, by valgrind's callgrind:
//! `kvx-instructions CASE` does the work of one case, `kvx-instructions` alone names them all.
//! Nothing is timed here, and nothing is compared.
//!
//! A case prepares, does its work once so that lists have their room and nothing is done for the
//! first time, and then does it again inside [`kvx_measured`]: only there callgrind collects. No
//! case starts a thread, reads a clock or draws a random number, but for the standard library's
//! hash tables, which seed themselves; what that changes was measured to be far below the
//! tolerance.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its caller")]

mod cases;

#[path = "../../workload/blocks.rs"]
mod blocks;
#[path = "../../workload/conversation.rs"]
mod conversation;
#[path = "../../workload/messages.rs"]
mod messages;
#[path = "../../workload/pairs.rs"]
mod pairs;
#[path = "../../workload/regions.rs"]
mod regions;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, prepare)) = cases::ALL.iter().find(|(case, _)| *case == name) else {
        eprintln!("there is no case {name}");
        return ExitCode::from(2);
    };
    let mut work = prepare();
    work();
    kvx_measured(&mut *work);
    ExitCode::SUCCESS
}

/// Callgrind collects while this function runs. It is known by its name, and must not be copied
/// into its caller.
#[inline(never)]
fn kvx_measured(work: &mut dyn FnMut()) {
    work();
}
