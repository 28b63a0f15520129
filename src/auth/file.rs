//! Reading a key file, and refusing one that others could have read or written.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use kvx_core::error::Cause;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use zeroize::Zeroizing;

use super::unfit;

/// Bytes of a key at least.
const MIN_KEY: usize = 16;
/// Bytes of a key at most.
const MAX_KEY: usize = 4096;

/// Opens a key file. Links are followed, for mounted secrets are links; what they lead to is
/// checked. Nothing blocks should it be a pipe.
pub(super) fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// The key in an open file. `path` is for errors.
pub(super) fn read_key(file: &OwnedFd, path: &Path) -> Result<Zeroizing<Vec<u8>>, Cause> {
    let failed = |error| Cause::io(format!("read auth key file {}", path.display()), error);
    let stat = fstat(file).map_err(|error| failed(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(unfit(path, "expected a regular file"));
    }
    check_owner(stat.st_uid).map_err(|why| unfit(path, why))?;
    check_private(stat.st_mode, 0o600).map_err(|why| unfit(path, why))?;
    // Room for a newline, and for one byte that shows that the file is too long. All of it at
    // once: a growing vector would leave parts of the key behind.
    let mut key = Zeroizing::new(Vec::with_capacity(MAX_KEY + 3));
    let file = file.try_clone().map_err(failed)?;
    std::fs::File::from(file).take(MAX_KEY as u64 + 3).read_to_end(&mut key).map_err(failed)?;
    let newline = if key.ends_with(b"\r\n") { 2 } else { usize::from(key.ends_with(b"\n")) };
    let len = key.len() - newline;
    key.truncate(len);
    if !(MIN_KEY..=MAX_KEY).contains(&len) {
        let found = if len > MAX_KEY { "more".to_owned() } else { len.to_string() };
        return Err(unfit(path, format!("expected {MIN_KEY} to {MAX_KEY} bytes, found {found}")));
    }
    Ok(key)
}

/// Whether the owner is this user or root, who can do anything anyway.
pub(super) fn check_owner(owner: u32) -> Result<(), String> {
    let user = rustix::process::geteuid().as_raw();
    if owner == user || owner == 0 {
        return Ok(());
    }
    Err(format!("expected to be owned by user {user} or root, found user {owner}"))
}

/// Whether group and others have no rights.
pub(super) fn check_private(mode: u32, expected: u32) -> Result<(), String> {
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let found = mode & 0o777;
    Err(format!("open to others with mode {found:04o}, expected {expected:04o}"))
}
