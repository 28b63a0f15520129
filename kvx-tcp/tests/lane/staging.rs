//! Memory that cannot be reached in place goes through its provider's staging, whenever that is
//! ready.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use kvx_core::error::Refusal;
use kvx_core::time::Time;
use kvx_core::transport::{
    Access, HostSpan, LocalSpan, MemoryKind, MemoryProvider, Staged, Staging,
};
use kvx_core::wire::FrameKind;
use kvx_tcp::{TcpOptions, TcpTransport};

use crate::support::*;

/// Memory of a device that only its own queue reaches. Each stage and each commit is one job.
#[derive(Clone, Debug)]
struct Device {
    bytes: Arc<Mutex<Vec<u8>>>,
    queue: Arc<Queue>,
    calls: Arc<Mutex<Vec<(Access, usize)>>>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: Mutex<VecDeque<Arc<Job>>>,
    added: Condvar,
}

#[derive(Debug, Default)]
struct Job {
    state: Mutex<(bool, Option<Waker>)>,
}

impl Job {
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.state.lock().unwrap();
        state.1 = Some(cx.waker().clone());
        state.0
    }

    fn complete(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Queue {
    fn add(&self) -> Arc<Job> {
        let job = Arc::new(Job::default());
        self.jobs.lock().unwrap().push_back(Arc::clone(&job));
        self.added.notify_all();
        job
    }

    /// Waits for the next job, and takes it.
    fn next(&self) -> Arc<Job> {
        let mut jobs = self.jobs.lock().unwrap();
        loop {
            if let Some(job) = jobs.pop_front() {
                return job;
            }
            jobs = self.added.wait(jobs).unwrap();
        }
    }

    /// Completes every job from another thread, later.
    fn serve(self: &Arc<Self>) {
        let queue = Arc::clone(self);
        thread::spawn(move || {
            loop {
                queue.next().complete();
            }
        });
    }
}

/// Staging is asked for before its spans are known to be those asked for earlier: one at a time.
#[derive(Debug)]
struct DeviceMemory {
    device: Device,
    len: u64,
    pending: Mutex<Option<Arc<Job>>>,
}

#[derive(Debug)]
struct Buffer {
    device: Device,
    access: Access,
    memory: Arc<Memory>,
    spans: Vec<LocalSpan>,
    hosts: Vec<HostSpan>,
    job: Option<Arc<Job>>,
}

impl Device {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), queue: Arc::default(), calls: Arc::default() }
    }

    fn memory(&self) -> DeviceMemory {
        let len = self.bytes.lock().unwrap().len() as u64;
        DeviceMemory { device: self.clone(), len, pending: Mutex::new(None) }
    }
}

impl MemoryProvider for DeviceMemory {
    fn kind(&self) -> MemoryKind {
        MemoryKind::Cuda(0)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn base(&self) -> u64 {
        1 << 40
    }

    fn host(&self, _: LocalSpan) -> Option<HostSpan> {
        None
    }

    fn stage(&self, access: Access, spans: &[LocalSpan], cx: &mut Context<'_>) -> Poll<Staging> {
        let mut pending = self.pending.lock().unwrap();
        let job = pending.get_or_insert_with(|| self.device.queue.add());
        if !job.poll(cx) {
            return Poll::Pending;
        }
        *pending = None;
        self.device.calls.lock().unwrap().push((access, spans.len()));
        let total: usize = spans.iter().map(|span| span.len as usize).sum();
        let mut bytes = vec![0u8; total];
        let mut at = 0;
        if access == Access::Gather {
            let device = self.device.bytes.lock().unwrap();
            for span in spans {
                let (from, len) = (span.offset as usize, span.len as usize);
                bytes[at..at + len].copy_from_slice(&device[from..from + len]);
                at += len;
            }
        }
        let memory = Memory::of(&bytes);
        let mut next = memory.address();
        let hosts = spans.iter().map(|span| {
            let host = HostSpan { address: next, len: span.len.into() };
            next += host.len;
            host
        });
        let hosts = hosts.collect();
        let device = self.device.clone();
        let spans = spans.to_vec();
        Poll::Ready(Ok(Box::new(Buffer { device, access, memory, spans, hosts, job: None })))
    }
}

impl Staged for Buffer {
    fn spans(&self) -> &[HostSpan] {
        &self.hosts
    }

