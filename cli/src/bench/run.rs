//! `kvx bench run`: the side that posts, row by row. How a row is measured is in
//! [`super::measure`].

use std::io;
use std::process::ExitCode;

use kvx::Config;
use kvx::Engine;
use kvx::transport::TransportKind;

use super::Problem;
use super::client::Client;
use super::measure::{Settings, measure};
use super::options::{Run, Task, Work};
use super::progress::Progress;
use super::report;
use super::transport::{attempt, first};

/// Runs against the side that serves at `--peer`.
pub(super) fn run(options: &Run) -> ExitCode {
    let Run { peer, work } = options;
    let checked = check(work, 1);
    let (tasks, config, transports) = match checked {
        Ok(checked) => checked,
        Err(why) => return super::refuse("run", &why),
    };
    let mut progress = progress(work, &tasks);
    let transport = first(&transports, |transport| attempt(config.clone(), transport, peer));
    let outcome =
        transport.and_then(|transport| rows(work, &tasks, config, transport, peer, &mut progress));
    progress.finish();
    exit_code(outcome)
}

/// The rows that are asked for, how to build the engine, and the transports of which it uses one;
/// `sides` of each row are on this host.
///
/// # Errors
/// The options make no sense, together or on this machine.
pub(super) fn check(
    work: &Work,
    sides: u64,
) -> Result<(Vec<Task>, Config, Vec<TransportKind>), String> {
    let tasks = work.tasks()?;
    let (config, transports) = work.config().map_err(|error| error.to_string())?;
    work.check_memory(&tasks, sides)?;
    Ok((tasks, config, transports))
}

/// Shows how far these rows are.
pub(super) fn progress(work: &Work, tasks: &[Task]) -> Progress {
    let progress = Progress::new(work.transfers(tasks));
    if work.json { progress } else { progress.under(report::heads()) }
}

/// Measures these rows, and prints each as soon as it is done.
pub(super) fn rows(
    work: &Work,
    tasks: &[Task],
    config: Config,
    transport: TransportKind,
    peer: &str,
    progress: &mut Progress,
) -> Result<(), Problem> {
    let engine = Engine::new(config.transports([transport]))?;
    let settings = Settings {
        transport,
        lanes: engine.lanes(),
        reps: work.reps,
        warmup: work.warmup,
        seed: work.seed,
        owner: work.memory,
        limit: !work.no_limit,
        corrupt: work.corrupt,
    };
    let mut client = Client::connect(engine, peer)?;
    for task in tasks {
        progress.begin(task)?;
        let row = measure(&mut client, task, &settings, progress)?;
        progress.print(&if work.json { report::json(&row) } else { report::line(&row) })?;
        if let Some(why) = &row.limits.refused {
            progress.note(&format!("{} has no limit: {why}", task.workload));
        }
    }
    Ok(())
}

/// The exit status of what was measured, or why not.
pub(super) fn exit_code(outcome: Result<(), Problem>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // A reader that left (`kvx bench run | head`) needs no explanation.
            let left = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
            if !why.downcast_ref().is_some_and(left) {
                crate::complain(why);
            }
            ExitCode::FAILURE
        }
    }
}
