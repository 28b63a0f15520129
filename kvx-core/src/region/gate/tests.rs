use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Wake;
use std::thread;

use super::*;
use crate::region::{RegionKey, Registry, Rights};
use crate::transport::HostMemory;

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell::default());
    (Arc::clone(&bell), Waker::from(bell))
}

/// Wakes the thread that it was made on.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_until_drained(gate: &Gate) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    gate.on_drained(&waker);
    while !gate.is_drained() {
        thread::park();
    }
}

#[test]
fn a_closed_gate_gives_no_leases_and_closing_twice_changes_nothing() {
    let gate = Gate::new();
    assert!(gate.is_open() && !gate.is_drained());
    drop(gate.enter().unwrap());
    gate.close();
    gate.close();
    assert!(gate.enter().is_none());
    assert!(!gate.is_open() && gate.is_drained());
}

#[test]
fn a_gate_drains_when_the_last_lease_leaves_and_then_wakes_everyone_once() {
    let gate = Gate::new();
    let ((early, early_waker), (late, late_waker)) = (bell(), bell());
    gate.on_drained(&early_waker);
    let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
    gate.close();
    gate.on_drained(&late_waker);
    drop(first);
    assert!(!gate.is_drained());
    assert_eq!((early.rings(), late.rings()), (0, 0));
    drop(second);
    assert!(gate.is_drained());
    gate.close();
    assert_eq!((early.rings(), late.rings()), (1, 1));
}

#[test]
fn closing_an_idle_gate_wakes() {
    let gate = Gate::new();
    let (bell, waker) = bell();
    gate.on_drained(&waker);
    drop(gate.enter().unwrap());
    assert_eq!(bell.rings(), 0);
    gate.close();
    assert_eq!(bell.rings(), 1);
}

#[test]
fn a_drained_gate_wakes_at_once() {
    let gate = Gate::new();
    gate.close();
    let (bell, waker) = bell();
    gate.on_drained(&waker);
    assert_eq!(bell.rings(), 1);
}

#[test]
fn a_waker_that_is_registered_again_is_woken_once() {
    let gate = Gate::new();
    let (bell, waker) = bell();
    gate.on_drained(&waker);
    gate.on_drained(&waker.clone());
    gate.close();
    assert_eq!(bell.rings(), 1);
}

#[test]
fn a_waker_may_use_the_gate_that_wakes_it() {
    struct Again(Arc<Gate>, Waker);
    impl Wake for Again {
        fn wake(self: Arc<Self>) {
            assert!(self.0.is_drained());
            self.0.on_drained(&self.1);
        }
    }
    let gate = Arc::new(Gate::new());
    let (bell, waker) = bell();
    gate.on_drained(&Waker::from(Arc::new(Again(Arc::clone(&gate), waker))));
    gate.close();
    assert_eq!(bell.rings(), 1);
}

#[test]
fn leases_on_several_gates_are_all_or_none() {
    for count in [0, 1, INLINE_LEASES, INLINE_LEASES + 1, 40] {
        let gates: Vec<Gate> = (0..count).map(|_| Gate::new()).collect();
        let leases = Leases::enter(&gates).unwrap();
        gates.iter().for_each(Gate::close);
        assert!(!gates.iter().any(Gate::is_drained));
        drop(leases);
        assert!(gates.iter().all(Gate::is_drained));
    }
    for closed in [0, 3, INLINE_LEASES, 11] {
        let gates: Vec<Gate> = (0..12).map(|_| Gate::new()).collect();
        gates[closed].close();
        assert_eq!(Leases::enter(&gates).unwrap_err(), GateClosed { index: closed });
        gates.iter().for_each(Gate::close);
        assert!(gates.iter().all(Gate::is_drained));
    }
}

#[test]
fn one_gate_may_be_leased_twice() {
    let gate = Gate::new();
    let leases = Leases::enter([&gate, &gate]).unwrap();
    gate.close();
    drop(leases);
    assert!(gate.is_drained());
}

