//! Copies from mapped pools into memory that stays mapped, by loads and stores. Which memory that is,
//! is known elsewhere.
//!
//! # Why [`copy`] is not an `unsafe fn`
//! It writes to addresses that no reference vouches for. Who does:
//! - The address of a place comes from a [`MemoryProvider`](kvx_core::transport::MemoryProvider) and
//!   lies inside its region ([`kvx_io::Places`] checks the bounds). [`Places::lasts`] is looked at
//!   here: the memory is its provider's own, which keeps it mapped and writable as long as it lives,
//!   and the caller shows [`Leases`] on the gates of all regions concerned, which are borrowed from
//!   them. It is reached by loads, stores and system calls of any thread at any time, so that nobody
//!   may hold a reference to it unless he keeps all others away, as its owner's unsafe methods say.
//! - Where the bytes come from, [`Pools`] says, which keeps it mapped while it is borrowed.
//!
//! Both may change meanwhile: what is copied then is any mixture of old and new bytes. The copy itself
//! is not Rust's but the C library's.
#![allow(unsafe_code)]

use kvx_core::region::Leases;
use kvx_io::Places;

use crate::message::Sources;
use crate::pools::Pools;

/// Bytes of a block that are asked for while the one before it is copied: beyond them the processor
/// has seen where it goes. With blocks of 1 KiB a tenth of the time, with 16 KiB a twentieth.
const AHEAD: u64 = 256;

const CACHE_LINE: usize = 64;

/// Copies what is due next of `sources` to where it is due in `places`, at most `limit` bytes. Gives
/// how many; less where memory does not last, or is not mapped.
pub(crate) fn copy(
    _held: &Leases<'_>,
    places: &Places,
    sources: &Sources,
    pools: &Pools,
    limit: usize,
) -> usize {
    if !places.lasts() {
        return 0;
    }
    let mut room = limit as u64;
    let mut to = places.rest().iter();
    let mut place = to.next().copied();
    let mut from = sources.in_pools().peekable();
    while let Some((slot, source)) = from.next() {
        let Ok(Some(mut at)) = pools.find(slot, source) else {
            break;
        };
        if let Some((slot, mut next)) = from.peek().copied() {
            next.len = next.len.min(AHEAD);
            if let Ok(Some(next_at)) = pools.find(slot, next) {
                (0..next.len as usize).step_by(CACHE_LINE).for_each(|line| {
                    // SAFETY: inside of what was found.
                    prefetch(unsafe { next_at.add(line) }.as_ptr());
                });
            }
        }
        let mut left = source.len;
        while left > 0 && room > 0 {
            let Some(span) = place.as_mut().filter(|span| span.len > 0) else {
                place = to.next().copied();
                if place.is_none() {
                    break;
                }
                continue;
            };
            let part = left.min(span.len).min(room);
            let target = std::ptr::with_exposed_provenance_mut(span.address as usize);
            // SAFETY: `part` bytes from `at` on are mapped, for they are of what was found; as many
            // from `target` on, as the module says. The two do not overlap: one mapping is this
            // process's own, the other was made to read what another process has made.
            unsafe { libc::memcpy(target, at.as_ptr().cast(), part as usize) };
            // SAFETY: at most the end of what was found.
            at = unsafe { at.add(part as usize) };
            span.address += part;
            span.len -= part;
            left -= part;
            room -= part;
        }
        if left > 0 {
            break;
        }
    }
    limit - room as usize
}

/// Asks for the cache line of an address.
#[cfg(target_arch = "x86_64")]
fn prefetch(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which no address makes fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Asks for the cache line of an address.
#[cfg(target_arch = "aarch64")]
fn prefetch(at: *const u8) {
    // SAFETY: a hint, which no address makes fault.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags));
    }
}

/// There is no portable way to ask.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn prefetch(_: *const u8) {}

#[cfg(test)]
mod tests;
