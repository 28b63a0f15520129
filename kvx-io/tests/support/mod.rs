//! Memory, a scripted host, and lanes: what the tests of every transport's lanes are written in.
#![allow(dead_code, reason = "each of them uses a part")]

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use kvx_core::error::{LaneError, Refusal, Violation};
use kvx_core::id::{LaneId, RegionId, Slot, TransferId};
use kvx_core::plan::{Plan, PlanOptions, Span, Spans};
use kvx_core::proto::LaneKey;
use kvx_core::region::{Gate, Region, RegionKey, Rights};
use kvx_core::time::Time;
use kvx_core::transport::{
    Admission, AnswerFrame, HostMemory, HostSpan, Landing, Lane, LaneHost, LaneOpen, LocalSpan,
    MemoryKind, MemoryProvider, OutFrame, PlannedFrame, Transport,
};
use kvx_core::wire::frame::FrameRuns;
use kvx_core::wire::{FrameHeader, FrameKind, WireSpan};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// What lies where nothing may land.
pub const SENTINEL: u8 = 0xee;

/// Nothing here takes this long; a test that waits so long has hung.
pub const HUNG: Duration = Duration::from_secs(60);

pub const PAGE: usize = 4096;

/// Memory, filled with the sentinel.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    len: usize,
    /// What others may map, if they may.
    memfd: Option<OwnedFd>,
}

// SAFETY: the memory is reached by copies only, and the tests order those by waiting for events.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(len: usize) -> Arc<Self> {
        let flags = MapFlags::PRIVATE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, prot, flags) };
        Self::filled(base.unwrap().cast(), len, None)
    }

    /// Memory that others may map to read, as engines allocate it; its file has this name.
    pub fn shared(name: &str, len: usize) -> Arc<Self> {
        let memfd = unsealed(name, len);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, &memfd, 0) };
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
        Self::filled(base.unwrap().cast(), len, Some(memfd))
    }

    fn filled(base: *mut u8, len: usize, memfd: Option<OwnedFd>) -> Arc<Self> {
        base.expose_provenance();
        // SAFETY: the mapping is writable, and `len` bytes long.
        unsafe { ptr::write_bytes(base, SENTINEL, len) };
        Arc::new(Self { base, len, memfd })
    }

    /// Every byte tells its place from now on.
    pub fn imprint(&self, seed: u8) {
        let bytes: Vec<u8> = (0..self.len).map(|at| pattern(at, seed)).collect();
        // SAFETY: the mapping is writable, and as long as `bytes`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base, bytes.len()) };
    }

    /// Memory in which every byte tells its place.
    pub fn patterned(len: usize, seed: u8) -> Arc<Self> {
        Self::of(&(0..len).map(|at| pattern(at, seed)).collect::<Vec<u8>>())
    }

    pub fn of(bytes: &[u8]) -> Arc<Self> {
        let memory = Self::new(bytes.len());
        // SAFETY: the mapping is writable, and as long as `bytes`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), memory.base, bytes.len()) };
        memory
    }

    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let mut bytes = vec![0; len];
        // SAFETY: within the mapping, which is readable but where a test made it unreachable.
        let from = unsafe { self.base.add(offset) };
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        bytes
    }

    pub fn all(&self) -> Vec<u8> {
        self.read(0, self.len)
    }

    pub fn address(&self) -> u64 {
        self.base.addr() as u64
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes a page unreachable.
    pub fn protect(&self, page: usize) {
        // SAFETY: within the mapping.
        let at = unsafe { self.base.add(page * PAGE) };
        // SAFETY: nothing borrows the page; reads of it are the tests' to avoid.
        unsafe { rustix::mm::mprotect(at.cast(), PAGE, MprotectFlags::empty()) }.unwrap();
    }

    pub fn region(self: &Arc<Self>) -> Arc<Region> {
        match self.memfd {
            Some(_) => region(SharedMemory(Arc::clone(self))),
            None => region(HostMemory::new(self.address(), self.len as u64).unwrap()),
        }
    }
}

