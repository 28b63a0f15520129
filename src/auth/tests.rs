use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

use super::default_key::{Place, load_or_create};
use super::*;

/// A directory of mode 0700 that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("kvx-test-{:016x}", getrandom::u64().unwrap());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        set_mode(&path, 0o700);
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        set_mode(&path, mode);
        path
    }

    fn place(&self, private: bool) -> Place {
        Place { parent: self.0.clone(), name: "kvx".to_owned(), private }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The key in the file, or the error as the user reads it.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = file::open(path).map_err(|error| error.to_string())?;
    file::read_key(&file, path).map(|key| key.to_vec()).map_err(|error| error.to_string())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_key_is_the_bytes_of_its_file_less_one_newline() {
    let directory = Directory::new();
    let text = b"0123456789abcdef";
    for (content, key) in [
        (&b"0123456789abcdef"[..], &text[..]),
        (b"0123456789abcdef\n", text),
        (b"0123456789abcdef\r\n", text),
        (b"0123456789abcdef\n\n", b"0123456789abcdef\n"),
    ] {
        assert_eq!(read(&directory.file("key", content, 0o600)).unwrap(), key);
    }
    assert_eq!(read(&directory.file("key", &[7; 4096], 0o400)).unwrap(), [7; 4096]);
    assert_eq!(
        read(&directory.file("key", &[[7; 4096].as_slice(), b"\r\n"].concat(), 0o400)).unwrap(),
        [7; 4096]
    );
}

#[test]
fn a_key_of_a_wrong_length_is_refused() {
    let directory = Directory::new();
    for (len, found) in [(0, "found 0"), (15, "found 15"), (4097, "found more"), (9000, "more")] {
        let error = read(&directory.file("key", &vec![b'k'; len], 0o600)).unwrap_err();
        assert!(error.contains("expected 16 to 4096 bytes") && error.contains(found), "{error}");
    }
    assert!(read(&directory.file("key", b"0123456789abcde\n", 0o600)).is_err());
}

#[test]
fn a_key_that_others_may_read_or_write_is_refused() {
    let directory = Directory::new();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o610] {
        let path = directory.file("key", &[1; 32], mode);
        let error = read(&path).unwrap_err();
        assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("0600"), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let directory = Directory::new();
    assert!(read(&directory.0).unwrap_err().contains("regular file"));
    let pipe = directory.0.join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(read(&pipe).unwrap_err().contains("regular file"));
    let error = load(&directory.0.join("none")).unwrap_err();
    assert!(error.to_string().starts_with("open auth key file /"), "{error}");
}

#[test]
fn a_link_to_a_good_file_serves_as_mounted_secrets_need() {
    let directory = Directory::new();
    let path = directory.file("key", &[1; 32], 0o400);
    let link = directory.0.join("link");
    symlink(path, &link).unwrap();
    assert_eq!(read(&link).unwrap(), [1; 32]);
}

#[test]
fn only_this_user_and_root_may_own_a_key() {
    let user = rustix::process::geteuid().as_raw();
    assert!(file::check_owner(user).is_ok());
    assert!(file::check_owner(0).is_ok());
    let error = file::check_owner(user + 1).unwrap_err();
    assert!(error.contains(&format!("found user {}", user + 1)), "{error}");
}

#[test]
fn the_default_key_is_made_once_and_is_private() {
    let directory = Directory::new();
    let places = [directory.place(true)];
    let first = load_or_create(&places).unwrap();
    let second = load_or_create(&places).unwrap();
    assert_eq!(first, second);
    assert_eq!(first.len(), 64);
    assert!(first.iter().all(u8::is_ascii_hexdigit));
    let home = directory.0.join("kvx");
    assert_eq!((mode(&home), mode(&home.join("auth.key"))), (0o700, 0o600));
    // No draft is left.
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    let other = Directory::new();
    assert_ne!(load_or_create(&[other.place(true)]).unwrap(), first);
}

#[test]
fn engines_that_start_at_once_end_with_the_same_key() {
    for _ in 0..20 {
        let directory = Directory::new();
        let places = [directory.place(false)];
        let barrier = std::sync::Barrier::new(8);
        let keys: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                load_or_create(&places).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(directory.0.join("kvx")).unwrap().count(), 1);
    }
}

#[test]
fn a_runtime_directory_that_is_missing_or_open_to_others_is_passed_over() {
    let (open, good) = (Directory::new(), Directory::new());
    set_mode(&open.0, 0o755);
    let missing = Place { parent: good.0.join("missing"), name: "kvx".to_owned(), private: true };
    let places = [missing, open.place(true), good.place(false)];
    let key = load_or_create(&places).unwrap();
    assert!(!open.0.join("kvx").exists());
    assert_eq!(load_or_create(&[good.place(false)]).unwrap(), key);
}

