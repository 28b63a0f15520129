//! Memory that processes of this host can map: /dev/shm, and memfds, which are what kvx allocates.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, statvfs};
use rustix::io::Errno;

use super::files::{Files, parsed};
use super::finding::Finding;
use crate::text::bytes_text;

const SHM: &str = "/dev/shm";

/// Serving engines keep more than this in /dev/shm.
const SMALL: u64 = 1 << 30;

pub(super) fn findings(files: &dyn Files) -> Vec<Finding> {
    let size = statvfs(SHM).map_err(|errno| format!("statvfs {SHM}: {errno}"));
    let size = size.map(|size| Size {
        bytes: size.f_blocks.saturating_mul(size.f_frsize),
        free: size.f_bavail.saturating_mul(size.f_frsize),
    });
    let mounted = parsed(files, "/proc/self/mountinfo", |text| mount_options(text, SHM));
    vec![dev_shm(size, mounted.ok()), sealed(seal())]
}

#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: u64,
    free: u64,
}

/// `mounted` are its options, if it is a mount of its own.
fn dev_shm(size: Result<Size, String>, mounted: Option<String>) -> Finding {
    let Size { bytes, free } = match size {
        Ok(size) => size,
        Err(why) => return Finding::unknown(SHM, why),
    };
    let mounted = mounted.unwrap_or("not a mount of its own".to_owned());
    let found = format!("{}, {} free ({mounted})", bytes_text(bytes), bytes_text(free));
    if bytes >= SMALL {
        return Finding::ok(SHM, found);
    }
    let advice = "kvx keeps nothing there, but serving engines do: give the container more with \
                  --shm-size=8g for docker run, or an emptyDir of medium Memory in a pod.";
    Finding::note(SHM, found, advice)
}

/// The options of what is mounted there, in a text as /proc/self/mountinfo is
/// (proc_pid_mountinfo(5)); of several mounts the last covers the others.
fn mount_options(mountinfo: &str, path: &str) -> Option<String> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(path))?;
    let (own, of_file_system) = line.split_once(" - ")?;
    let own = own.split(' ').nth(5)?;
    let mut of_file_system = of_file_system.split(' ');
    let (kind, options) = (of_file_system.next()?, of_file_system.nth(1)?);
    // Both lists begin with rw or ro.
    let options: Vec<_> =
        options.split(',').filter(|option| !matches!(*option, "rw" | "ro")).collect();
    let options = [&[kind, own], &options[..]].concat();
    Some(options.join(","))
}

/// Seals that keep a peer which maps a buffer from changing or cutting it.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE);

/// Makes a memfd, seals it, and sees whether the seals hold.
fn seal() -> Result<bool, (&'static str, Errno)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("kvx-doctor", flags).map_err(|errno| ("memfd_create", errno))?;
    ftruncate(&memfd, 4096).map_err(|errno| ("ftruncate", errno))?;
    fcntl_add_seals(&memfd, SEALS)
        .map_err(|errno| ("seal it (SHRINK, GROW, FUTURE_WRITE)", errno))?;
    Ok(ftruncate(&memfd, 0) == Err(Errno::PERM))
}

fn sealed(outcome: Result<bool, (&'static str, Errno)>) -> Finding {
    const NAME: &str = "memfd";
    match outcome {
        Ok(true) => Finding::ok(NAME, "can be made and sealed; buffers of kvx are such"),
        Ok(false) => {
            let advice = "Run on a Linux kernel: what emulates one here does not keep memory that \
                          is shared from being cut, and kvx is not safe on it.";
            Finding::problem(NAME, "its seals do not hold", advice)
        }
        Err((what, errno)) => {
            let found = format!("{what}: {errno}; kvx can allocate no buffers");
            let advice = "Let the container's seccomp profile allow memfd_create and fcntl, keep \
                          vm.memfd_noexec below 2, and run Linux 5.1 or later.";
            Finding::problem(NAME, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::machines::{CONTAINER, ROOT_BOX};
    use super::*;

    #[test]
    fn the_options_of_the_mount_that_covers_the_others_are_told() {
        let options = |files: &dyn Files| {
            mount_options(&files.read("/proc/self/mountinfo").unwrap(), SHM).unwrap()
        };
        assert_eq!(options(&ROOT_BOX), "tmpfs,rw,nosuid,nodev,inode64");
        assert_eq!(
            options(&CONTAINER),
            "tmpfs,rw,nosuid,nodev,noexec,relatime,size=65536k,inode64"
        );
        let hidden =
            "1 0 0:1 / /dev/shm ro - ramfs none ro\n2 0 0:2 / /dev/shm rw - tmpfs shm rw\n";
        assert_eq!(mount_options(hidden, SHM).unwrap(), "tmpfs,rw");
        for odd in ["", "1 2 3", "1 0 0:1 / /dev/shm rw -", "1 0 0:1 / /dev/shm - tmpfs"] {
            assert_eq!(mount_options(odd, SHM), None, "{odd:?}");
        }
    }

    #[test]
    fn a_small_dev_shm_is_noted_and_a_missing_one_unknown() {
        let size = |bytes| dev_shm(Ok(Size { bytes, free: 0 }), None);
        assert_eq!((size(64 << 20).state(), size(8 << 30).state()), (State::Note, State::Ok));
        assert!(size(64 << 20).found.starts_with("64.0 MiB, 0 B free"));
        assert!(dev_shm(Err("gone".to_owned()), None).found.starts_with("unknown: gone"));
    }

    #[test]
    fn a_memfd_that_cannot_be_sealed_is_a_problem() {
        assert_eq!(sealed(seal()).state(), State::Ok);
        assert_eq!(sealed(Ok(false)).state(), State::Problem);
        let refused = sealed(Err(("memfd_create", Errno::NOSYS)));
        assert_eq!(refused.state(), State::Problem);
        assert!(refused.found.starts_with("memfd_create: "), "{refused:?}");
    }
}