/// A memfd with all its pages that anybody may still cut.
pub fn unsealed(name: &str, len: usize) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create(name, flags).unwrap();
    rustix::fs::fallocate(&memfd, FallocateFlags::empty(), 0, len as u64).unwrap();
    memfd
}

/// Keeps the memory mapped, as an engine's own.
#[derive(Debug)]
struct SharedMemory(Arc<Memory>);

impl MemoryProvider for SharedMemory {
    fn kind(&self) -> MemoryKind {
        MemoryKind::Host
    }

    fn len(&self) -> u64 {
        self.0.len as u64
    }

    fn base(&self) -> u64 {
        self.0.address()
    }

    fn host(&self, span: LocalSpan) -> Option<HostSpan> {
        Some(HostSpan { address: self.base() + span.offset, len: u64::from(span.len) })
    }

    fn memfd(&self) -> Option<BorrowedFd<'_>> {
        self.0.memfd.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's, and every lane that used it has ended, or no
        // longer has a frame that names it.
        unsafe { rustix::mm::munmap(self.base.cast(), self.len) }.unwrap();
    }
}

pub fn pattern(at: usize, seed: u8) -> u8 {
    (at as u8) ^ ((at >> 8) as u8).wrapping_mul(31) ^ seed
}

pub fn region(memory: impl MemoryProvider + 'static) -> Arc<Region> {
    static LAST: AtomicU32 = AtomicU32::new(0);
    Arc::new(Region {
        id: RegionId::new(LAST.fetch_add(1, Ordering::Relaxed), 1),
        memory: Arc::new(memory),
        rights: Rights::all(),
        key: RegionKey::new([1; 16]),
        gate: Gate::new(),
    })
}

/// What a host was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Arrived(FrameKind, TransferId),
    Finished(TransferId, Result<(), Refusal>),
    Acknowledged(u64),
    Closed(String),
}

type Hook = Box<dyn FnMut(&Event) -> Result<(), Violation> + Send>;

/// A READ under way: its plan and its local regions.
type Read = (Arc<Plan>, Arc<[Arc<Region>]>);

/// A host that admits whatever names one of its slots.
pub struct Host {
    state: Mutex<State>,
    changed: Condvar,
    now: AtomicU64,
    hook: Mutex<Option<Hook>>,
}

#[derive(Default)]
struct State {
    out: VecDeque<OutFrame>,
    /// Threads that were given a frame.
    senders: Vec<ThreadId>,
    events: Vec<Event>,
    slots: HashMap<Slot, Arc<Region>>,
    reads: HashMap<TransferId, Read>,
    gates: Vec<Arc<Gate>>,
    /// Frames dealt with, if they are to be acknowledged.
    acknowledge: Option<u64>,
    /// Called, once, when there is no frame to give.
    on_empty: Option<Box<dyn FnOnce() + Send>>,
}

