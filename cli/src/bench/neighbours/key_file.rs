//! An auth key for the processes of one benchmark, in a file that goes with the last of them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

/// Random bytes of a key.
const LEN: usize = 32;

/// A key file without a name, which this process's children inherit: it leaves nothing behind,
/// however they end.
#[derive(Debug)]
pub(super) struct KeyFile {
    /// Where this process, and each child, finds it among its own descriptors.
    path: PathBuf,
    _memfd: File,
}

impl KeyFile {
    /// Draws a key, and writes it where only this user can read it.
    pub(super) fn create() -> io::Result<Self> {
        let mut random = [0; LEN];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        // Not closed on exec: the children find it under the same number.
        let memfd = memfd_create("kvx-bench-key", MemfdFlags::empty())?;
        fchmod(&memfd, Mode::RUSR | Mode::WUSR)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", memfd.as_raw_fd()));
        let mut memfd = File::from(memfd);
        // Hexadecimal: a last byte that is a newline would not count.
        for byte in random {
            write!(memfd, "{byte:02x}")?;
        }
        Ok(Self { path, _memfd: memfd })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
