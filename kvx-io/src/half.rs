//! One half of a lane behind a lock that hardly anyone waits for. Not what the half does.
//!
//! Who finds the half taken leaves a mark and goes; the holder, having let go, looks for the mark
//! and works again. So whatever somebody wanted done is done, by one of the two, and no thread
//! ever stands behind another's system call. Only the end of a lane waits, for a holder that never
//! blocks.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// One half.
#[derive(Debug)]
pub(crate) struct Half<T> {
    state: Mutex<T>,
    /// Someone had work for the half since its holder took it.
    again: AtomicBool,
}

impl<T> Half<T> {
    pub(crate) fn new(state: T) -> Self {
        Self { state: Mutex::new(state), again: AtomicBool::new(false) }
    }

    /// Calls `turn` on the half, if nobody else has it, until it breaks off or has nothing left
    /// to do and nobody has asked for more. Who breaks off takes care of the rest.
    pub(crate) fn work(&self, mut turn: impl FnMut(&mut T) -> ControlFlow<()>) {
        // An exchange, so that who takes the mark down sees what everyone did who put it up.
        self.again.swap(true, Ordering::AcqRel);
        loop {
            // Either this thread finds the lock free, or its holder, having let go, finds the
            // mark: the two fences stand between mark and lock on either side.
            fence(Ordering::SeqCst);
            let Some(mut state) = self.try_lock() else {
                return;
            };
            self.again.swap(false, Ordering::AcqRel);
            let turned = turn(&mut state);
            drop(state);
            fence(Ordering::SeqCst);
            if turned.is_break() || !self.again.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Waits for whoever has the half, and ends it. Who comes meanwhile finds it ended later, or
    /// has left for good.
    pub(crate) fn end(&self, end: impl FnOnce(&mut T)) {
        end(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
