//! Gates: what stands between memory and those who use it, until it is closed and has drained.
//!
//! A gate does not wait: it counts leases, refuses new ones once closed, and calls wakers when the
//! last one has left. Whoever fences memory closes its gate and waits for that call. Whoever holds a
//! lease for longer than a call has itself told of the closing, and then lets go.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use super::Region;

/// Set in [`Gate::state`] once the gate is closed. The bits below count leases; 2^63 of them
/// cannot be held, not even leaked.
const CLOSED: u64 = 1 << 63;

/// Leases that [`Leases`] holds without allocating.
const INLINE_LEASES: usize = 8;

/// Something that can be used until it is closed: a region, a transfer, a grant.
///
/// Entering and leaving are lock-free. The memory orderings promise one thing: whoever has seen
/// [`Gate::is_drained`], or was woken by [`Gate::on_drained`], comes after everything that was
/// done under any lease. Each `leave` releases; it, each `enter` and `close` are read-modify-write
/// operations on one atomic and so continue each other's release sequences; and the load that sees
/// the gate drained acquires them all. That no lease begins after `close` needs no ordering at
/// all: both are read-modify-writes of the same atomic, which have one order.
pub struct Gate {
    /// [`CLOSED`], and the number of leases held. Once closed it only sinks.
    state: AtomicU64,
    /// Who is to be woken when the gate has drained. Empty from then on.
    wakers: Mutex<Vec<Waker>>,
    /// Who is to be told when the gate is closed. Empty from then on.
    closers: Mutex<Vec<Weak<dyn OnClose>>>,
}

/// Something that holds leases for long, and lets go of them when their gate is closed.
pub trait OnClose: Send + Sync {
    /// The gate is closed. Called once, in the call that closes it: to be short, and to take no lock
    /// that is held while gates are closed.
    fn closed(&self);
}

impl Gate {
    /// An open gate.
    pub const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            wakers: Mutex::new(Vec::new()),
            closers: Mutex::new(Vec::new()),
        }
    }

    /// Enters; `None` once the gate is closed. The gate does not drain while the lease is held.
    pub fn enter(&self) -> Option<Lease<'_>> {
        // Compared and exchanged, not added and taken back: a count that rises for a moment after
        // the gate was closed and drained would let it drain twice. Acquire keeps what is done
        // under the lease behind the entry.
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state & CLOSED == 0).then_some(state + 1)
            })
            .ok()
            .map(|_| Lease { gate: self })
    }

    /// Closes the gate: from now on nobody enters. Leases that are held stay valid; the gate has
    /// drained when they have left. Closing again changes nothing.
    pub fn close(&self) {
        // Acquire, because this call itself may be what drains the gate; release, so that who
        // finds the gate closed finds what was done before.
        let before = self.state.fetch_or(CLOSED, Ordering::AcqRel);
        if before == 0 {
            self.wake_all();
        }
        if before & CLOSED == 0 {
            self.tell_all();
        }
    }

    /// Tells `closer`, once, when the gate is closed; at once if it is already. Registering one
    /// that is registered changes nothing.
    pub fn on_close(&self, closer: &Arc<dyn OnClose>) {
        let mut closers = self.closers();
        // Looked up under the lock, as in `on_drained`.
        if !self.is_open() {
            drop(closers);
            closer.closed();
            return;
        }
        let closer = Arc::downgrade(closer);
        if closers.iter().any(|known| known.ptr_eq(&closer)) {
            return;
        }
        // Those that are gone leave before the list grows: it stays within twice those that live.
        if closers.len() == closers.capacity() {
            closers.retain(|known| known.strong_count() > 0);
        }
        closers.push(closer);
    }

    /// Whether one may still enter. The answer is old when it arrives: only a lease keeps a gate
    /// from draining.
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED == 0
    }

    /// Whether the gate is closed and the last lease has left. Stays true once it is.
    pub fn is_drained(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    /// Wakes `waker`, once, when the gate has drained; at once if it has already. May be called
    /// before the gate is closed. Registering a waker that is registered changes nothing.
    pub fn on_drained(&self, waker: &Waker) {
        // Cloned here because a clone runs foreign code, which must not run under the lock.
        let waker = waker.clone();
        let mut wakers = self.wakers();
        // Looked up under the lock, after which the one who drains the gate takes the list. If
        // that one held the lock before us, the lock shows us its last leave; if not, it will
        // find what we put here.
        if self.is_drained() {
            drop(wakers);
            waker.wake();
        } else if !wakers.iter().any(|known| known.will_wake(&waker)) {
            wakers.push(waker);
        }
    }

    fn leave(&self) {
        // Release hands over what was done under the lease; acquire, so that the wakers of the
        // last one to leave run after what the others did.
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.wake_all();
        }
    }

    /// Called once in a gate's life, by the one operation that drained it.
    #[cold]
    fn wake_all(&self) {
        let wakers = mem::take(&mut *self.wakers());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Called once in a gate's life, by the one who closed it.
    #[cold]
    fn tell_all(&self) {
        let closers = mem::take(&mut *self.closers());
        closers.iter().filter_map(Weak::upgrade).for_each(|closer| closer.closed());
    }

    fn closers(&self) -> MutexGuard<'_, Vec<Weak<dyn OnClose>>> {
        self.closers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        // A list of wakers is whole after every step, so that a panic elsewhere harms nothing.
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load(Ordering::Relaxed);
        f.debug_struct("Gate")
            .field("open", &(state & CLOSED == 0))
            .field("leases", &(state & !CLOSED))
            .finish()
    }
}

