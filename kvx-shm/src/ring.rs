//! The rings of a lane: each side writes its own, and reads the other's. Not what is in them.
//!
//! A ring is a page of positions and a power of two of words. Its owner writes all of it: how far it
//! has written here ([`PRODUCED`]), and how far it has read the other side's ring ([`CONSUMED`]).
//! So neither side writes where the other reads but for itself. Positions are in words, count up
//! for ever, and begin at 0.
//!
//! # Who wakes whom
//! A side that finds nothing to read leaves a mark ([`ASLEEP`]) that is another each time, looks once
//! more, and sleeps. The other side, having written, looks for a mark that it has not seen yet, and
//! rings. A side that looks again and again, and need not be rung, says so by an even mark. A side
//! that finds no room to write leaves as its mark ([`FULL`]) how far the other side is to read before
//! it rings, so that it is not woken for each message. Both stores and both looks are sequentially
//! consistent, so that one of the two sees what the other has done.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use kvx_core::error::Violation;

use crate::shared::Words;

/// Words of a ring; a power of two. Room for seven of the longest messages, which name some
/// megabyte each.
pub(crate) const RING: u64 = 1 << 15;
/// Where the ring begins, behind the page of positions.
const RING_AT: usize = 512;
/// Words of the whole.
const WORDS: usize = RING_AT + RING as usize;

/// Where the positions are: each on a cache line of its own, for each is written at another pace.
const PRODUCED: usize = 0;
const CONSUMED: usize = 16;
const ASLEEP: usize = 32;
const FULL: usize = 48;
const WITHDRAWN: usize = 64;
/// Two words: the answer to the other side's challenge.
const ANSWER: usize = 80;
const COPYING: usize = 96;

/// This side's ring.
#[derive(Debug)]
pub(crate) struct Own {
    memfd: OwnedFd,
    mapping: Words,
}

impl Own {
    /// # Errors
    /// The kernel has no room.
    pub(crate) fn new() -> std::io::Result<Self> {
        let (memfd, mapping) = Words::create(WORDS)?;
        Ok(Self { memfd, mapping })
    }

    /// The descriptor's number, by which the other side takes it.
    pub(crate) fn number(&self) -> RawFd {
        self.memfd.as_raw_fd()
    }

    /// Answers the other side's challenge.
    pub(crate) fn answer(&self, answer: &[u8; 16]) {
        for (index, word) in (ANSWER..).zip(answer.as_chunks().0) {
            self.word(index).store(u64::from_ne_bytes(*word), Ordering::SeqCst);
        }
    }

    /// Where the answer is in this process's memory.
    pub(crate) fn answer_address(&self) -> u64 {
        (&raw const *self.word(ANSWER)).expose_provenance() as u64
    }

    /// Nothing that was sent on this lane is valid from now on. What is done to the memory that
    /// it named comes after this for whoever copies it.
    pub(crate) fn withdraw(&self) {
        self.word(WITHDRAWN).store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Says that this side copies, until the guard is dropped. To be followed by a look whether the
    /// other side has withdrawn: then either this side sees that, or the other that it copies.
    pub(crate) fn copying(&self) -> Copying<'_> {
        self.word(COPYING).store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Copying(self)
    }

    /// Words from `at` on; the caller has seen that there is room.
    pub(crate) fn write(&self, at: u64, words: &[u64]) {
        for (position, word) in (at..).zip(words) {
            self.word(place(position)).store(*word, Ordering::Relaxed);
        }
    }

    /// All words before `position` are written.
    pub(crate) fn publish(&self, position: u64) {
        self.word(PRODUCED).store(position, Ordering::SeqCst);
    }

    /// All words before `position` were read, and what they said is done.
    pub(crate) fn release(&self, position: u64) {
        self.word(CONSUMED).store(position, Ordering::SeqCst);
    }

    /// Asks to be rung when there is something to read; followed by another look.
    pub(crate) fn mark_asleep(&self) {
        self.mark(|mark| (mark + 1) | 1);
    }

    /// Asks not to be rung when there is something to read.
    pub(crate) fn mark_awake(&self) {
        self.mark(|mark| mark.wrapping_add(1) & !1);
    }

    fn mark(&self, next: impl Fn(u64) -> u64) {
        let _ = self
            .word(ASLEEP)
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |mark| Some(next(mark)));
    }

    /// Asks to be rung once the other side has read so far; followed by another look.
    pub(crate) fn ask_for_room(&self, position: u64) {
        self.word(FULL).store(position, Ordering::SeqCst);
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.mapping.words()[index]
    }
}

/// This side copies.
#[must_use = "it ends when this is dropped"]
pub(crate) struct Copying<'a>(&'a Own);

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.0.word(COPYING).store(0, Ordering::SeqCst);
    }
}

/// The other side's ring. All it says is hostile until it was checked.
#[derive(Debug)]
pub(crate) struct Theirs(Words);

impl Theirs {
    /// # Errors
    /// It is no ring, or none of this user's.
    pub(crate) fn attach(memfd: &OwnedFd, user: u32) -> std::io::Result<Self> {
        Words::attach(memfd, WORDS, user).map(Self)
    }

