//! The demo's processes, seen from their parent: started, spoken to, and always ended.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::messages::{Order, Report};
use super::options::Options;
use super::role::Role;

/// After a first failure, how long to listen for what the others have to say about it.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// How long a process may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// All processes of a demo. Dropping it kills those that are left.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    heard: Receiver<(usize, Heard)>,
    instances: u32,
}

/// What happened to a process.
#[derive(Debug)]
pub(super) enum Event {
    /// The process of this index says something; never [`Report::Failed`].
    Report(usize, Report),
    /// A process failed, died or hangs; the demo is over. One line or more say why.
    Failed(String),
}

#[derive(Debug)]
struct Worker {
    role: Role,
    child: Child,
    /// The process ends when this is closed.
    stdin: Option<ChildStdin>,
    doing: Doing,
}

/// What a process is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Preparing,
    Transferring,
    Checking,
    /// Its failure has been told.
    Nothing,
}

#[derive(Debug)]
enum Heard {
    Line(Result<Report, String>),
    /// The process has closed its standard output, as it does when it ends.
    End,
}

impl Workers {
    /// Starts a process for each role.
    pub(super) fn spawn(options: &Options, roles: Vec<Role>) -> Result<Self, String> {
        let (sender, heard) = mpsc::channel();
        let mut workers = Self { workers: Vec::new(), heard, instances: options.prefill };
        for (index, role) in roles.into_iter().enumerate() {
            let worker = Worker::spawn(options, role, index, sender.clone());
            workers.workers.push(worker.map_err(|error| format!("start {role}: {error}"))?);
        }
        Ok(workers)
    }

    pub(super) fn count(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn role(&self, index: usize) -> Role {
        self.workers[index].role
    }

    /// Every role and its process id.
    pub(super) fn processes(&self) -> impl Iterator<Item = (Role, u32)> {
        self.workers.iter().map(|worker| (worker.role, worker.child.id()))
    }

    /// Gives an order to those that are meant.
    pub(super) fn tell(&mut self, meant: impl Fn(Role) -> bool, order: &Order) {
        for worker in self.workers.iter_mut().filter(|worker| meant(worker.role)) {
            if *order == Order::Go {
                worker.doing = Doing::Transferring;
            }
            if let Some(stdin) = &mut worker.stdin {
                // A process that does not hear is dead; `next` tells of it.
                let _ = writeln!(stdin, "{order}");
            }
        }
    }

    /// Waits for the next word of any process, for `patience` at most.
    pub(super) fn next(&mut self, patience: Duration) -> Event {
        match self.heard.recv_timeout(patience) {
            Ok((index, Heard::Line(Ok(report)))) if !matches!(report, Report::Failed(_)) => {
                if matches!(report, Report::Sent(_) | Report::Spent { .. }) {
                    self.workers[index].doing = Doing::Checking;
                }
                Event::Report(index, report)
            }
            Ok((index, heard)) => Event::Failed(self.all_failures(index, heard)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let waiting = self.workers.iter().map(|worker| self.describe(worker));
                let waiting: Vec<_> = waiting.collect();
                Event::Failed(format!("nothing for {patience:?} from {}", waiting.join(", ")))
            }
        }
    }

    /// Lets all processes end, once all are done.
    pub(super) fn dismiss(mut self) -> Result<(), String> {
        self.workers.iter_mut().for_each(|worker| worker.stdin = None);
        for worker in &mut self.workers {
            let status = worker.end();
            if !status.as_ref().is_ok_and(ExitStatus::success) {
                return Err(format!("{}: end: {}", worker.role, outcome(&status)));
            }
        }
        Ok(())
    }

    /// The failure that came first, and those that others tell of soon after.
    fn all_failures(&mut self, index: usize, heard: Heard) -> String {
        let mut failures: Vec<String> = self.failure(index, heard).into_iter().collect();
        let begin = Instant::now();
        while let Some(left) = LAST_WORDS.checked_sub(begin.elapsed()) {
            let Ok((index, heard)) = self.heard.recv_timeout(left) else { break };
            failures.extend(self.failure(index, heard));
        }
        failures.join("\nerror: ")
    }

    /// The failure that this tells of, if it is the first of the process.
    fn failure(&mut self, index: usize, heard: Heard) -> Option<String> {
        let worker = &self.workers[index];
        let who = self.describe(worker);
        let operation = match worker.doing {
            Doing::Preparing => "prepare memory and peers".to_owned(),
            Doing::Transferring => worker.role.transfer(self.instances),
            Doing::Checking => "check memory".to_owned(),
            Doing::Nothing => return None,
        };
        let why = match heard {
            Heard::Line(Ok(Report::Failed(why))) => why,
            Heard::Line(Ok(_)) => return None,
            Heard::Line(Err(why)) => format!("{operation}: it speaks in riddles: {why}"),
            Heard::End => {
                let status = self.workers[index].end();
                format!("{operation}: the process died, {}", outcome(&status))
            }
        };
        self.workers[index].doing = Doing::Nothing;
        Some(format!("{who}: {why}"))
    }

    fn describe(&self, worker: &Worker) -> String {
        format!("{} (process {})", worker.role, worker.child.id())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Errors mean that they are dead already.
        for worker in &mut self.workers {
            let _ = worker.child.kill();
        }
        for worker in &mut self.workers {
            let _ = worker.child.wait();
        }
    }
}

impl Worker {
    fn spawn(
        options: &Options,
        role: Role,
        index: usize,
        heard: Sender<(usize, Heard)>,
    ) -> std::io::Result<Self> {
        // This very program, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("kvx").arg("demo-worker").arg(role.to_string()).args(options.to_arguments());
        // Those have been told of once.
        for unknown in options.unknown_variables() {
            command.env_remove(unknown.name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        std::thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            let lines = lines.map_while(Result::ok).map(|line| Heard::Line(line.parse()));
            for heard_now in lines.chain([Heard::End]) {
                // The parent listens no more: the demo is over.
                if heard.send((index, heard_now)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { role, child, stdin, doing: Doing::Preparing })
    }

    /// Waits until the process has ended; kills it if it does not.
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < FAREWELL {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

fn outcome(status: &std::io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}