/// The right to use what a gate guards. Leaves on drop.
#[derive(Debug)]
#[must_use = "a lease that is not held guards nothing"]
pub struct Lease<'a> {
    gate: &'a Gate,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.gate.leave();
    }
}

/// A lease on a region's gate that keeps the region itself, and so may be held for as long as the
/// region is open. Leaves on drop.
#[derive(Debug)]
#[must_use = "a lease that is not held guards nothing"]
pub struct RegionLease(Arc<Region>);

impl RegionLease {
    /// Enters the region's gate; `None` once it is closed.
    pub fn enter(region: &Arc<Region>) -> Option<Self> {
        mem::forget(region.gate.enter()?);
        Some(Self(Arc::clone(region)))
    }

    /// Whether the gate was closed since, and waits for this lease.
    pub fn is_revoked(&self) -> bool {
        !self.0.gate.is_open()
    }
}

impl Drop for RegionLease {
    fn drop(&mut self) {
        // For the lease that was forgotten.
        self.0.gate.leave();
    }
}

/// Leases on several gates at once, as a scatter over many regions needs them. Leaves all of them
/// on drop. Up to eight cost no allocation.
#[derive(Debug)]
#[must_use = "leases that are not held guard nothing"]
pub struct Leases<'a> {
    /// The first leases, without a gap.
    inline: [Option<Lease<'a>>; INLINE_LEASES],
    /// Those beyond.
    spilled: Vec<Lease<'a>>,
}

impl<'a> Leases<'a> {
    /// Enters all of `gates`, or none. A gate may come more than once.
    ///
    /// # Errors
    /// One of the gates is closed.
    pub fn enter(gates: impl IntoIterator<Item = &'a Gate>) -> Result<Self, GateClosed> {
        let mut leases = Self { inline: [const { None }; INLINE_LEASES], spilled: Vec::new() };
        for (index, gate) in gates.into_iter().enumerate() {
            // Those entered so far leave with `leases` when this one is closed.
            let lease = gate.enter().ok_or(GateClosed { index })?;
            match leases.inline.get_mut(index) {
                Some(place) => *place = Some(lease),
                None => leases.spilled.push(lease),
            }
        }
        Ok(leases)
    }
}

/// One of several gates was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gate {index} is closed")]
pub struct GateClosed {
    /// Position of the first closed gate among those that were to be entered.
    pub index: usize,
}

#[cfg(test)]
mod tests;
