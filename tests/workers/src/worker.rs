//! A worker process as its test holds it. Every answer is waited for with a limit that only a hang
//! reaches; a worker that hangs is killed, and its test fails.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::line::{Failure, Line};

/// Tells a process that it is a worker.
const ROLE: &str = "KVX_TEST_WORKER";
/// What an answer begins with: the test harness writes to standard output too.
pub const MARK: &str = "kvx> ";
/// How long an answer may take: no deadline of the tests is near it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this process is a worker.
pub fn is_worker() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// A worker process with one engine. Dropping it kills it.
#[derive(Debug)]
pub struct Worker {
    name: String,
    child: Child,
    /// The worker itself, which the child may have started in its turn.
    process: Pid,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    /// Of its engine.
    pub id: String,
    /// Where its engine listens.
    pub address: SocketAddr,
}

impl Worker {
    /// Starts a process with an engine of this name. `options`: those of the `engine` command.
    ///
    /// The process ends with the thread that calls this.
    pub fn start(name: &str, options: &str) -> Self {
        let executable = std::env::current_exe().unwrap();
        Self::start_by(Command::new(executable), name, options)
    }

    /// Like [`Self::start`], through a command that ends by running the test binary.
    pub fn start_by(mut command: Command, name: &str, options: &str) -> Self {
        command
            .args(["a_worker_ends_with_its_test", "--exact", "--nocapture"])
            .env(ROLE, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, answers) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(answer) = line.strip_prefix(MARK)
                    && sender.send(answer.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let process = Pid::from_child(&child);
        let (name, id) = (name.to_owned(), String::new());
        let mut worker = Self { name, child, process, input, answers, id, address };
        let engine = worker.must(&format!("engine name={} {options}", worker.name));
        worker.process = last_descendant(worker.process);
        worker.id = engine.get("id").to_owned();
        worker.address = engine.number("address");
        worker
    }

    /// Gives a command; [`Self::answer`] has its answer later. Commands are carried out in order.
    pub fn tell(&mut self, command: &str) {
        let mut input = self.input.as_ref().unwrap();
        // A worker that is dead shows when its answer is asked for.
        let _ = writeln!(input, "{command}");
    }

    /// The answer to the oldest command that has none.
    pub fn answer(&mut self) -> Result<Line, Failure> {
        let answer = match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => panic!("worker {} is gone", self.name),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                panic!("worker {} hangs", self.name);
            }
        };
        if answer.starts_with("error ") {
            return Err(Failure::from_line(&answer));
        }
        Ok(Line::parse(&answer))
    }

    /// A command and its answer.
    pub fn ask(&mut self, command: &str) -> Result<Line, Failure> {
        self.tell(command);
        self.answer()
    }

    /// The good answer to a command that must succeed.
    pub fn must(&mut self, command: &str) -> Line {
        let answer = self.ask(command);
        answer.unwrap_or_else(|failure| panic!("{}: {command}: {failure:?}", self.name))
    }

    /// The failure of a command that must fail.
    pub fn must_fail(&mut self, command: &str) -> Failure {
        match self.ask(command) {
            Ok(answer) => panic!("{}: {command}: {answer:?}", self.name),
            Err(failure) => failure,
        }
    }

    /// Of the process.
    pub fn pid(&self) -> Pid {
        self.process
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        // Who is waited for below may not have been yet, so that no pid is another's.
        if self.process != Pid::from_child(&self.child) {
            let _ = kill_process(self.process, Signal::KILL);
            let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
            let _ = self.child.wait();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP; returns when every thread has stopped.
    ///
    /// A thread that has looked at the clock and is about to copy will copy when it goes on, however
    /// late: "one copy call already in progress" is what the fence of a stopped process leaves. A
    /// stop at such a moment would make tests fail that are not about it, so that none of the
    /// engine's threads is stopped outside of a system call.
    pub fn stop(&self) {
        loop {
            kill_process(self.pid(), Signal::STOP).unwrap();
            self.wait_for_state('T');
            if self
                .threads("comm")
                .zip(self.threads("syscall"))
                .all(|(name, call)| !copies(&name) || !call.starts_with("-1 "))
            {
                return;
            }
            self.resume();
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// SIGCONT.
    pub fn resume(&self) {
        kill_process(self.process, Signal::CONT).unwrap();
        // Who waits for it may have stopped as it did.
        let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
    }

    /// Ends the worker's input, and with it the worker.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until the process has ended by itself.
    pub fn wait_gone(&mut self) {
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < PATIENCE, "worker {} does not end", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sets memory of the process from outside, which it need not run for.
    pub fn poke(&self, address: u64, len: u64, byte: u8) {
        self.memory(true).write_all_at(&vec![byte; len as usize], address).unwrap();
    }

    /// Memory of the process as it is now.
    pub fn peek(&self, address: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.memory(false).read_exact_at(&mut bytes, address).unwrap();
        bytes
    }

    fn memory(&self, write: bool) -> File {
        let path = format!("/proc/{}/mem", self.process.as_raw_nonzero());
        File::options().read(true).write(write).open(path).unwrap()
    }

    /// Waits until all threads are in this state (proc(5), `stat`).
    fn wait_for_state(&self, state: char) {
        let begin = Instant::now();
        let in_state = |stat: String| {
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.trim_start().starts_with(state)
        };
        while !self.threads("stat").all(in_state) {
            assert!(begin.elapsed() < PATIENCE, "worker {} does not stop", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// This file of each thread's directory in /proc, in the order of thread ids.
    fn threads(&self, file: &str) -> impl Iterator<Item = String> {
        let tasks = format!("/proc/{}/task", self.process.as_raw_nonzero());
        let tasks = std::fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path());
        let mut tasks: Vec<_> = tasks.collect();
        tasks.sort();
        let file = file.to_owned();
        tasks
            .into_iter()
            .map(move |task| std::fs::read_to_string(task.join(&file)).unwrap_or_default())
    }
}

/// The process at the end of a chain of parents with one child each.
fn last_descendant(mut process: Pid) -> Pid {
    let child = |process: Pid| {
        let pid = process.as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        Pid::from_raw(children.ok()?.split_whitespace().next()?.parse().ok()?)
    };
    while let Some(next) = child(process) {
        process = next;
    }
    process
}

/// Whether a thread of this name copies payload.
fn copies(thread: &str) -> bool {
    ["kvx-tcp", "kvx-shm"].iter().any(|pool| thread.starts_with(pool))
}

/// Watches memory of processes from outside, for 3 s, which they need not run for: every byte must
/// stay `byte`. Ranges are address and length.
pub fn watch_from_outside(memory: &[(&Worker, u64, u64)], byte: u8) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        for (worker, address, len) in memory {
            let seen = worker.peek(*address, *len);
            let expected = vec![byte; seen.len()];
            // Compared as slices first: a loop over the bytes is slow without optimisation.
            if seen != expected {
                let at = seen.iter().position(|seen| *seen != byte);
                panic!("a byte landed at {} + {at:?} after the fence", worker.name);
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
