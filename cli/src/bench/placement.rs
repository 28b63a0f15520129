//! Which CPUs the two sides of a ping run on: not its figures, but what decides on them most.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps the two sides apart: either is started on a CPU of its own.
///
/// A thread that wakes another on its own CPU is several times faster than one that wakes an idle
/// CPU, and the scheduler does now this, now that, for seconds on end: what is compared would
/// differ by luck.
pub(super) struct Apart {
    allowed: CpuSet,
    near: CpuSet,
    far: CpuSet,
}

impl Apart {
    /// Takes the first and the last of the CPUs that this thread may use; `None` where there is
    /// only one, or where the system does not say.
    pub(super) fn new() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let (first, last) = (cpus.next()?, cpus.next_back()?);
        let only = |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu);
            set
        };
        Some(Self { allowed, near: only(first), far: only(last) })
    }

    /// Does `start` so that the processes it starts keep to one of the two CPUs.
    pub(super) fn far<R>(&self, start: impl FnOnce() -> R) -> R {
        self.on(&self.far, start)
    }

    /// Does `run`, here and in the threads it starts, on the other.
    pub(super) fn near<R>(&self, run: impl FnOnce() -> R) -> R {
        self.on(&self.near, run)
    }

    fn on<R>(&self, cpus: &CpuSet, f: impl FnOnce() -> R) -> R {
        // One that is taken away meanwhile: then the scheduler decides, as it does otherwise.
        let _ = sched_setaffinity(None, cpus);
        let result = f();
        let _ = sched_setaffinity(None, &self.allowed);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_start_where_their_side_is_and_the_thread_gets_its_cpus_back() {
        let before = sched_getaffinity(None).unwrap();
        let Some(apart) = Apart::new() else {
            assert_eq!(before.count(), 1);
            return;
        };
        let here = || std::thread::spawn(|| sched_getaffinity(None).unwrap()).join().unwrap();
        let (near, far) = (apart.near(here), apart.far(here));
        assert_eq!((near.count(), far.count()), (1, 1));
        assert_ne!(near, far);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
