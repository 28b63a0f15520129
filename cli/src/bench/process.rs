//! The other processes, seen from the one that measures: started, stopped, heard, and never left.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kvx::Config;
use kvx::transport::TransportKind;
use rustix::process::{Pid, Signal, kill_process};

use super::Problem;
use super::local::loopback;
use super::serve::LISTENING;

/// Bytes of a line, at most.
const LINE: u64 = 4096;

/// How long a process may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the kernel may take to stop all threads of a process.
const STOPS: Duration = Duration::from_secs(5);

/// A process. Dropping it kills it, and it dies with this one.
#[derive(Debug)]
pub(super) struct Process {
    what: &'static str,
    child: Child,
    /// Says to the process that it shall end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Where it listens, if it serves.
    pub(super) address: SocketAddr,
}

impl Process {
    /// `kvx bench serve` on loopback, once it listens.
    pub(super) fn serve(
        config: &Config,
        transport: TransportKind,
        environment: &[(&str, OsString)],
    ) -> Result<Self, Problem> {
        let transport = transport.to_string();
        let bind = loopback().to_string();
        let arguments = ["serve", "--with-parent", "--bind", &bind, "--transport", &transport];
        let mut process = Self::spawn("kvx bench serve", config, &arguments, environment)?;
        let line = process.line()?;
        let address = line.strip_prefix(LISTENING).and_then(|address| address.parse().ok());
        process.address = address.ok_or_else(|| process.riddle(&line))?;
        Ok(process)
    }

    /// Any `kvx bench`. It has the environment's options, except for those that are this process's
    /// own, and these.
    pub(super) fn spawn(
        what: &'static str,
        config: &Config,
        arguments: &[&str],
        environment: &[(&str, OsString)],
    ) -> Result<Self, Problem> {
        // This very program, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("kvx").arg("bench").args(arguments);
        command.env_remove("KVX_ADVERTISE").env_remove("KVX_NAME");
        // Those have been told of once.
        for unknown in config.unknown_variables() {
            command.env_remove(&unknown.name);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed = |error| format!("start {what}: {error}");
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            // Piped, as said above.
            return Err(format!("start {what}: no pipe to it").into());
        };
        let stdout = BufReader::new(stdout);
        Ok(Self { what, child, stdin, stdout, address: loopback() })
    }

    /// What must be its next line, and nothing else.
    pub(super) fn expect(&mut self, expected: &str) -> Result<(), Problem> {
        match self.line()? {
            line if line == expected => Ok(()),
            line => Err(self.riddle(&line)),
        }
    }

    /// Stops it (SIGSTOP), and waits until none of its threads runs any more.
    pub(super) fn stop(&mut self) -> Result<(), Problem> {
        let id = self.child.id();
        let pid = Pid::from_raw(id as i32).ok_or("a process without an id")?;
        kill_process(pid, Signal::STOP).map_err(io::Error::from)?;
        let begin = Instant::now();
        while begin.elapsed() < STOPS {
            if all_stopped(id)? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(format!("{}: it does not stop", self.what).into())
    }

    /// Says that it shall end, and hears its last line.
    pub(super) fn finish(mut self) -> Result<String, Problem> {
        self.stdin = None;
        let last = self.line()?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("{}: {status}", self.what).into());
        }
        Ok(last)
    }

    /// Lets it end, once nobody needs it any more.
    pub(super) fn dismiss(mut self) -> Result<(), Problem> {
        self.stdin = None;
        let begin = Instant::now();
        while begin.elapsed() < FAREWELL {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{}: {status}", self.what).into()),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(format!("{}: it has not ended in {FAREWELL:?}", self.what).into())
    }

    /// Kills it, if it is as it should be.
    pub(super) fn kill(mut self) -> Result<(), Problem> {
        self.check_alive()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it has not ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<(), Problem> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} has ended: {status}", self.what).into()),
        }
    }

    fn line(&mut self) -> Result<String, Problem> {
        let mut line = String::new();
        (&mut self.stdout).take(LINE).read_line(&mut line)?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(line.to_owned()),
            None => Err(format!("{}: it ended without a word", self.what).into()),
        }
    }

    fn riddle(&self, line: &str) -> Problem {
        format!("{}: it said {line:?}", self.what).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether each thread of a process is stopped: proc(5), stat.
fn all_stopped(id: u32) -> io::Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let stat = match std::fs::read_to_string(task?.path().join("stat")) {
            Ok(stat) => stat,
            // A thread that has ended meanwhile runs no more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // The name of the thread stands in parentheses, and may hold anything.
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
