//! `kvx demo`: a KV cache of a real model's shape moves from prefill to decode processes.
//!
//! The parent starts a process for each rank, tells them where to find each other, and compares the
//! digests that each makes of its own memory. It touches no KV cache itself.

mod content;
mod decode;
mod memory;
mod messages;
mod options;
mod prefill;
mod progress;
mod report;
mod role;
mod tally;
mod worker;
mod workers;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use options::Options;
pub(crate) use worker::{WorkerArguments, work};

use self::messages::{Order, Report};
use self::progress::Progress;
use self::role::Role;
use self::tally::Tally;
use self::workers::{Event, Workers};

/// Runs the demo. Exit status 0: all digests are equal; 1: they are not, or something failed; 2:
/// the options make no sense.
pub(crate) fn run(options: &Options) -> ExitCode {
    if let Err(why) = options.check() {
        crate::complain(format_args!("{why}\n\nFor more information, try 'kvx demo --help'."));
        return ExitCode::from(2);
    }
    let tally = match transfer(options) {
        Ok(tally) => tally,
        Err(why) => {
            crate::complain(why);
            return ExitCode::FAILURE;
        }
    };
    let text = if options.json { report::json(&tally) } else { report::table(&tally) };
    // A reader that left (`kvx demo | head`) still gets the exit status.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if tally.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From the first process to the last digest. Whatever the outcome, no process is left.
fn transfer(options: &Options) -> Result<Tally<'_>, String> {
    let roles = Role::all(options);
    let mut workers = Workers::spawn(options, roles)?;
    let mut progress = Progress::new(options, &workers);
    let mut tally = Tally::new(options);
    let (mut ready, mut done) = (0, 0);
    while done < workers.count() {
        let (index, report) = match workers.next(patience(options)) {
            Event::Report(index, report) => (index, report),
            Event::Failed(why) => {
                progress.abandon();
                return Err(why);
            }
        };
        let role = workers.role(index);
        match report {
            Report::Listening(address) => {
                let Role::Prefill { instance, .. } = role else { continue };
                let others = |other: Role| other != role && other.asks_directory_of(instance);
                workers.tell(others, &Order::Directory { instance, address });
            }
            Report::Ready => {
                ready += 1;
                if ready == workers.count() {
                    progress.begin();
                    workers.tell(|_| true, &Order::Go);
                }
            }
            Report::Arrived { instance, layers } => {
                progress.arrived(instance, role.rank(), layers);
            }
            Report::Sent(sent) => tally.sent(role, sent),
            Report::Received(received) => tally.received(role, received),
            Report::Transport { instance, transport } => {
                tally.transport(role, instance, transport);
            }
            Report::Spent { cpu } => tally.spent(role, cpu),
            Report::Digest { instance, digest } => tally.digest(role, instance, digest),
            Report::Outside { bytes } => tally.outside(bytes),
            Report::Done => done += 1,
            // `Workers::next` makes an event of its own of it.
            Report::Failed(_) => {}
        }
    }
    progress.finish();
    workers.dismiss()?;
    Ok(tally)
}

/// How long all processes together may be silent before the demo gives up. The engines' own
/// deadlines come long before; this is for a process that hangs or is stopped outside of a
/// transfer, while it fills or digests memory: at 50 MB/s even the slowest machine is done.
fn patience(options: &Options) -> Duration {
    Duration::from_secs(60) + Duration::from_secs(options.memory() / 50_000_000)
}
