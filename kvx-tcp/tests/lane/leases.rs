//! A fence waits for the system call in progress, and for no more: shown with a call that the test
//! holds up, for its memory is not there until the test says so (userfaultfd(2)).

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::{io, thread};

use kvx_core::region::Gate;
use kvx_core::time::Time;
use kvx_core::wire::FrameKind;
use kvx_tcp::{TcpOptions, TcpTransport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::Advice;

use crate::support::*;

#[test]
fn a_fence_waits_for_the_call_that_writes() {
    let target = Memory::new(16 * PAGE);
    let Some(missing) = missing("a_fence_waits_for_the_call_that_writes", &target) else {
        return;
    };
    let region = target.region();
    let host = Host::new(&[&region]);
    let gate = Arc::new(Gate::new());
    host.guard(&[&gate]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut peer) = streams();
    let _lane = open(&transport, near, &host);
    peer.write_all(&write_bytes(1, Time::NEVER, &[(0, 0, b"in progress")])).unwrap();
    fence_during_the_call(&missing, &[&region.gate, &gate]);
    host.wait(&done(1));
    assert_eq!(target.read(0, 12), b"in progress\0", "the call went on to its end");
}

#[test]
fn a_fence_waits_for_the_call_that_reads() {
    let source = Memory::new(16 * PAGE);
    let Some(missing) = missing("a_fence_waits_for_the_call_that_reads", &source) else {
        return;
    };
    let region = source.region();
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, _peer) = streams();
    let moves = [(0, 0, 0, 0, 16 * PAGE)];
    host.push(frames(FrameKind::Write, 1, &plan(&moves), &[Arc::clone(&region)], 1));
    let _lane = open(&transport, near, &host);
    fence_during_the_call(&missing, &[&region.gate]);
}

/// Closes the gates while the call is held up, and fills the memory: the gates drain then, and not
/// before.
fn fence_during_the_call(missing: &Missing, gates: &[&Gate]) {
    missing.wait();
    gates.iter().for_each(|gate| gate.close());
    assert!(gates.iter().all(|gate| !gate.is_drained()), "the call is under way");
    missing.fill();
    while !gates.iter().all(|gate| gate.is_drained()) {
        thread::yield_now();
    }
}

/// The pages of a memory, if the test can run here: otherwise it counts as skipped.
#[allow(clippy::print_stdout, reason = "who runs the test sees why it does not")]
fn missing(test: &str, memory: &Memory) -> Option<Missing> {
    match Missing::from(memory) {
        Ok(missing) => Some(missing),
        Err(error) => {
            let line = format!("KVX-SKIP leases::{test}: userfaultfd: {error}\n");
            if let Some(log) = std::env::var_os("KVX_SKIP_LOG") {
                let log = OpenOptions::new().append(true).create(true).open(log);
                log.unwrap().write_all(line.as_bytes()).unwrap();
            }
            print!("{line}");
            None
        }
    }
}

/// Pages that are missing until they are filled: who touches one waits.
struct Missing {
    faults: OwnedFd,
    start: u64,
    len: u64,
}

impl Missing {
    /// Empties all of a memory. Fails where the process may not: userfaultfd needs a privilege,
    /// for it can hold up system calls.
    fn from(memory: &Memory) -> io::Result<Self> {
        let (start, len) = (memory.address(), memory.len() as u64);
        // Its poll(2) knows descriptors that do not block only.
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the call takes flags and touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd =
            i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the descriptor is new, and nobody else's.
        let faults = unsafe { OwnedFd::from_raw_fd(fd) };
        let missing = Self { faults, start, len };
        missing.ask(UFFDIO_API, &mut Api { api: UFFD_API, features: 0, ioctls: 0 })?;
        let mode = UFFDIO_REGISTER_MODE_MISSING;
        missing.ask(UFFDIO_REGISTER, &mut Register { start, len, mode, ioctls: 0 })?;
        let pages = std::ptr::with_exposed_provenance_mut(start as usize);
        // SAFETY: the mapping is the test's, and no reference to it is formed anywhere.
        unsafe { rustix::mm::madvise(pages, len as usize, Advice::LinuxDontNeed) }?;
        Ok(missing)
    }

    /// Waits until somebody touches a page.
    fn wait(&self) {
        let mut watched = [PollFd::new(&self.faults, PollFlags::IN)];
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        poll(&mut watched, Some(&minute)).unwrap();
        assert_eq!(watched[0].revents(), PollFlags::IN, "somebody touches the memory");
    }

    /// Fills all pages: who waits goes on.
    fn fill(&self) {
        let mut pages = ZeroPage { start: self.start, len: self.len, mode: 0, zeroed: 0 };
        self.ask(UFFDIO_ZEROPAGE, &mut pages).unwrap();
    }

    fn ask<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        let fd = self.faults.as_fd().as_raw_fd();
        // SAFETY: the request's argument is a struct of this layout, borrowed for the call.
        let answer = unsafe { libc::ioctl(fd, request as _, argument) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

// linux/userfaultfd.h: the requests, and `struct uffdio_api`, `uffdio_register` and
// `uffdio_zeropage`.

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_ZEROPAGE: u64 = 0xc020_aa04;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct ZeroPage {
    start: u64,
    len: u64,
    mode: u64,
    zeroed: i64,
}
