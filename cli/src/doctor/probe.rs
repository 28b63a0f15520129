//! Whether a process can read another's memory here, and take descriptors out of it, tried out: a
//! child of this process does both. What the outcome means is said in [`super::process_memory`].
//!
//! The child is no ancestor of what it reads, as one worker is none of another, so that Yama
//! treats it alike.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use clap::Args;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{pread, pwrite};
use rustix::process::{PTracer, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open, set_ptracer};

/// Bytes that are read: so many are not right by luck.
const NONCE: usize = 16;

/// Bytes of an answer, at most.
const LINE: u64 = 256;

/// What a read came to: right, or the system's refusal.
pub(super) type Outcome = Result<(), Errno>;

/// What the child could read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcomes {
    /// Its own memory, which no rule of ptrace refuses: only a filter of system calls, or a kernel
    /// without the call.
    pub(super) own: Outcome,
    /// Its parent's.
    pub(super) other: Outcome,
    /// Its parent's, after that had named it (PR_SET_PTRACER).
    pub(super) named: Outcome,
    /// A descriptor of its parent, then, too.
    pub(super) taken: Outcome,
}

/// Has a child read this process's memory.
///
/// # Errors
/// Why it could not be tried.
pub(super) fn attempt() -> Result<Outcomes, String> {
    let mut nonce = [0_u8; NONCE];
    let random = |error| format!("read /dev/urandom: {error}");
    let mut source = std::fs::File::open("/dev/urandom").map_err(random)?;
    source.read_exact(&mut nonce).map_err(random)?;
    // The compiler must not think that nobody looks at it.
    let nonce = std::hint::black_box(Box::new(nonce));
    let memfd = memfd_create("kvx-doctor", MemfdFlags::CLOEXEC)
        .and_then(|memfd| pwrite(&memfd, &*nonce, 0).map(|_| memfd))
        .map_err(|errno| format!("memfd_create: {errno}"))?;
    let mut reader = Reader::spawn(nonce.as_ptr() as usize, memfd.as_raw_fd())?;
    let own = reader.ask(READ_OWN)?;
    let own = own.outcome(&[OWN; NONCE])?;
    let other = reader.ask(READ_OTHER)?.outcome(&*nonce)?;
    if let Some(child) = rustix::process::Pid::from_raw(reader.child.id() as i32) {
        // Without Yama there is nobody to tell (EINVAL), and the outcome is the same once more.
        let _ = set_ptracer(PTracer::ProcessID(child));
    }
    let (named, taken) = (reader.ask(READ_OTHER), reader.ask(TAKE));
    let _ = set_ptracer(PTracer::None);
    let (named, taken) = (named?.outcome(&*nonce)?, taken?.outcome(&*nonce)?);
    drop(std::hint::black_box(nonce));
    Ok(Outcomes { own, other, named, taken })
}

const READ_OWN: &str = "own";
const READ_OTHER: &str = "other";
const TAKE: &str = "take";

/// What the child's own memory holds.
const OWN: u8 = 0x5a;

/// The child. Dropping it ends it.
struct Reader {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Reader {
    /// A child that reads this process's memory at `address`, and takes its descriptor `memfd`.
    fn spawn(address: usize, memfd: RawFd) -> Result<Self, String> {
        // This very program, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("kvx").arg("doctor-probe");
        let numbers = [std::process::id().to_string(), address.to_string(), memfd.to_string()];
        command.args(numbers);
        for (name, _) in std::env::vars_os() {
            // It is asked nothing that they decide.
            if name.to_string_lossy().starts_with("KVX_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            command.spawn().map_err(|error| format!("start a process that reads: {error}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            // Piped, as said above.
            return Err("start a process that reads: no pipe to it".to_owned());
        };
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    fn ask(&mut self, what: &str) -> Result<Answer, String> {
        let failed = |error: io::Error| format!("ask the process that reads: {error}");
        writeln!(self.stdin, "{what}").map_err(failed)?;
        let mut line = String::new();
        (&mut self.stdout).take(LINE).read_line(&mut line).map_err(failed)?;
        Answer::parse(&line).ok_or_else(|| format!("the process that reads said {line:?}"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Errors mean that it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child says of a read: the bytes, or the system's error.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Bytes(String),
    Refused(Errno),
}

impl Answer {
    fn parse(line: &str) -> Option<Self> {
        match line.strip_suffix('\n')?.split_once(' ')? {
            ("read", hex) => Some(Self::Bytes(hex.to_owned())),
            ("errno", number) => Some(Self::Refused(Errno::from_raw(number.parse().ok()?))),
            _ => None,
        }
    }

    fn outcome(self, expected: &[u8]) -> Result<Outcome, String> {
        match self {
            Self::Bytes(hex) if hex == hexadecimal(expected) => Ok(Ok(())),
            Self::Bytes(hex) => Err(format!("the process that reads found other bytes: {hex:?}")),
            Self::Refused(errno) => Ok(Err(errno)),
        }
    }
}

/// What the child is told when it starts.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProbeArguments {
    /// The process to read from.
    pid: i32,
    /// Where in its memory.
    address: usize,
    /// A descriptor of it.
    descriptor: i32,
}

/// The child: reads what it is asked to, until its standard input ends.
pub(crate) fn probe(arguments: &ProbeArguments) -> ExitCode {
    let own = std::hint::black_box(Box::new([OWN; NONCE]));
    for line in io::stdin().lines() {
        let answer = match line.as_deref() {
            Ok(READ_OWN) => read(Pid::this(), own.as_ptr() as usize),
            Ok(READ_OTHER) => read(Pid::from_raw(arguments.pid), arguments.address),
            Ok(TAKE) => take(arguments.pid, arguments.descriptor),
            _ => return ExitCode::FAILURE,
        };
        let said = match answer {
            Ok(bytes) => writeln!(io::stdout(), "read {}", hexadecimal(&bytes)),
            Err(errno) => writeln!(io::stdout(), "errno {}", errno as i32),
        };
        if said.is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn read(pid: Pid, base: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; NONCE];
    let remote = [RemoteIoVec { base, len: NONCE }];
    let len = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &remote)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// What the file of another process's descriptor begins with.
fn take(pid: i32, descriptor: RawFd) -> Result<Vec<u8>, Errno> {
    let pid = Some(pid).filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw);
    let take = |pid| {
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let file = pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty())?;
        let mut bytes = vec![0; NONCE];
        let len = pread(&file, &mut bytes, 0)?;
        bytes.truncate(len);
        Ok(bytes)
    };
    let taken: rustix::io::Result<_> = pid.ok_or(rustix::io::Errno::SRCH).and_then(take);
    taken.map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_right_bytes_or_an_error_or_makes_no_sense() {
        let bytes = Answer::parse("read 5aff\n").unwrap();
        assert_eq!(bytes.outcome(&[0x5a, 0xff]), Ok(Ok(())));
        let other = Answer::parse("read 5afe\n").unwrap();
        assert!(other.outcome(&[0x5a, 0xff]).is_err());
        let refused = Answer::parse("errno 1\n").unwrap();
        assert_eq!(refused.outcome(&[]), Ok(Err(Errno::EPERM)));
        for odd in ["", "\n", "read", "errno x\n", "errno 1", "else 1\n"] {
            assert_eq!(Answer::parse(odd), None, "{odd:?}");
        }
    }
}
