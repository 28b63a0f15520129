//! Which process this is, without a system call. Not a registry of forks.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A page is the least that can be mapped.
const PAGE: usize = 4096;

/// The id of this process, as [`std::process::id`] has it, and about as cheap as a load.
///
/// It stands in a page that the kernel empties in a forked child (MADV_WIPEONFORK, madvise(2)), so
/// that no way to fork, however far below libc, leaves a child with its parent's id.
pub fn process_id() -> u32 {
    static KNOWN: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    let Some(known) = KNOWN.get_or_init(wiped_on_fork) else {
        return std::process::id();
    };
    match known.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            known.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// A number that is 0 at first, and in each forked child again. `None` where the kernel has no
/// such pages (before Linux 4.14, or under an emulator).
fn wiped_on_fork() -> Option<&'static AtomicU32> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let mapped = unsafe {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        mmap_anonymous(std::ptr::null_mut(), PAGE, rights, MapFlags::PRIVATE)
    };
    let page = NonNull::new(mapped.ok()?)?;
    // SAFETY: the page is ours, and empty: to empty it in a child changes nothing that anyone
    // relies on.
    if unsafe { madvise(page.as_ptr(), PAGE, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: nothing refers to the page.
        let _ = unsafe { munmap(page.as_ptr(), PAGE) };
        return None;
    }
    // SAFETY: the page is aligned, zeroed, which is a value of an AtomicU32, never unmapped, and
    // reached through this reference alone.
    Some(unsafe { page.cast().as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_has_its_own_id_and_its_parent_keeps_its_own() {
        assert_eq!(process_id(), std::process::id());
        // SAFETY: the child makes no call but those below, none of which allocates or locks: the
        // OnceLock is initialised.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let own = process_id() == std::process::id() && process_id() == std::process::id();
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!own)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made; `status` is borrowed for the call.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child took itself for its parent");
        assert_eq!(process_id(), std::process::id());
    }
}