    fn commit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let job = self.job.get_or_insert_with(|| self.device.queue.add());
        if !job.poll(cx) {
            return Poll::Pending;
        }
        if self.access == Access::Scatter {
            let bytes = self.memory.all();
            let mut device = self.device.bytes.lock().unwrap();
            let mut at = 0;
            for span in &self.spans {
                let (to, len) = (span.offset as usize, span.len as usize);
                device[to..to + len].copy_from_slice(&bytes[at..at + len]);
                at += len;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[test]
fn staged_memory_moves_as_soon_as_it_is_ready() {
    const LEN: usize = 400_000;
    let pattern: Vec<u8> = (0..LEN).map(|at| pattern(at, 5)).collect();
    let (from, to) = (Device::new(pattern.clone()), Device::new(vec![SENTINEL; LEN]));
    from.queue.serve();
    to.queue.serve();
    let plain = Memory::patterned(LEN, 9);
    let plain_target = Memory::new(LEN);
    let sources = [region(from.memory()), plain.region()];
    let target = Host::new(&[&region(to.memory()), &plain_target.region()]);
    let source = Host::new(&[]);

    // Device and host memory share frames, on both sides.
    let moves: Vec<Move> = (0..1000)
        .map(|at| ((at % 2) as u32, at * 400, (at / 2 % 2) as u32, at * 400, 399))
        .collect();
    let sent = frames(FrameKind::Write, 1, &plan(&moves), &sources, 400);
    let count = sent.len();
    source.push(sent);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, far) = streams();
    let _far = open(&transport, far, &target);
    let _near = open(&transport, near, &source);
    target.wait_count(count, |event| matches!(event, Event::Finished(_, Ok(()))));

    let mut model = [vec![SENTINEL; LEN], vec![SENTINEL; LEN]];
    for (region, offset, slot, to, len) in moves.iter().copied() {
        let bytes = if region == 0 {
            pattern[offset..offset + len].to_vec()
        } else {
            plain.read(offset, len)
        };
        model[slot as usize][to..to + len].copy_from_slice(&bytes);
    }
    assert!(*to.bytes.lock().unwrap() == model[0]);
    assert!(plain_target.all() == model[1]);
    // One call a region and frame names all its spans. Plans are in the target's order: of the
    // frames of 400, 400, and 200 runs, the first two begin in the device of the target.
    let calls = |access, lens: &[usize]| lens.iter().map(|len| (access, *len)).collect::<Vec<_>>();
    assert_eq!(*from.calls.lock().unwrap(), calls(Access::Gather, &[200, 200, 100]));
    assert_eq!(*to.calls.lock().unwrap(), calls(Access::Scatter, &[400, 100]));
}

#[test]
fn a_lane_that_waits_for_staging_does_not_hold_up_its_thread() {
    let device = Device::new(vec![SENTINEL; 100]);
    let stuck = Host::new(&[&region(device.memory())]);
    let memory = Memory::new(100);
    let free = Host::new(&[&memory.region()]);
    let transport = TcpTransport::new(TcpOptions::new().io_threads(1)).unwrap();
    let (near, mut peer) = streams();
    let _stuck = open(&transport, near, &stuck);
    let (near, mut other) = streams();
    let _free = open(&transport, near, &free);

    peer.write_all(&write_bytes(1, Time::NEVER, &[(0, 3, b"staged")])).unwrap();
    let job = device.queue.next();
    other.write_all(&write_bytes(2, Time::NEVER, &[(0, 3, b"in place")])).unwrap();
    free.wait(&done(2));
    job.complete();
    device.queue.next().complete();
    stuck.wait(&done(1));
    assert_eq!(&device.bytes.lock().unwrap()[..10], b"\xee\xee\xeestaged\xee");
}

#[test]
fn nothing_is_committed_after_the_fence() {
    for fence_at_commit in [false, true] {
        let device = Device::new(vec![SENTINEL; 100]);
        let region = region(device.memory());
        let host = Host::new(&[&region]);
        let transport = TcpTransport::new(TcpOptions::new()).unwrap();
        let (near, mut peer) = streams();
        let lane = open(&transport, near, &host);
        peer.write_all(&write_bytes(1, Time::NEVER, &[(0, 3, b"staged")])).unwrap();
        let mut job = device.queue.next();
        if fence_at_commit {
            job.complete();
            job = device.queue.next();
        }
        region.gate.close();
        // A wake is enough: the lane need not wait for the provider to find the gate closed.
        lane.wake();
        host.wait(&refused(1, Refusal::RegionClosed));
        job.complete();
        peer.write_all(&write_bytes(2, Time::NEVER, &[(9, 0, b"no slot")])).unwrap();
        host.wait_count(2, |event| matches!(event, Event::Arrived(..)));
        assert_eq!(*device.bytes.lock().unwrap(), [SENTINEL; 100]);
    }
}
