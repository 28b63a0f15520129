//! The other processes, seen from the one that measures: started, stopped, heard, and never left.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kvx::transport::TransportKind;
use rustix::process::{Pid, Signal, kill_process};

use super::super::Problem;
use super::super::local::loopback;
use super::super::serve::LISTENING;
use super::key_file::KeyFile;
use super::{Options, Role};

/// What a neighbour says once it does what it is for.
pub(super) const BEGUN: &str = "begun";

/// Bytes of a line, at most.
const LINE: u64 = 4096;

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
    /// The engine that is served, by this process or another.
    pub(super) address: SocketAddr,
}

impl Process {
    /// The engine in the middle, once it listens.
    pub(super) fn serve(transport: TransportKind, key: &KeyFile) -> Result<Self, Problem> {
        let transport = transport.to_string();
        let bind = loopback().to_string();
        let arguments = ["serve", "--with-parent", "--bind", &bind, "--transport", &transport];
        let mut process = Self::spawn("the served engine", &arguments, key)?;
        let line = process.line()?;
        let address = line.strip_prefix(LISTENING).and_then(|address| address.parse().ok());
        process.address = address.ok_or_else(|| process.riddle(&line))?;
        Ok(process)
    }

    /// A neighbour, once it has begun.
    pub(super) fn neighbour(
        role: Role,
        address: SocketAddr,
        options: &Options,
        key: &KeyFile,
    ) -> Result<Self, Problem> {
        let (what, name) = match role {
            Role::Busy => ("the peer to be stopped", "busy"),
            Role::Hostile => ("the hostile peer", "hostile"),
        };
        let (peer, rate) = (address.to_string(), options.rate.to_string());
        let transport = options.transport.to_string();
        let arguments = ["neighbours", "--role", name, "--peer", &peer, "--rate", &rate];
        let arguments = [&arguments[..], &["--transport", &transport]].concat();
        let mut process = Self::spawn(what, &arguments, key)?;
        process.address = address;
        match process.line()? {
            line if line == BEGUN => Ok(process),
            line => Err(process.riddle(&line)),
        }
    }

    fn spawn(what: &'static str, arguments: &[&str], key: &KeyFile) -> Result<Self, Problem> {
        // This very program, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("kvx").arg("bench").args(arguments);
        command.env("KVX_AUTH_KEY_FILE", key.path());
        for name in ["KVX_INSECURE", "KVX_ADVERTISE", "KVX_NAME", "KVX_BIND"] {
            command.env_remove(name);
        }
        if std::env::var_os("KVX_LOG").is_none() {
            // That a hostile peer's lanes break, and a killed one's, is no news here.
            command.env("KVX_LOG", "error");
        }
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
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        // The name of the thread stands in parentheses, and may hold anything.
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