    /// The answer to this side's challenge.
    pub(crate) fn answer(&self) -> [u8; 16] {
        let mut answer = [0; 16];
        for (index, word) in (ANSWER..).zip(answer.as_chunks_mut().0) {
            *word = self.load(index).to_ne_bytes();
        }
        answer
    }

    /// Words that can be read from `at` on.
    ///
    /// # Errors
    /// More than a ring has.
    pub(crate) fn readable(&self, at: u64) -> Result<u64, Violation> {
        within(self.load(PRODUCED).wrapping_sub(at))
    }

    /// Words that can be written from `at` on, for it has read so far.
    ///
    /// # Errors
    /// It has read what was never written.
    pub(crate) fn room(&self, at: u64) -> Result<u64, Violation> {
        Ok(RING - (at - self.has_read(at)?))
    }

    /// Up to where it has read what this side has written up to `at`.
    ///
    /// # Errors
    /// It has read what was never written.
    pub(crate) fn has_read(&self, at: u64) -> Result<u64, Violation> {
        let read = self.load(CONSUMED);
        // One before the first word is one too far, too: positions do not come round.
        within(at.checked_sub(read).unwrap_or(u64::MAX))?;
        Ok(read)
    }

    /// Copies the words from `at` on; the caller has seen that they can be read.
    pub(crate) fn read(&self, at: u64, into: &mut [u64]) {
        for (position, word) in (at..).zip(into) {
            *word = self.0.words()[place(position)].load(Ordering::Relaxed);
        }
    }

    /// Whether what it has sent is not valid any more. What was copied before this look is as it was
    /// sent where it is not.
    pub(crate) fn is_withdrawn(&self) -> bool {
        fence(Ordering::SeqCst);
        self.load(WITHDRAWN) != 0
    }

    /// Whether it is in the middle of a copy, as far as it says so.
    pub(crate) fn is_copying(&self) -> bool {
        self.load(COPYING) != 0
    }

    /// The mark that it left when it last found nothing to read; none while it looks.
    pub(crate) fn asleep(&self) -> Option<u64> {
        Some(self.load(ASLEEP)).filter(|mark| mark % 2 == 1)
    }

    /// Up to where it wants this side to have read before it is rung for room: this mark, if it was
    /// reached.
    pub(crate) fn wants_room(&self, read: u64) -> Option<u64> {
        Some(self.load(FULL)).filter(|position| (1..=read).contains(position))
    }

    fn load(&self, index: usize) -> u64 {
        self.0.words()[index].load(Ordering::SeqCst)
    }
}

fn place(position: u64) -> usize {
    RING_AT + (position % RING) as usize
}

fn within(words: u64) -> Result<u64, Violation> {
    if words <= RING {
        return Ok(words);
    }
    Err(Violation::Unexpected { message: "a ring's position", why: "it has fewer words" })
}

#[cfg(test)]
impl Own {
    /// As the other side sees it.
    pub(crate) fn as_seen(&self) -> Theirs {
        Theirs::attach(&self.memfd, rustix::process::geteuid().as_raw()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> (Own, Theirs) {
        let own = Own::new().unwrap();
        let theirs = own.as_seen();
        (own, theirs)
    }

    #[test]
    fn words_come_as_they_were_written_round_and_round() {
        let (own, theirs) = ring();
        let message: Vec<u64> = (0..4099).collect();
        let mut read = vec![0; message.len()];
        let mut at = 0;
        for _ in 0..20 {
            own.write(at, &message);
            own.publish(at + message.len() as u64);
            assert_eq!(theirs.readable(at).unwrap(), message.len() as u64);
            theirs.read(at, &mut read);
            assert_eq!(read, message);
            at += message.len() as u64;
            assert_eq!(theirs.readable(at).unwrap(), 0);
        }
    }

    #[test]
    fn who_wants_room_is_rung_when_as_much_was_read_and_not_before() {
        let (own, theirs) = ring();
        assert_eq!(theirs.wants_room(0), None);
        assert_eq!(theirs.wants_room(u64::MAX), None);
        own.ask_for_room(7);
        assert_eq!((theirs.wants_room(6), theirs.wants_room(7)), (None, Some(7)));
    }

    #[test]
    fn positions_that_cannot_be_are_violations() {
        let (own, theirs) = ring();
        own.publish(RING);
        assert_eq!(theirs.readable(0).unwrap(), RING);
        own.publish(RING + 1);
        assert!(theirs.readable(0).is_err());
        assert!(theirs.readable(RING + 2).is_err(), "it went back");
        own.release(5);
        assert_eq!(theirs.room(5).unwrap(), RING);
        assert_eq!(theirs.room(6).unwrap(), RING - 1);
        assert!(theirs.room(4).is_err(), "it has read what was never written");
        own.release(u64::MAX);
        assert!(theirs.has_read(20).is_err(), "it has read what was before the first word");
        assert!(theirs.room(0).is_err());
    }
}
