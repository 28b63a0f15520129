//! `kvx bench local`: a side that serves, as a process of its own on loopback, and a run against it.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use kvx::Config;
use kvx::transport::TransportKind;

use super::Problem;
use super::options::{Local, Task};
use super::placement::Apart;
use super::run::{check, exit_code, progress, rows};
use super::serve::LISTENING;

/// How long the process may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(5);

/// Bytes of the line that tells the address, at most.
const LINE: u64 = 256;

/// Runs against a process of its own. Whatever the outcome, that process is not left.
pub(super) fn run(options: &Local) -> ExitCode {
    let work = &options.work;
    let (tasks, config, transport) = match check(work, 2) {
        Ok(checked) => checked,
        Err(why) => return super::refuse("local", &why),
    };
    let config = config.bind(loopback()).advertise([]);
    let mut progress = progress(work, &tasks);
    // Pings have processes of their own, for they are kept to CPUs of their own.
    let mut groups = tasks.chunk_by(|one, next| one.is_ping() == next.is_ping());
    let outcome = groups.try_for_each(|tasks| {
        let apart = Apart::new().filter(|_| tasks.iter().all(Task::is_ping));
        let spawn = || ServeProcess::spawn(&config, transport);
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

/// A `kvx bench serve` of this process's own. It ends with this process; dropping it kills it.
#[derive(Debug)]
pub(super) struct ServeProcess {
    child: Child,
    /// The process ends when this is closed.
    stdin: Option<ChildStdin>,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl ServeProcess {
    /// Starts it, and waits until it listens. The environment's options are its own too.
    pub(super) fn spawn(config: &Config, transport: TransportKind) -> Result<Self, Problem> {
        // This very program, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("kvx").args(["bench", "serve", "--with-parent"]);
        command.arg("--bind").arg(loopback().to_string());
        command.arg("--transport").arg(transport.to_string());
        command.env_remove("KVX_ADVERTISE").env_remove("KVX_NAME");
        // Those have been told of once.
        for unknown in config.unknown_variables() {
            command.env_remove(&unknown.name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed = |error| format!("start kvx bench serve: {error}");
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut serve = Self { child, stdin, address: loopback() };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            // It prints nothing more.
            BufReader::new(stdout).take(LINE).read_line(&mut line).map_err(failed)?;
        }
        let address = line.trim_end().strip_prefix(LISTENING);
        match address.and_then(|address| address.parse().ok()) {
            Some(address) => serve.address = address,
            None => return Err("start kvx bench serve: it told no address".into()),
        }
        Ok(serve)
    }

    /// Lets it end, once nobody needs it any more.
    pub(super) fn dismiss(mut self) -> Result<(), Problem> {
        self.stdin = None;
        let begin = Instant::now();
        while begin.elapsed() < FAREWELL {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("kvx bench serve: {status}").into()),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(format!("kvx bench serve: it has not ended in {FAREWELL:?}").into())
    }
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        // Errors mean that it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
