//! The task that keeps one link's timers and dials again when its control connection is lost.

use std::sync::Arc;
use std::time::Duration;

use kvx_core::proto::Peer as Protocol;
use kvx_core::time::Time;

use super::Link;
use crate::bootstrap;
use crate::clock;

/// The first pause between two dials; each failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause while something waits for the peer.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause while nothing does.
const IDLE_PAUSE: Duration = Duration::from_secs(10);

/// Looks whether a peer is there happen at multiples of this: one wake of the control thread serves
/// all peers whose turn it is, for a wake costs more than what it is for.
const LOOK_STEP: Duration = Duration::from_millis(250);

/// Runs until the peer is over.
pub(crate) async fn drive(link: Arc<Link>) {
    let mut redial = Redial { failures: 0, not_before: Time::ZERO };
    loop {
        // What this call itself makes earlier, `step` sees below.
        link.arm(Time::ZERO);
        let now = clock::now();
        let owes_acks = link.with(|core| {
            core.protocol.handle_timeout(now);
            core.protocol.owes_acks()
        });
        if owes_acks {
            link.wake_lanes();
        }
        hand_on(&link).await;
        // From here on whoever makes a timeout earlier says so.
        link.arm(Time::NEVER);
        let Some(wake) = redial.step(&link, now) else {
            // Its last words are among what was left.
            hand_on(&link).await;
            return;
        };
        link.arm(wake);
        let pause = wake.saturating_since(clock::now());
        // A peer without timers still wakes: `timers` is notified.
        let pause = pause.min(Duration::from_secs(3600));
        tokio::select! {
            () = link.timers.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Hands the events on that other threads have left, in turn with other peers' tasks.
async fn hand_on(link: &Link) {
    while link.lock().protocol.has_events() {
        link.dispatch();
        tokio::task::yield_now().await;
    }
}

/// When the peer's timers are due.
pub(super) fn next_wake(protocol: &Protocol) -> Time {
    let step = LOOK_STEP.as_nanos() as u64;
    let look = protocol.next_look().as_nanos().checked_next_multiple_of(step).unwrap_or(u64::MAX);
    protocol.next_work().min(Time::from_nanos(look))
}

/// When to dial.
struct Redial {
    failures: u32,
    not_before: Time,
}

impl Redial {
    /// Dials if it is time. Returns when to look again; `None` once the peer is over.
    fn step(&mut self, link: &Arc<Link>, now: Time) -> Option<Time> {
        // After its goodbye an engine must not come back, as another that says none.
        let ends = link.shared.upgrade().is_none_or(|shared| shared.is_closed());
        let mut core = link.lock();
        if core.protocol.cause_of_death().is_some() {
            return None;
        }
        let timeout = next_wake(&core.protocol);
        if core.protocol.is_connected() {
            self.failures = 0;
            self.not_before = Time::ZERO;
            return Some(timeout);
        }
        // Of two connections that crossed either side may have dropped another one: then nobody is
        // left who dialed, but somebody who waits.
        let outstanding = core.protocol.has_outstanding() || core.is_awaited();
        let wanted = (core.dials || outstanding) && core.may_be_dialed();
        if ends || core.dialing || !wanted || link.addresses().is_empty() {
            return Some(timeout);
        }
        if now < self.not_before {
            return Some(timeout.min(self.not_before));
        }
        core.dialing = true;
        drop(core);
        let longest = if outstanding { BUSY_PAUSE } else { IDLE_PAUSE };
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(longest);
        // Two engines that dial each other must not keep step: the id of the clock's tick decides.
        let jitter = pause.mul_f64((now.as_nanos() % 1024) as f64 / 2048.0);
        self.failures += 1;
        self.not_before = now + pause + jitter;
        bootstrap::spawn_dial(Arc::clone(link));
        Some(timeout)
    }
}
