//! The other limit: memcpy of the same blocks within this process. Not the other side's memory.

use std::io;
use std::time::Duration;

use nix::sys::prctl::set_thp_disable;

use super::super::workload::{Blocks, Span};
use super::memory::{Memory, check_pairs, invalid, shares};
use super::party::MAX_CONNECTIONS;
use super::together::together;

/// The pages that memory lies on, which a copy's speed depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// As the kernel likes it: huge ones, where they are on for all anonymous memory.
    Any,
    /// The smallest, as those of a memfd usually are.
    Small,
}

/// Copies the blocks from one side's memory to the other's, both in this process.
pub(crate) struct Copier {
    source: Vec<Span>,
    from: Memory,
    to: Memory,
    /// Numbers of threads that have copied the right bytes once.
    checked: [bool; MAX_CONNECTIONS + 1],
}

impl Copier {
    /// Makes and touches the memory.
    ///
    /// # Errors
    /// Blocks that do not pair up, overlap at the target or lie outside of their memory; not enough
    /// memory.
    pub(crate) fn new(blocks: &Blocks, pages: Pages) -> io::Result<Self> {
        let Blocks { source, target, source_len, target_len } = blocks;
        check_pairs(source, target)?;
        let both = || {
            [(*source_len, source), (*target_len, target)]
                .map(|(len, spans)| Memory::new(len, spans))
        };
        let [from, to] = match pages {
            Pages::Any => both(),
            Pages::Small => on_small_pages(both),
        };
        let (mut from, mut to) = (from?, to?);
        from.fill();
        to.slices_mut()?;
        Ok(Self { source: source.clone(), from, to, checked: [false; MAX_CONNECTIONS + 1] })
    }

    /// One copy of all blocks by so many threads, 1 to 4. The first of each number is preceded by
    /// one that does not count, whose bytes are compared.
    ///
    /// # Errors
    /// Another number of threads; bytes that were copied wrong.
    pub(crate) fn rep(&mut self, threads: usize) -> io::Result<Duration> {
        let checked = self.checked.get(threads).copied().filter(|_| threads > 0);
        if !checked.ok_or_else(|| invalid("1 to 4 threads"))? {
            self.to.wipe();
            self.copy(threads)?;
            if self.to.count_wrong(&self.source) > 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong bytes were copied"));
            }
            self.checked[threads] = true;
        }
        self.copy(threads)
    }

    fn copy(&mut self, threads: usize) -> io::Result<Duration> {
        let shares = shares(&self.source, threads);
        let sources = self.from.sources(&shares);
        let targets = self.to.targets(&shares)?;
        let jobs = sources.into_iter().zip(targets).map(|(sources, mut targets)| {
            move || {
                for (target, source) in targets.iter_mut().zip(&sources) {
                    target.copy_from_slice(source);
                }
                Ok(())
            }
        });
        together(jobs, || Ok(()), || {})
    }
}

/// Does `make`, whose memory gets no huge pages. The kernel may join its pages later, but takes
/// its time (khugepaged: 16 MiB in 10 s).
fn on_small_pages<R>(make: impl FnOnce() -> R) -> R {
    // It fails for nobody who names a flag.
    let _ = set_thp_disable(true);
    let made = make();
    let _ = set_thp_disable(false);
    made
}
