//! Threads that begin at once, and the time until the last is done. Not what they do.

use std::io;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Does each job on a thread of its own, of which the calling thread is the first. `ready` is called
/// when all threads are there; the time counts from then. A job that fails calls `abort`, which
/// must end those that wait for what will never come.
///
/// # Errors
/// The first failure.
pub(super) fn together<J: FnOnce() -> io::Result<()> + Send>(
    jobs: impl IntoIterator<Item = J>,
    ready: impl FnOnce() -> io::Result<()>,
    abort: impl Fn() + Sync,
) -> io::Result<Duration> {
    let jobs: Vec<J> = jobs.into_iter().collect();
    let gate = Barrier::new(jobs.len());
    let failure = OnceLock::new();
    let fail = |error| {
        let _ = failure.set(error);
        abort();
    };
    let mut spent = Duration::ZERO;
    thread::scope(|scope| {
        let mut jobs = jobs.into_iter();
        let Some(first) = jobs.next() else { return };
        let others: Vec<_> = jobs
            .map(|job| {
                let (gate, fail) = (&gate, &fail);
                scope.spawn(move || {
                    gate.wait();
                    gate.wait();
                    job().unwrap_or_else(fail);
                })
            })
            .collect();
        gate.wait();
        ready().unwrap_or_else(&fail);
        let begin = Instant::now();
        gate.wait();
        first().unwrap_or_else(&fail);
        // One that panicked has printed why, and the bytes are looked at.
        others.into_iter().for_each(|other| _ = other.join());
        spent = begin.elapsed();
    });
    failure.into_inner().map_or(Ok(spent), Err)
}
