//! Memory of the other process, and the bare loop that reads it: process_vm_readv(2). Not who may.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::super::workload::Span;
use super::memory::invalid;
use super::stream::VECTOR_LEN;

/// Some memory of a process, as another on the same host reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(super) pid: i32,
    pub(super) base: u64,
    pub(super) len: u64,
}

impl Foreign {
    /// The blocks that lie there.
    ///
    /// # Errors
    /// One that does not.
    pub(super) fn blocks(&self, spans: &[Span]) -> io::Result<Vec<RemoteIoVec>> {
        let outside = || invalid("a block outside of the other side's memory");
        let block = |span: &Span| {
            let end = (span.offset as u64).checked_add(span.len as u64);
            end.filter(|end| *end <= self.len).ok_or_else(outside)?;
            let base = self.base.checked_add(span.offset as u64).ok_or_else(outside)?;
            Ok(RemoteIoVec { base: base as usize, len: span.len })
        };
        spans.iter().map(block).collect()
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.base, self.len)
    }
}

impl FromStr for Foreign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not_one = || format!("{text:?} is no process's memory");
        let parts: Vec<&str> = text.split(':').collect();
        let [pid, base, len] = parts[..] else { return Err(not_one()) };
        let pid = pid.parse().ok().filter(|pid| *pid > 0).ok_or_else(not_one)?;
        let [base, len] = [base, len].map(|number| number.parse().map_err(|_| not_one()));
        Ok(Self { pid, base: base?, len: len? })
    }
}

/// What one thread reads from another process.
pub(super) struct Pull<'a> {
    pub(super) pid: i32,
    pub(super) here: Vec<IoSliceMut<'a>>,
    /// As long as those here, one by one.
    pub(super) there: Vec<RemoteIoVec>,
}

impl Pull<'_> {
    /// Reads all of it.
    ///
    /// # Errors
    /// `PermissionDenied` or `Unsupported`: this host allows no such thing. Memory that is not there.
    pub(super) fn run(mut self) -> io::Result<()> {
        let pid = Pid::from_raw(self.pid);
        let (mut here, mut there) = (&mut self.here[..], &mut self.there[..]);
        while !here.is_empty() {
            let len = here.len().min(VECTOR_LEN);
            match process_vm_readv(pid, &mut here[..len], &there[..len]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    IoSliceMut::advance_slices(&mut here, read);
                    advance(&mut there, read);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(io::Error::from(error)),
            }
        }
        Ok(())
    }
}

/// As `IoSliceMut::advance_slices`.
fn advance(there: &mut &mut [RemoteIoVec], mut read: usize) {
    let mut whole = 0;
    while let Some(block) = there.get(whole).filter(|block| block.len <= read) {
        read -= block.len;
        whole += 1;
    }
    *there = &mut std::mem::take(there)[whole..];
    if let Some(block) = there.first_mut() {
        block.base += read;
        block.len -= read;
    }
}