#[test]
fn a_directory_or_key_that_someone_else_prepared_is_refused() {
    let directory = Directory::new();
    let places = [directory.place(false)];
    let home = directory.0.join("kvx");
    // Open to others.
    fs::create_dir(&home).unwrap();
    set_mode(&home, 0o777);
    let error = load_or_create(&places).unwrap_err().to_string();
    assert!(error.contains("mode 0777, expected 0700"), "{error}");
    // Someone else's. Only root can make one for the test; others are served by the check alone.
    if is_root() {
        set_mode(&home, 0o700);
        chown(&home, Some(12345), None).unwrap();
        let error = load_or_create(&places).unwrap_err().to_string();
        assert!(error.contains("found user 12345"), "{error}");
    }
    fs::remove_dir(&home).unwrap();
    // A link in place of the directory, and one in place of the file.
    let target = Directory::new();
    symlink(&target.0, &home).unwrap();
    let error = load_or_create(&places).unwrap_err().to_string();
    assert!(error.contains("directory of this user's own"), "{error}");
    fs::remove_file(&home).unwrap();
    fs::create_dir(&home).unwrap();
    set_mode(&home, 0o700);
    let elsewhere = target.file("key", &[1; 32], 0o600);
    symlink(elsewhere, home.join("auth.key")).unwrap();
    let error = load_or_create(&places).unwrap_err().to_string();
    assert!(error.contains("found a link"), "{error}");
}

#[test]
fn off_loopback_a_key_file_or_insecure_is_required() {
    let config = Config::default;
    for bound in ["10.0.0.1:80", "0.0.0.0:80", "[::]:80", "[fd00::1]:80", "[::ffff:10.0.0.1]:80"] {
        let bound = bound.parse().unwrap();
        let error = resolve(&config(), bound).unwrap_err().to_string();
        for name in ["KVX_AUTH_KEY_FILE", "KVX_METADATA_AUTH", "KVX_INSECURE"] {
            assert!(error.contains(name), "{error}");
        }
        let insecure = resolve(&config().insecure(true), bound).unwrap();
        assert!(matches!(insecure.dials, Ok(Auth::Insecure)));
        assert!(matches!(insecure.accepts[..], [Auth::Insecure]));
        let directory = Directory::new();
        let path = directory.file("key", &[1; 32], 0o600);
        let keyed = resolve(&config().auth_key_file(&path), bound).unwrap();
        assert!(matches!(keyed.dials, Ok(Auth::SharedKey(_))));
        assert!(matches!(keyed.accepts[..], [Auth::SharedKey(_)]));
        assert!(keyed.secret.is_none());
        set_mode(&path, 0o644);
        assert!(resolve(&config().auth_key_file(&path), bound).is_err());
    }
}

#[test]
fn on_loopback_a_key_is_used_without_being_asked_for() {
    for bound in ["127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        let access = resolve(&Config::default(), bound.parse().unwrap()).unwrap();
        assert!(matches!(access.accepts[..], [Auth::SharedKey(_)]), "{bound}");
        assert!(matches!(access.dials, Ok(Auth::SharedKey(_))), "{bound}");
    }
}

#[test]
fn by_metadata_an_engine_lets_in_who_holds_it_and_who_holds_the_key_that_was_named() {
    let config = || Config::default().metadata_auth(true);
    let directory = Directory::new();
    let path = directory.file("key", &[1; 32], 0o600);
    for bound in ["10.0.0.1:80", "[::]:80", "127.0.0.1:80"] {
        let bound: SocketAddr = bound.parse().unwrap();
        let alone = resolve(&config(), bound).unwrap();
        let [Auth::Metadata(secret)] = &alone.accepts[..] else { panic!("{alone:?}") };
        assert_eq!(Some(secret), alone.secret.as_ref());
        // The key of the user's engines on loopback, and no key at all, are for dialing alone.
        match alone.dials {
            Ok(auth) => assert!(matches!(auth, Auth::SharedKey(_)) && bound.ip().is_loopback()),
            Err(error) => assert!(error.to_string().contains("auth_key_file"), "{error}"),
        }
        let insecure = resolve(&config().insecure(true), bound).unwrap();
        assert!(matches!(insecure.accepts[..], [Auth::Metadata(_)]));
        assert!(matches!(insecure.dials, Ok(Auth::Insecure)));
        let both = resolve(&config().auth_key_file(&path), bound).unwrap();
        assert!(matches!(both.accepts[..], [Auth::Metadata(_), Auth::SharedKey(_)]), "{both:?}");
        assert!(matches!(both.dials, Ok(Auth::SharedKey(_))));
        assert_ne!(both.secret, insecure.secret, "each engine has a secret of its own");
    }
    // A key file that was named must serve.
    set_mode(&path, 0o644);
    let error = resolve(&config().auth_key_file(&path), ([127, 0, 0, 1], 80).into()).unwrap_err();
    assert!(error.to_string().contains("open to others"), "{error}");
}

#[test]
fn off_loopback_an_engine_that_is_reached_by_its_metadata_has_no_key_to_dial_with() {
    let config = Config::default().metadata_auth(true);
    let access = resolve(&config, ([0, 0, 0, 0], 80).into()).unwrap();
    assert!(matches!(access.dials, Err(Cause::Invalid(Invalid::Field { .. }))), "{access:?}");
}