impl Host {
    pub fn new(slots: &[&Arc<Region>]) -> Arc<Self> {
        let slots = slots.iter().enumerate();
        let state = State {
            slots: slots.map(|(slot, region)| (Slot(slot as u32), Arc::clone(region))).collect(),
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            now: AtomicU64::new(1),
            hook: Mutex::new(None),
        })
    }

    pub fn push(&self, frames: impl IntoIterator<Item = OutFrame>) {
        self.state.lock().unwrap().out.extend(frames);
    }

    pub fn acknowledge(&self) {
        self.state.lock().unwrap().acknowledge = Some(0);
    }

    /// What must stay open from the next frame on.
    pub fn guard(&self, gates: &[&Arc<Gate>]) {
        self.state.lock().unwrap().gates = gates.iter().copied().cloned().collect();
    }

    pub fn expect_read(&self, transfer: TransferId, plan: &Arc<Plan>, local: &[Arc<Region>]) {
        let read = (Arc::clone(plan), local.into());
        self.state.lock().unwrap().reads.insert(transfer, read);
    }

    pub fn set_now(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    pub fn on_event(&self, hook: impl FnMut(&Event) -> Result<(), Violation> + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Calls `hook`, once, inside a `next_frame` that gives nothing.
    pub fn on_empty(&self, hook: impl FnOnce() + Send + 'static) {
        self.state.lock().unwrap().on_empty = Some(Box::new(hook));
    }

    pub fn events(&self) -> Vec<Event> {
        self.state.lock().unwrap().events.clone()
    }

    pub fn senders(&self) -> Vec<ThreadId> {
        self.state.lock().unwrap().senders.clone()
    }

    /// Waits until as many events satisfy `which`.
    pub fn wait_count(&self, count: usize, which: impl Fn(&Event) -> bool) {
        let mut state = self.state.lock().unwrap();
        while state.events.iter().filter(|event| which(event)).count() < count {
            let (next, waited) = self.changed.wait_timeout(state, HUNG).unwrap();
            state = next;
            assert!(!waited.timed_out(), "hung; events: {:?}", state.events);
        }
    }

    pub fn wait(&self, event: &Event) {
        self.wait_count(1, |seen| seen == event);
    }

    /// Waits for the end of the lane, and gives its cause in words.
    pub fn wait_closed(&self) -> String {
        self.wait_count(1, |event| matches!(event, Event::Closed(_)));
        let causes = self.events().into_iter().filter_map(|event| match event {
            Event::Closed(cause) => Some(cause),
            _ => None,
        });
        let causes: Vec<String> = causes.collect();
        assert_eq!(causes.len(), 1, "closed once");
        causes[0].clone()
    }

    fn note(&self, event: Event) -> Result<(), Violation> {
        let result = self.hook.lock().unwrap().as_mut().map_or(Ok(()), |hook| hook(&event));
        self.state.lock().unwrap().events.push(event);
        self.changed.notify_all();
        result
    }
}

impl LaneHost for Host {
    fn now(&self) -> Time {
        Time::from_nanos(self.now.load(Ordering::SeqCst))
    }

    fn next_frame(&self, _: LaneId) -> Option<OutFrame> {
        let mut state = self.state.lock().unwrap();
        let Some(frame) = state.out.pop_front() else {
            let hook = state.on_empty.take();
            drop(state);
            hook.into_iter().for_each(|hook| hook());
            return None;
        };
        state.senders.push(thread::current().id());
        Some(frame)
    }

    fn frame_arrived(
        &self,
        _: LaneId,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation> {
        self.note(Event::Arrived(header.kind, header.transfer))?;
        let mut state = self.state.lock().unwrap();
        landing.gates.extend(state.gates.iter().cloned());
        landing.expiry = if header.expiry == Time::ZERO { Time::NEVER } else { header.expiry };
        let mut regions = Vec::new();
        let mut spans = Vec::new();
        if header.kind == FrameKind::ReadData {
            let (plan, local) = state.reads[&header.transfer].clone();
            let first = header.first_run as usize;
            regions.extend(local.iter().cloned());
            spans.extend(plan.runs(first..first + header.runs as usize).map(|run| LocalSpan {
                region: run.local,
                len: run.len,
                offset: run.local_offset,
            }));
        } else {
            for span in table {
                let Some(region) = state.slots.get(&span.slot) else {
                    return Ok(Admission::Discard);
                };
                let known = regions.iter().position(|known| Arc::ptr_eq(known, region));
                let index = known.unwrap_or_else(|| {
                    regions.push(Arc::clone(region));
                    regions.len() - 1
                });
                let (len, offset) = (span.len, span.offset);
                spans.push(LocalSpan { region: index as u32, len, offset });
            }
        }
        if header.kind == FrameKind::ReadRequest {
            let len = spans.iter().map(|span| span.len).sum();
            let header = FrameHeader::read_data(header, len);
            state.out.push_back(OutFrame::ReadData(AnswerFrame { header, regions, spans }));
            return Ok(Admission::Discard);
        }
        (landing.regions, landing.spans) = (regions, spans);
        Ok(Admission::Land)
    }

    fn frame_finished(&self, _: LaneId, header: &FrameHeader, outcome: Result<(), Refusal>) {
        let mut state = self.state.lock().unwrap();
        if let Some(processed) = &mut state.acknowledge {
            *processed += 1;
            let ack = FrameHeader::ack(*processed, 0);
            state.out.push_front(OutFrame::Ack(ack));
        }
        drop(state);
        self.note(Event::Finished(header.transfer, outcome)).unwrap();
    }

    fn acknowledged(&self, _: LaneId, ack: &FrameHeader) -> Result<(), Violation> {
        self.note(Event::Acknowledged(ack.processed))
    }

    fn closed(&self, _: LaneId, cause: LaneError) {
        self.note(Event::Closed(cause.to_string())).unwrap();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

/// A run as (local region, offset, remote slot, offset, length).
pub type Move = (u32, usize, u32, usize, usize);

pub fn plan(moves: &[Move]) -> Arc<Plan> {
    let (mut local, mut remote) = (Spans::default(), Spans::default());
    for (region, offset, slot, remote_offset, len) in moves.iter().copied() {
        let len = len as u64;
        local.push(Span { region, offset: offset as u64, len });
        remote.push(Span { region: slot, offset: remote_offset as u64, len });
    }
    let options = PlanOptions { merge: false, ..PlanOptions::default() };
    Arc::new(Plan::pair(&local, &remote, &options).unwrap())
}

/// The frames of a transfer, `per_frame` runs each. The slots are the remote indices.
pub fn frames(
    kind: FrameKind,
    transfer: u64,
    plan: &Arc<Plan>,
    local: &[Arc<Region>],
    per_frame: usize,
) -> Vec<OutFrame> {
    let local: Arc<[Arc<Region>]> = local.into();
    let slots: Arc<[Slot]> = (0..plan.remote_regions() as u32).map(Slot).collect();
    let total = plan.len();
    let firsts = (0..total).step_by(per_frame);
    firsts
        .map(|first| {
            let count = per_frame.min(total - first);
            let (first, count) = (first as u32, count as u32);
            let runs = FrameRuns { first, count, total: total as u32 };
            let range = first as usize..(first + count) as usize;
            let len = plan.runs(range).map(|run| run.len).sum();
            let transfer = TransferId(transfer);
            let header = match kind {
                FrameKind::Write => FrameHeader::write(transfer, None, Time::NEVER, runs, len),
                _ => FrameHeader::read_request(transfer, Time::NEVER, runs),
            };
            let (plan, local, slots) = (Arc::clone(plan), Arc::clone(&local), Arc::clone(&slots));
            let frame = PlannedFrame { header, plan, local, slots };
            match kind {
                FrameKind::Write => OutFrame::Write(frame),
                _ => OutFrame::ReadRequest(frame),
            }
        })
        .collect()
}

pub fn streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    far.set_read_timeout(Some(HUNG)).unwrap();
    far.set_write_timeout(Some(HUNG)).unwrap();
    (near, far)
}

/// What a lane on a stream is opened with; of the two sides the one that has dialed.
pub fn lane_open(stream: impl Into<OwnedFd>, dialed: bool) -> LaneOpen {
    LaneOpen { lane: LaneId(1), stream: stream.into(), key: LaneKey::new([5; 32]), dialed }
}

pub fn open(transport: &Arc<impl Transport>, stream: TcpStream, host: &Arc<Host>) -> Arc<dyn Lane> {
    open_side(transport, stream, true, host)
}

/// A lane on one side of a stream.
pub fn open_side(
    transport: &Arc<impl Transport>,
    stream: TcpStream,
    dialed: bool,
    host: &Arc<Host>,
) -> Arc<dyn Lane> {
    transport.open(lane_open(stream, dialed), Arc::clone(host) as Arc<dyn LaneHost>).unwrap()
}

pub fn done(transfer: u64) -> Event {
    Event::Finished(TransferId(transfer), Ok(()))
}

pub fn refused(transfer: u64, refusal: Refusal) -> Event {
    Event::Finished(TransferId(transfer), Err(refusal))
}
