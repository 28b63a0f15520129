//! Answers that come later: set once by the engine, waited for by threads and async code alike.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use kvx_core::error::{Cause, Error, Operation as Doing, Result};

use crate::memory::process_id;

/// How long a waiting thread looks before it sleeps: about what waking it would cost.
const SPIN: Duration = Duration::from_micros(20);

/// A value that is set once.
#[derive(Debug)]
pub(crate) struct Completion<T> {
    /// Whether `state.value` is there, for looking without the lock.
    set: AtomicBool,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    wakers: Vec<Waker>,
    /// Threads asleep on `changed`: to wake nobody is a system call too.
    sleepers: usize,
}

impl<T: Clone> Completion<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            set: AtomicBool::new(false),
            state: Mutex::new(State { value: None, wakers: Vec::new(), sleepers: 0 }),
            changed: Condvar::new(),
        })
    }

    /// Sets the value and wakes everyone; the first value stays.
    pub(crate) fn set(&self, value: T) {
        let mut state = self.lock();
        if state.value.is_some() {
            return;
        }
        state.value = Some(value);
        let wakers = std::mem::take(&mut state.wakers);
        let sleepers = state.sleepers;
        self.set.store(true, Ordering::Release);
        drop(state);
        if sleepers > 0 {
            self.changed.notify_all();
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The value, if it is set. Costs one load while it is not.
    pub(crate) fn get(&self) -> Option<T> {
        if !self.is_set() {
            return None;
        }
        self.lock().value.clone()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Waits: looks for a moment, then sleeps.
    pub(crate) fn wait(&self) -> T {
        self.spin(SPIN);
        let mut state = self.lock();
        loop {
            if let Some(value) = &state.value {
                return value.clone();
            }
            state.sleepers += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleepers -= 1;
        }
    }

    /// Whether the value is set; the waker is called when it is.
    pub(crate) fn is_set_or_wakes(&self, cx: &mut Context<'_>) -> bool {
        self.is_set() || self.poll_value(cx).is_ready()
    }

    /// Waits for `timeout` at most.
    pub(crate) fn wait_timeout(&self, timeout: Duration) -> Option<T> {
        let begin = Instant::now();
        self.spin(SPIN.min(timeout));
        let timeout = timeout.saturating_sub(begin.elapsed());
        let mut state = self.lock();
        state.sleepers += 1;
        let unset = |state: &mut State<T>| state.value.is_none();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, timeout, unset)
            .unwrap_or_else(PoisonError::into_inner);
        state.sleepers -= 1;
        state.value.clone()
    }

    fn spin(&self, at_most: Duration) {
        let begin = Instant::now();
        while !self.is_set() && begin.elapsed() < at_most {
            std::hint::spin_loop();
        }
    }

    fn poll_value(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.lock();
        if let Some(value) = &state.value {
            return Poll::Ready(value.clone());
        }
        if !state.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The state is whole after every step; a panic elsewhere harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's word to set a completion: should the task be dropped with its runtime before, this
/// error stands for what it would have said.
#[derive(Debug)]
pub(crate) struct Promise<T: Clone> {
    completion: Arc<Completion<Result<T>>>,
    otherwise: Option<Error>,
}

impl<T: Clone> Promise<T> {
    pub(crate) fn new(completion: &Arc<Completion<Result<T>>>, otherwise: Error) -> Self {
        Self { completion: Arc::clone(completion), otherwise: Some(otherwise) }
    }

    pub(crate) fn keep(mut self, value: Result<T>) {
        self.otherwise = None;
        self.completion.set(value);
    }
}

impl<T: Clone> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(error) = self.otherwise.take() {
            self.completion.set(Err(error));
        }
    }
}

/// An operation under way. Await it, [`wait`](Self::wait) for it on a thread, or
/// [`poll`](Self::poll) it; every operation ends by its deadline. Dropping it detaches it.
#[derive(Clone, Debug)]
#[must_use = "an operation that nobody waits for goes on, but its error is lost"]
pub struct Operation<T> {
    completion: Arc<Completion<Result<T>>>,
    /// The process that began it: in a forked child nobody ends it, and who held the lock of its
    /// completion may be gone.
    process: u32,
}

impl<T: Clone> Operation<T> {
    pub(crate) fn new(completion: Arc<Completion<Result<T>>>) -> Self {
        Self { completion, process: process_id() }
    }

    pub(crate) fn done(value: Result<T>) -> Self {
        let completion = Completion::new();
        completion.set(value);
        Self::new(completion)
    }

    /// What the operation is to set.
    pub(crate) fn completion(&self) -> &Completion<Result<T>> {
        &self.completion
    }

    /// Waits on the calling thread.
    ///
    /// # Errors
    /// What the operation failed with.
    pub fn wait(&self) -> Result<T> {
        self.check()?;
        self.completion.wait()
    }

    /// Waits on the calling thread for `timeout` at most; `None`: it is still under way.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<T>> {
        match self.check() {
            Ok(()) => self.completion.wait_timeout(timeout),
            Err(forked) => Some(Err(forked)),
        }
    }

    /// The outcome, if there is one yet. Never waits, and makes no system call.
    pub fn poll(&self) -> Option<Result<T>> {
        match self.check() {
            Ok(()) => self.completion.get(),
            Err(forked) => Some(Err(forked)),
        }
    }

    fn check(&self) -> Result<()> {
        if self.process == process_id() {
            return Ok(());
        }
        Err(Error::new(Doing::Wait, Cause::Forked))
    }
}

impl<T: Clone> Future for Operation<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match self.check() {
            Ok(()) => self.completion.poll_value(cx),
            Err(forked) => Poll::Ready(Err(forked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use kvx_core::error::{Cause, Operation};

    use super::*;

    #[test]
    fn a_promise_is_kept_or_broken_once() {
        let error = || Error::new(Operation::Connect, Cause::ShutDown);
        let completion = Completion::new();
        Promise::new(&completion, error()).keep(Ok(1));
        assert_eq!(completion.wait().unwrap(), 1);
        let completion: Arc<Completion<Result<i32>>> = Completion::new();
        drop(Promise::new(&completion, error()));
        assert!(matches!(completion.wait().unwrap_err().cause, Cause::ShutDown));
    }

    #[test]
    fn the_first_value_stays_and_reaches_every_waiter() {
        let completion = Completion::new();
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let completion = Arc::clone(&completion);
                std::thread::spawn(move || completion.wait())
            })
            .collect();
        assert_eq!(completion.get(), None);
        completion.set(1);
        completion.set(2);
        assert!(waiters.into_iter().all(|waiter| waiter.join().is_ok_and(|value| value == 1)));
    }
}