/// Workers write under leases while another thread closes, waits, and then takes what was guarded
/// away. A worker that holds a lease must never find it taken.
#[test]
fn after_close_and_drain_nobody_holds_a_lease() {
    for _ in 0..2_000 {
        let gate = Gate::new();
        let taken = AtomicBool::new(false);
        // Relaxed on purpose: that the closer sees the whole sum is the gate's doing.
        let [sum, expected] = [const { AtomicUsize::new(0) }; 2];
        thread::scope(|scope| {
            let worker = || {
                while let Some(_lease) = gate.enter() {
                    assert!(!taken.load(Ordering::SeqCst), "a lease was held after the drain");
                    sum.fetch_add(1, Ordering::Relaxed);
                    expected.fetch_add(1, Ordering::Relaxed);
                    assert!(!taken.load(Ordering::SeqCst), "the drain did not wait for a lease");
                }
            };
            let workers = [scope.spawn(worker), scope.spawn(worker), scope.spawn(worker)];
            gate.close();
            wait_until_drained(&gate);
            taken.store(true, Ordering::SeqCst);
            let at_drain = sum.load(Ordering::Relaxed);
            assert!(gate.enter().is_none());
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(at_drain, expected.load(Ordering::Relaxed));
        });
    }
}

/// The last leave, the close and two registrations race; every waker rings exactly once.
#[test]
fn no_wake_up_is_lost_when_registration_races_with_the_last_leave() {
    for _ in 0..2_000 {
        let gate = Gate::new();
        let bells = [bell(), bell()];
        thread::scope(|scope| {
            let lease = gate.enter().unwrap();
            for (_, waker) in &bells {
                scope.spawn(|| gate.on_drained(waker));
            }
            scope.spawn(|| gate.close());
            scope.spawn(move || drop(lease));
        });
        assert!(gate.is_drained());
        assert_eq!([bells[0].0.rings(), bells[1].0.rings()], [1, 1]);
    }
}

#[test]
fn a_parked_thread_is_woken_by_the_last_leave() {
    for _ in 0..500 {
        let gate = Gate::new();
        thread::scope(|scope| {
            let lease = gate.enter().unwrap();
            gate.close();
            scope.spawn(move || drop(lease));
            wait_until_drained(&gate);
        });
        assert!(gate.is_drained());
    }
}

/// Counts how often it was told.
#[derive(Default)]
struct Told(AtomicUsize);

impl OnClose for Told {
    fn closed(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn told() -> (Arc<Told>, Arc<dyn OnClose>) {
    let told = Arc::new(Told::default());
    (Arc::clone(&told), told)
}

#[test]
fn who_holds_on_is_told_of_the_closing_once_and_before_the_drain() {
    let gate = Gate::new();
    let (count, closer) = told();
    gate.on_close(&closer);
    gate.on_close(&closer);
    let lease = gate.enter().unwrap();
    gate.close();
    gate.close();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(!gate.is_drained());
    drop(lease);
    assert!(gate.is_drained());
    let (late, closer) = told();
    gate.on_close(&closer);
    assert_eq!(late.0.load(Ordering::SeqCst), 1, "who comes late is told at once");
}

#[test]
fn no_closing_is_missed_when_registration_races_with_it() {
    for _ in 0..2_000 {
        let gate = Gate::new();
        let closers = [told(), told()];
        thread::scope(|scope| {
            for (_, closer) in &closers {
                scope.spawn(|| gate.on_close(closer));
            }
            scope.spawn(|| gate.close());
        });
        for (count, _) in &closers {
            assert_eq!(count.0.load(Ordering::SeqCst), 1);
        }
    }
}

#[test]
fn those_that_are_gone_do_not_pile_up_at_a_gate() {
    let gate = Gate::new();
    for _ in 0..10_000 {
        gate.on_close(&told().1);
    }
    assert!(gate.closers().len() < 10);
}

#[test]
fn a_regions_lease_keeps_it_from_draining_and_knows_when_it_is_revoked() {
    let memory = Arc::new(HostMemory::new(0x1000, 64).unwrap());
    let registry = Registry::new();
    let region = registry.register(memory, Rights::empty(), RegionKey::new([1; 16])).unwrap();
    let lease = RegionLease::enter(&region).unwrap();
    assert!(!lease.is_revoked());
    region.gate.close();
    assert!(lease.is_revoked() && !region.gate.is_drained());
    assert!(RegionLease::enter(&region).is_none());
    drop(lease);
    assert!(region.gate.is_drained());
}
