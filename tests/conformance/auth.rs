//! Only who may: the auth key decides, and both sides must mean the same.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use kvx::error::{Cause, HandshakeError};
use kvx::{Config, Engine};

use crate::fabric::{Fabric, SOON, unique};
use crate::probe::Probe;

pub(crate) fn engines_of_one_key_reach_each_other(fabric: &dyn Fabric) {
    let key = KeyFile::new(b"one key for the two of them");
    let (a, b) = (key.engine(fabric), key.engine(fabric));
    Probe::new(&a, &b).rounds(2);
    Probe::new(&b, &a).rounds(2);
}

pub(crate) fn engines_of_different_keys_do_not(fabric: &dyn Fabric) {
    let (ours, theirs) =
        (KeyFile::new(b"the key of some engines"), KeyFile::new(b"another's key..."));
    let (a, b) = (ours.engine(fabric), theirs.engine(fabric));
    let is_wrong = |error: &HandshakeError| *error == HandshakeError::WrongKey;
    refuses(&a, &b, is_wrong);
    refuses(&b, &a, is_wrong);
    let third = theirs.engine(fabric);
    Probe::new(&third, &b).rounds(1);
}

pub(crate) fn a_keyless_engine_and_one_with_a_key_do_not(fabric: &dyn Fabric) {
    let key = KeyFile::new(b"the key of some engines");
    let a = fabric.engine_with("a", |config| config.insecure(true).deadline(SOON));
    let b = key.engine(fabric);
    let is_method = |error: &HandshakeError| matches!(error, HandshakeError::Method { .. });
    refuses(&a, &b, is_method);
    refuses(&b, &a, is_method);
    Probe::new(&key.engine(fabric), &b).rounds(1);
}

pub(crate) fn engines_that_are_both_insecure_do(fabric: &dyn Fabric) {
    let insecure = |name| fabric.engine_with(name, |config| config.insecure(true));
    let (a, b) = (insecure("a"), insecure("b"));
    Probe::new(&a, &b).rounds(2);
}

pub(crate) fn off_loopback_a_key_is_required(fabric: &dyn Fabric) {
    let everywhere = || Config::default().name(unique("a")).bind("0.0.0.0:0".parse().unwrap());
    let error = fabric.build(everywhere()).unwrap_err();
    assert!(error.to_string().contains("KVX_AUTH_KEY_FILE"), "{error}");
    assert!(error.to_string().contains("KVX_METADATA_AUTH"), "{error}");
    assert!(error.to_string().contains("KVX_INSECURE"), "{error}");
    let key = KeyFile::new(b"a key for the whole fleet");
    fabric.build(everywhere().auth_key_file(&key.path)).unwrap();
    fabric.build(everywhere().insecure(true)).unwrap();
}

/// Neither by address nor by blob, and nothing is left of the attempt.
#[track_caller]
fn refuses(from: &Engine, to: &Engine, expected: impl Fn(&HandshakeError) -> bool) {
    let error = from.connect(to.local_addr()).wait().unwrap_err();
    match &error.cause {
        Cause::Handshake(handshake) => assert!(expected(handshake), "{error}"),
        _ => panic!("{error}"),
    }
    assert!(error.peer.is_some());
    assert!(from.peers().is_empty() && to.peers().is_empty());
    let peer = from.add_peer(&to.metadata([]).unwrap()).unwrap();
    let error = peer.ready().wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline { .. } | Cause::Handshake(_)), "{error}");
    assert!(peer.notify("let me in").wait().is_err());
    assert!(to.peers().is_empty() && to.poll_notification().is_none());
    peer.remove();
}

/// A key in a file that its owner alone may read; removed when dropped.
pub(crate) struct KeyFile {
    pub(crate) path: PathBuf,
}

impl KeyFile {
    pub(crate) fn new(key: &[u8]) -> Self {
        let path = std::env::temp_dir().join(unique("kvx-conformance-key"));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(key).unwrap();
        Self { path }
    }

    pub(crate) fn engine(&self, fabric: &dyn Fabric) -> Engine {
        fabric.engine_with("keyed", |config| config.auth_key_file(&self.path).deadline(SOON))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
