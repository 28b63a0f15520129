//! Copies in and out of memory that others read and write at the same time, without undefined
//! behaviour: every access to it is a relaxed atomic one of one size, to an aligned word.
//!
//! Between threads of this program such races are defined: a reader sees old or new words in any
//! mixture. Rust leaves only races of different sizes undefined, which is why bytes at the ends are
//! not accessed as bytes, but as part of their word: a store there is a compare-and-swap that
//! carries the neighbouring bytes through, whoever writes them meanwhile. Writes by the kernel and
//! by other processes lie outside the abstract machine; for the processor they are one more
//! writer. At 8 bytes an access, a copy runs at the speed of memory.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WORD: usize = size_of::<u64>();

/// Memory as a number of aligned words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// Aligned to a word.
    first: NonNull<AtomicU64>,
    /// Words that are there.
    count: usize,
}

impl Words {
    /// The `count` words from `base` on.
    ///
    /// # Safety
    /// As long as the value or a copy of it is used, the memory is mapped, readable and writable,
    /// `base` is aligned to 8 bytes, and this program accesses the memory by nothing but `Words`
    /// and system calls, unless it orders that access after and before all others.
    pub(super) const unsafe fn new(base: NonNull<u8>, count: usize) -> Self {
        Self { first: base.cast(), count }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// If the range lies outside the memory.
    pub(super) fn write(self, offset: usize, bytes: &[u8]) {
        let (head, tail) = self.split(offset, bytes.len());
        let (head, rest) = bytes.split_at(head);
        let (whole, tail) = rest.split_at(rest.len() - tail);
        let mut word = offset / WORD;
        if !head.is_empty() {
            self.merge(word, offset % WORD, head);
            word += 1;
        }
        let (whole, _) = whole.as_chunks::<WORD>();
        for bytes in whole {
            self.word(word).store(u64::from_ne_bytes(*bytes), Relaxed);
            word += 1;
        }
        if !tail.is_empty() {
            self.merge(word, 0, tail);
        }
    }

    /// Copies from `offset` into `bytes`.
    ///
    /// # Panics
    /// If the range lies outside the memory.
    pub(super) fn read(self, offset: usize, bytes: &mut [u8]) {
        let (head, tail) = self.split(offset, bytes.len());
        let (head, rest) = bytes.split_at_mut(head);
        let (whole, tail) = rest.split_at_mut(rest.len() - tail);
        let mut word = offset / WORD;
        if !head.is_empty() {
            let skip = offset % WORD;
            head.copy_from_slice(&self.load(word)[skip..skip + head.len()]);
            word += 1;
        }
        let (whole, _) = whole.as_chunks_mut::<WORD>();
        for bytes in whole {
            *bytes = self.load(word);
            word += 1;
        }
        if !tail.is_empty() {
            tail.copy_from_slice(&self.load(word)[..tail.len()]);
        }
    }

    /// Sets `len` bytes from `offset` on to `byte`.
    ///
    /// # Panics
    /// If the range lies outside the memory.
    pub(super) fn fill(self, offset: usize, len: usize, byte: u8) {
        let pattern = [byte; WORD];
        let (head, tail) = self.split(offset, len);
        let mut word = offset / WORD;
        if head > 0 {
            self.merge(word, offset % WORD, &pattern[..head]);
            word += 1;
        }
        for _ in 0..(len - head - tail) / WORD {
            self.word(word).store(u64::from_ne_bytes(pattern), Relaxed);
            word += 1;
        }
        if tail > 0 {
            self.merge(word, 0, &pattern[..tail]);
        }
    }

    /// The bytes of the range before its first whole word, and those after its last.
    fn split(self, offset: usize, len: usize) -> (usize, usize) {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.count * WORD), "range outside the memory");
        let head = (offset.wrapping_neg() % WORD).min(len);
        (head, (len - head) % WORD)
    }

    /// Replaces a part of a word, and nothing else of it.
    fn merge(self, index: usize, skip: usize, bytes: &[u8]) {
        let word = self.word(index);
        let mut old = word.load(Relaxed);
        loop {
            let mut new = old.to_ne_bytes();
            new[skip..skip + bytes.len()].copy_from_slice(bytes);
            match word.compare_exchange_weak(old, u64::from_ne_bytes(new), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    fn load(self, index: usize) -> [u8; WORD] {
        self.word(index).load(Relaxed).to_ne_bytes()
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < self.count);
        // SAFETY: `split` has checked the range to which `index` belongs against `count`, so that
        // the pointer stays inside the memory that `new` was given.
        let word = unsafe { self.first.add(index) };
        // SAFETY: by the contract of `new` the word is mapped and aligned; all bit patterns are
        // values, and an atomic may change under a shared reference.
        unsafe { word.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every offset and length of a few words against a plain copy.
    #[test]
    fn unaligned_copies_touch_their_bytes_and_no_others() {
        for offset in 0..24 {
            for len in 0..=24 - offset {
                let mut memory = [0x1111_1111_1111_1111_u64; 3];
                let mut model = [0x11_u8; 24];
                let bytes: Vec<u8> = (0..len as u8).map(|byte| byte + 100).collect();
                // SAFETY: three words, used by this thread alone; `memory` is not named meanwhile.
                let words = unsafe { Words::new(NonNull::from(&mut memory).cast(), 3) };
                words.write(offset, &bytes);
                model[offset..offset + len].copy_from_slice(&bytes);
                let mut all = [0; 24];
                words.read(0, &mut all);
                assert_eq!(all, model);
                let mut part = vec![0; len];
                words.read(offset, &mut part);
                assert_eq!(part, bytes);
                words.fill(offset, len, 7);
                model[offset..offset + len].fill(7);
                words.read(0, &mut all);
                assert_eq!(all, model);
            }
        }
    }

    #[test]
    fn writers_of_neighbouring_bytes_never_undo_each_other() {
        let mut memory = [0_u64; 2];
        let base = NonNull::from(&mut memory).cast();
        let offsets = [0_usize, 3, 6, 11];
        let barrier = std::sync::Barrier::new(offsets.len());
        std::thread::scope(|scope| {
            for offset in offsets {
                // SAFETY: two words that outlive the scope, reached by `Words` only inside it.
                let words = unsafe { Words::new(base, 2) };
                let words = Sendable(words);
                let barrier = &barrier;
                scope.spawn(move || {
                    let words = { words }.0;
                    barrier.wait();
                    for round in 0..100_000_u32 {
                        let bytes = [round as u8; 3];
                        words.write(offset, &bytes);
                        let mut seen = [0; 3];
                        words.read(offset, &mut seen);
                        assert_eq!(seen, bytes, "another thread wrote over bytes of this one");
                    }
                });
            }
        });
    }

    struct Sendable(Words);
    // SAFETY: all access through `Words` is atomic.
    unsafe impl Send for Sendable {}
}
