//! The key file that engines of one user share on loopback: where it may lie, and how the first
//! engine makes it while others start beside it.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kvx_core::error::Cause;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, fsync, linkat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::file::{check_private, read_key};
use super::unfit;

/// The name of the key file.
const FILE: &str = "auth.key";

/// Random bytes of a key; the file has them in hexadecimal.
const RANDOM: usize = 32;

/// A directory that may hold the key file, made if its parent is there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) parent: PathBuf,
    pub(super) name: String,
    /// Whether the parent must be the user's own and closed to others. Otherwise it is a place
    /// for everybody, and only the directory made in it is looked at.
    pub(super) private: bool,
}

/// The places for this user, best first.
pub(super) fn places() -> Vec<Place> {
    let user = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute());
    let own = |parent| Place { parent, name: "kvx".to_owned(), private: true };
    let shared = |parent| Place { parent, name: format!("kvx-{user}"), private: false };
    let mut places: Vec<_> = runtime.into_iter().map(own).collect();
    places.push(own(format!("/run/user/{user}").into()));
    places.push(shared(std::env::temp_dir()));
    places
}

/// The key of the first place that serves; made there if there is none.
///
/// A runtime directory that is missing or not the user's own (as after `su`) is passed over. Past
/// that every failure is an error: going on to the next place would give one engine another key
/// than its neighbour.
pub(super) fn load_or_create(places: &[Place]) -> Result<Zeroizing<Vec<u8>>, Cause> {
    for place in places {
        let path = place.parent.join(&place.name);
        let failed = |error: Errno| Cause::io(format!("open {}", path.display()), error.into());
        let parent = match open_directory(&place.parent) {
            Ok(parent) => parent,
            Err(_) if place.private => continue,
            Err(error) => return Err(failed(error)),
        };
        if place.private && check_directory(&parent).is_err() {
            continue;
        }
        match mkdirat(&parent, &place.name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        // Through the parent's descriptor and no link, so that what is checked is what is used.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&parent, &place.name, flags, Mode::empty());
        let directory = match directory {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(unfit(&path, "expected a directory of this user's own"));
            }
            other => other.map_err(failed)?,
        };
        check_directory(&directory).map_err(|why| unfit(&path, why))?;
        return load_or_create_in(&directory, &path.join(FILE));
    }
    Err(unfit(Path::new(""), "no directory serves for a default key: expected a key file"))
}

/// Loads the key file of `directory`, or makes it, whole, before it gets its name. Of processes
/// that make it at once, one gives it the name, and all load that one's.
fn load_or_create_in(directory: &OwnedFd, path: &Path) -> Result<Zeroizing<Vec<u8>>, Cause> {
    let failed = |error: Errno| Cause::io(format!("make {}", path.display()), error.into());
    match open_key(directory) {
        Ok(file) => return read_key(&file, path),
        Err(Errno::NOENT) => {}
        Err(Errno::LOOP) => return Err(unfit(path, "expected a regular file, found a link")),
        Err(error) => return Err(failed(error)),
    }
    let random = |error| Cause::io("get random bytes", io::Error::other(error));
    let draft = format!("{FILE}.{:016x}", getrandom::u64().map_err(random)?);
    let mut key = Zeroizing::new([0; RANDOM]);
    getrandom::fill(&mut *key).map_err(random)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(directory, &draft, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let linked = write_key(file, &key).and_then(|()| {
        match linkat(directory, &draft, directory, FILE, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    });
    let unlinked = unlinkat(directory, &draft, AtFlags::empty());
    linked.map_err(|error| Cause::io(format!("make {}", path.display()), error))?;
    unlinked.map_err(failed)?;
    let file = open_key(directory).map_err(failed)?;
    read_key(&file, path)
}

fn open_key(directory: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(directory, FILE, flags, Mode::empty())
}

/// On disk before it gets its name, so that no crash leaves an empty key behind.
fn write_key(file: OwnedFd, key: &[u8; RANDOM]) -> io::Result<()> {
    let mut text = Zeroizing::new([0; 2 * RANDOM + 1]);
    for (byte, digits) in key.iter().zip(text.chunks_exact_mut(2)) {
        digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        digits[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    text[2 * RANDOM] = b'\n';
    let mut file = std::fs::File::from(file);
    file.write_all(&*text)?;
    Ok(fsync(&file)?)
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether the directory is this user's own, and closed to others.
fn check_directory(directory: &OwnedFd) -> Result<(), String> {
    let stat = fstat(directory).map_err(|error| error.to_string())?;
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(format!("expected to be owned by user {user}, found user {}", stat.st_uid));
    }
    check_private(stat.st_mode, 0o700)
}
