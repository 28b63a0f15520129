//! The deadlines of an engine's sessions: one task sleeps until the earliest, however many there
//! are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kvx_core::proto::Deadlines;
use kvx_core::time::Time;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::clock;

/// Something whose time may come to its end.
pub(crate) trait Timed: Send + Sync {
    /// Its timer is due. Ends what is late, and says when to look again, if at all. Deadlines that
    /// moved on meanwhile are noticed here, and cost nothing before.
    fn look(self: Arc<Self>, now: Time) -> Option<Time>;
}

/// All timers of an engine's sessions.
#[derive(Default)]
pub(crate) struct Timers {
    queue: Mutex<Queue>,
    /// Wakes the task: something is due earlier than it sleeps.
    earlier: Notify,
}

#[derive(Default)]
struct Queue {
    due: Deadlines<u64>,
    /// Every timer, by its number, and the time under which it stands in `due`, if it does.
    timers: BTreeMap<u64, (Time, Weak<dyn Timed>)>,
    last: u64,
    /// Until when the task sleeps; `None`: there is no task yet.
    sleeps: Option<Time>,
}

/// One timer. Dropping it stops it.
pub(crate) struct Timer {
    timers: Arc<Timers>,
    number: u64,
}

impl Timers {
    /// Calls [`Timed::look`] at `time`, on the task, which `runtime` runs.
    pub(crate) fn start(
        self: &Arc<Self>,
        runtime: &Handle,
        time: Time,
        timed: Weak<dyn Timed>,
    ) -> Timer {
        let mut queue = self.lock();
        queue.last += 1;
        let number = queue.last;
        queue.timers.insert(number, (time, timed));
        queue.due.insert(time, number);
        match queue.sleeps {
            None => {
                queue.sleeps = Some(Time::ZERO);
                runtime.spawn(run(Arc::clone(self)));
            }
            Some(sleeps) if time < sleeps => self.earlier.notify_one(),
            Some(_) => {}
        }
        Timer { timers: Arc::clone(self), number }
    }

    /// Looks at what is due. Returns when to look again.
    fn tick(&self, now: Time) -> Time {
        loop {
            let mut queue = self.lock();
            let Some(number) = queue.due.pop(now) else {
                let next = queue.due.next();
                queue.sleeps = Some(next);
                return next;
            };
            let timed = queue.timers.get(&number).and_then(|(_, timed)| timed.upgrade());
            // Its last handle may be dropped meanwhile, and its timer with it.
            drop(queue);
            let next = timed.and_then(|timed| timed.look(now));
            if let Some(next) = next {
                self.lock().put_back(number, next);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn put_back(&mut self, number: u64, time: Time) {
        if let Some(timer) = self.timers.get_mut(&number) {
            timer.0 = time;
            self.due.insert(time, number);
        }
    }
}

/// Ends with the engine's runtime.
async fn run(timers: Arc<Timers>) {
    loop {
        let pause = timers.tick(clock::now()).saturating_since(clock::now());
        // Without a timer it sleeps until there is one.
        let pause = pause.min(std::time::Duration::from_secs(3600));
        tokio::select! {
            () = timers.earlier.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut queue = self.timers.lock();
        if let Some((time, timed)) = queue.timers.remove(&self.number) {
            queue.due.remove(time, self.number);
            drop(queue);
            drop(timed);
        }
    }
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timers").field("timers", &self.lock().timers.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Timer").field(&self.number).finish()
    }
}
