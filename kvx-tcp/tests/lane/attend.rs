//! A thread that waits sees to its lane meanwhile, and leaves it whole.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use kvx_core::error::LaneError;
use kvx_core::time::Time;
use kvx_core::transport::{Lane, Transport};
use kvx_core::wire::FrameKind;
use kvx_tcp::{TcpOptions, TcpTransport};

use crate::support::*;

/// What a thread waits for.
#[derive(Default)]
struct Wait {
    is_over: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Wait {
    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// A thread that attends the lane until the wait ends. Back when it has asked whether it has.
    fn attend(self: &Arc<Self>, lane: &Arc<dyn Lane>) -> JoinHandle<()> {
        let (lane, wait) = (Arc::clone(lane), Arc::clone(self));
        let (asked, first) = channel();
        let attendant = thread::spawn(move || {
            lane.attend(None, &mut |cx| {
                *wait.waker.lock().unwrap() = Some(cx.waker().clone());
                let is_over = wait.is_over.load(Ordering::SeqCst);
                let _ = asked.send(());
                is_over
            });
        });
        first.recv_timeout(HUNG).unwrap();
        attendant
    }
}

/// Tells on which threads frames are finished.
fn finishers(host: &Host) -> Receiver<ThreadId> {
    let (told, finished) = channel();
    host.on_event(move |event| {
        if let Event::Finished(..) = event {
            let _ = told.send(thread::current().id());
        }
        Ok(())
    });
    finished
}

struct Scene {
    memory: Arc<Memory>,
    host: Arc<Host>,
    transport: Arc<TcpTransport>,
    lane: Arc<dyn Lane>,
    peer: TcpStream,
}

impl Scene {
    fn new() -> Self {
        let memory = Memory::new(100);
        let host = Host::new(&[&memory.region()]);
        let transport = TcpTransport::new(TcpOptions::new().io_threads(1)).unwrap();
        let (near, peer) = streams();
        let lane = open(&transport, near, &host);
        Self { memory, host, transport, lane, peer }
    }

    fn write(&mut self, transfer: u64, bytes: &[u8]) {
        self.peer.write_all(&write_bytes(transfer, Time::NEVER, &[(0, 0, bytes)])).unwrap();
    }
}

#[test]
fn what_arrives_is_received_by_the_thread_that_waits() {
    let mut scene = Scene::new();
    let finished = finishers(&scene.host);
    scene.write(1, b"before");
    scene.host.wait(&done(1));
    let io_thread = finished.recv().unwrap();

    let wait = Arc::new(Wait::default());
    let attendant = wait.attend(&scene.lane);
    let mut attended = 0;
    for transfer in 2..50 {
        scene.write(transfer, b"during");
        scene.host.wait(&done(transfer));
        let thread = finished.recv().unwrap();
        assert!(thread == attendant.thread().id() || thread == io_thread);
        attended += u32::from(thread != io_thread);
    }
    // The first may still have been the I/O thread's.
    assert!(attended >= 47, "{attended} of 48 by the thread that waits");
    assert_eq!(scene.memory.read(0, 6), b"during");

    wait.end();
    attendant.join().unwrap();
    scene.write(50, b"after.");
    scene.host.wait(&done(50));
    assert_eq!(finished.recv().unwrap(), io_thread);
    assert_eq!(scene.memory.read(0, 6), b"after.");
}

#[test]
fn an_attendant_leaves_at_its_timeout() {
    let mut scene = Scene::new();
    let finished = finishers(&scene.host);
    scene.lane.attend(Some(Duration::from_millis(10)), &mut |_| false);
    scene.lane.attend(Some(Duration::ZERO), &mut |_| false);
    scene.write(1, b"after.");
    scene.host.wait(&done(1));
    assert_ne!(finished.recv().unwrap(), thread::current().id());
}

#[test]
fn an_attendant_that_leaves_half_a_frame_leaves_it_to_the_io_thread() {
    for cut in [1, 63, 64, 70, 80, 83] {
        let mut scene = Scene::new();
        let wait = Arc::new(Wait::default());
        let attendant = wait.attend(&scene.lane);
        let frame = write_bytes(1, Time::NEVER, &[(0, 0, b"payload")]);
        scene.peer.write_all(&frame[..cut]).unwrap();
        wait_received(&scene.transport, cut as u64);
        wait.end();
        attendant.join().unwrap();
        scene.peer.write_all(&frame[cut..]).unwrap();
        scene.host.wait(&done(1));
        assert_eq!(scene.memory.read(0, 7), b"payload", "cut at {cut}");
    }
}

#[test]
fn a_lane_has_one_attendant_and_the_second_goes_at_once() {
    let mut scene = Scene::new();
    let wait = Arc::new(Wait::default());
    let attendant = wait.attend(&scene.lane);
    scene.lane.attend(None, &mut |_| panic!("not asked: the lane is attended"));
    scene.write(1, b"served");
    scene.host.wait(&done(1));
    wait.end();
    attendant.join().unwrap();
}

#[test]
fn the_end_of_a_lane_ends_its_attendance() {
    let ends: [fn(&Scene); 4] = [
        |scene| scene.lane.close(LaneError::SourceGone),
        |scene| scene.transport.shutdown(),
        |scene| scene.peer.shutdown(std::net::Shutdown::Both).unwrap(),
        // Not the beginning of a frame.
        |scene| (&scene.peer).write_all(&[0xff; 64]).unwrap(),
    ];
    for end in ends {
        let scene = Scene::new();
        let attendant = Arc::new(Wait::default()).attend(&scene.lane);
        end(&scene);
        scene.host.wait_closed();
        attendant.join().unwrap();
        scene.lane.attend(None, &mut |_| panic!("not asked: the lane has ended"));
    }
}

#[test]
fn a_lane_that_was_full_goes_on_when_its_attendant_has_come_or_gone() {
    let source = Memory::patterned(1 << 20, 1);
    let moves: Vec<Move> = (0..64).map(|at| (0, at << 14, 0, at << 14, 1 << 14)).collect();
    for leaves_early in [false, true] {
        let target = Memory::new(source.len());
        let (near_host, far_host) = (Host::new(&[]), Host::new(&[&target.region()]));
        near_host.push(frames(FrameKind::Write, 1, &plan(&moves), &[source.region()], 4));
        let transport = TcpTransport::new(TcpOptions::new().send_buffer(4096)).unwrap();
        let (near, far) = streams();
        let lane = open(&transport, near, &near_host);
        lane.drive(1 << 20);
        let wait = Arc::new(Wait::default());
        // The socket is full; nobody reads.
        let attendant = wait.attend(&lane);
        if leaves_early {
            wait.end();
        }
        let _far = open(&transport, far, &far_host);
        far_host.wait_count(16, |event| matches!(event, Event::Finished(_, Ok(()))));
        assert!(target.all() == source.all());
        wait.end();
        attendant.join().unwrap();
    }
}
