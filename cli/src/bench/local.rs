//! `kvx bench local`: a side that serves, as a process of its own on loopback, and a run against it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use super::options::{Local, Task};
use super::placement::Apart;
use super::process::Process;
use super::run::{check, exit_code, progress, rows};
use super::transport::{attempt, first};

/// Runs against a process of its own. Whatever the outcome, that process is not left.
pub(super) fn run(options: &Local) -> ExitCode {
    let work = &options.work;
    let (tasks, config, transports) = match check(work, 2) {
        Ok(checked) => checked,
        Err(why) => return super::refuse("local", &why),
    };
    let config = config.bind(loopback()).advertise([]);
    let mut progress = progress(work, &tasks);
    let transport = first(&transports, |transport| {
        let serve = Process::serve(&config, transport, &[])?;
        attempt(config.clone(), transport, &serve.address.to_string())?;
        serve.dismiss()
    });
    let transport = match transport {
        Ok(transport) => transport,
        Err(why) => return exit_code(Err(why)),
    };
    // Pings have processes of their own, for they are kept to CPUs of their own.
    let mut groups = tasks.chunk_by(|one, next| one.is_ping() == next.is_ping());
    let outcome = groups.try_for_each(|tasks| {
        let apart = Apart::new().filter(|_| tasks.iter().all(Task::is_ping));
        let spawn = || Process::serve(&config, transport, &[]);
        let serve = apart.as_ref().map_or_else(spawn, |apart| apart.far(spawn))?;
        let address = serve.address.to_string();
        let mut run = || rows(work, tasks, config.clone(), transport, &address, &mut progress);
        match &apart {
            Some(apart) => apart.near(run),
            None => run(),
        }?;
        serve.dismiss()
    });
    progress.finish();
    exit_code(outcome)
}

/// Where both processes listen: nobody outside of the host can reach them.
pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
