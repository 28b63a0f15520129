//! Handshakes with an engine whose metadata lets its holders in: the secret in it is the way, none
//! from another life is, and what a holder says besides tells it from others (promise 4).

use std::net::{IpAddr, Ipv4Addr};

use hmac::{Hmac, KeyInit, Mac as _};
use kvx_core::error::HandshakeError;
use kvx_core::id::{Association, EngineId};
use kvx_core::proto::{Auth, AuthKey, Dialer, Established, Listener, ListenerReply, Proof};
use kvx_core::wire::handshake::{
    AuthMethod, Confirm, HandshakeMessage, Hello, Mark, Reject, without_mac,
};
use kvx_core::wire::metadata::MetadataSecret;
use sha2::{Digest, Sha256};

use super::handshake::{NOW, changes, hello_of, lane_between, local, parse};

/// Secrets of engine 1, of engine 2, and of an earlier life of engine 2.
const ONE: [u8; 32] = [1; 32];
const TWO: [u8; 32] = [2; 32];
const EARLIER: [u8; 32] = [22; 32];
const KEY: &[u8] = b"the auth key of all";
const OWN: Association = Association(0x0102_0304);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn secret(bytes: [u8; 32]) -> MetadataSecret {
    MetadataSecret::new(bytes)
}

fn by_metadata(bytes: [u8; 32]) -> Auth {
    Auth::Metadata(secret(bytes))
}

fn by_key(key: &[u8]) -> Auth {
    Auth::SharedKey(AuthKey::new(key.to_vec()))
}

/// Engine 2's, by its metadata alone and by the auth key as well.
fn alone() -> Vec<Auth> {
    vec![by_metadata(TWO)]
}

fn both() -> Vec<Auth> {
    vec![by_metadata(TWO), by_key(KEY)]
}

/// Engine 1 dials engine 2.
fn dial(auth: &Auth, own: Option<[u8; 32]>) -> (Dialer, Vec<u8>) {
    let (dialer, hello) =
        Dialer::new(&local(1), auth, Some(EngineId([2; 16])), [1; 32], NOW).unwrap();
    (dialer.marked(OWN, own.map(secret).as_ref()), hello)
}

fn answer(accepts: &[Auth], hello: &[u8]) -> Result<ListenerReply, HandshakeError> {
    Listener::answer(&local(2), accepts, hello, hello_of(hello), [2; 32], NOW)
}

/// What both sides have established, the dialer's first.
fn meet(
    auth: &Auth,
    accepts: &[Auth],
    own: Option<[u8; 32]>,
) -> Result<(Established, Established), HandshakeError> {
    let (dialer, hello) = dial(auth, own);
    let reply = answer(accepts, &hello)?;
    let (dialed, confirm) = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes))?;
    Ok((dialed, reply.listener.handle_confirm(NOW, &parse(&confirm))?))
}

#[test]
fn who_holds_the_metadata_is_let_in_and_nobody_else() {
    let (dialed, accepted) = meet(&by_metadata(TWO), &alone(), Some(ONE)).unwrap();
    assert_eq!((dialed.method, accepted.method), (AuthMethod::Metadata, AuthMethod::Metadata));
    assert_eq!(accepted.identity.engine, EngineId([1; 16]));
    assert_eq!(lane_between(&dialed.secret, &accepted.secret), Ok(()));
    // The dialer's own secret opens nothing elsewhere, nor does that of an earlier life.
    for wrong in [ONE, EARLIER, [0; 32]] {
        let refused = meet(&by_metadata(wrong), &alone(), Some(ONE)).map(drop);
        assert_eq!(refused, Err(HandshakeError::WrongKey), "the dialer sees it");
        let (_, hello) = dial(&by_metadata(wrong), Some(ONE));
        let reply = answer(&alone(), &hello).unwrap();
        let proof = confirm_by_hand(&wrong, &hello, &reply.bytes, None);
        let refused = reply.listener.handle_confirm(NOW, &parse(&proof)).map(drop);
        assert_eq!(refused, Err(HandshakeError::WrongKey), "so does the listener");
    }
}

#[test]
fn other_ways_in_are_closed_unless_the_engine_has_them() {
    let metadata = AuthMethod::Metadata.name();
    for auth in [by_key(KEY), Auth::Insecure] {
        let refused = meet(&auth, &alone(), None).map(drop);
        let Err(HandshakeError::Method { ours, theirs }) = refused else { panic!("{refused:?}") };
        assert_eq!(ours, metadata);
        // As the dialer is told it.
        let told =
            HandshakeMessage::Reject(Reject { reason: HandshakeError::Method { ours, theirs } });
        let HandshakeMessage::Reject(Reject { reason }) = parse(&told.encode().unwrap()) else {
            panic!("a Reject")
        };
        assert_eq!(reason, HandshakeError::Method { ours: theirs, theirs: metadata });
    }
    let (dialed, accepted) = meet(&by_key(KEY), &both(), Some(ONE)).unwrap();
    assert_eq!((dialed.method, accepted.method), (AuthMethod::SharedKey, AuthMethod::SharedKey));
    assert!(accepted.bearer.is_none(), "a holder of the key is more than a bearer");
    assert!(meet(&by_metadata(TWO), &both(), None).is_ok());
    assert_eq!(
        meet(&by_key(b"another key"), &both(), None).map(drop),
        Err(HandshakeError::WrongKey)
    );
    let insecure = meet(&Auth::Insecure, &both(), None).map(drop);
    assert!(matches!(insecure, Err(HandshakeError::Method { .. })), "{insecure:?}");
    // An engine that has no such secret lets nobody in for one.
    let refused = meet(&by_metadata(TWO), &[by_key(KEY)], None).map(drop);
    assert!(matches!(refused, Err(HandshakeError::Method { .. })), "{refused:?}");
}

#[test]
fn a_method_that_was_exchanged_on_the_way_shows() {
    let methods = [by_metadata(TWO), by_key(KEY), Auth::Insecure];
    for (meant, said) in [(0, 1), (1, 0), (0, 2), (1, 2)] {
        let (dialer, hello) = dial(&methods[meant], Some(ONE));
        let auth = [AuthMethod::Metadata, AuthMethod::SharedKey, AuthMethod::Insecure][said];
        let changed = Hello { auth, ..hello_of(&hello) };
        let changed = HandshakeMessage::Hello(changed).encode().unwrap();
        match answer(&both(), &changed) {
            Ok(reply) => {
                let refused = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes));
                assert_eq!(refused.map(drop), Err(HandshakeError::WrongKey), "{meant} {said}");
            }
            Err(refused) => assert!(matches!(refused, HandshakeError::Method { .. })),
        }
    }
}

#[test]
fn who_knows_one_way_cannot_take_the_other() {
    // The secret as if it were the auth key, and the other way round.
    let disguised = meet(&by_key(&TWO), &both(), None).map(drop);
    assert_eq!(disguised, Err(HandshakeError::WrongKey));
    let mut padded = [0; 32];
    padded[..KEY.len()].copy_from_slice(KEY);
    let disguised = meet(&by_metadata(padded), &both(), None).map(drop);
    assert_eq!(disguised, Err(HandshakeError::WrongKey));
}

#[test]
fn nothing_is_proved_by_what_the_other_side_said() {
    // What engine 1 says to engine 2, turned round to it: under its own id, and under another one.
    let (_, hello) = dial(&by_metadata(TWO), Some(ONE));
    let accepts = [by_metadata(ONE)];
    let expects_two = Listener::answer(&local(1), &accepts, &hello, hello_of(&hello), [3; 32], NOW);
    assert!(matches!(expects_two, Err(HandshakeError::WrongEngine { .. })));
    let parsed = Hello { expected: None, ..hello_of(&hello) };
    let own = Listener::answer(&local(1), &accepts, &hello, parsed, [3; 32], NOW);
    assert!(matches!(own, Err(HandshakeError::SameEngine)));

    // The listener's proof, and the dialer's of its own secret, in the place of the dialer's.
    let reply = answer(&alone(), &hello).unwrap();
    let HandshakeMessage::Welcome(welcome) = parse(&reply.bytes) else { panic!("a Welcome") };
    let own = own_proof(&TWO, &hello, &reply.bytes);
    for mac in [welcome.mac, own] {
        let reply = answer(&alone(), &hello).unwrap();
        let confirm = HandshakeMessage::Confirm(Confirm { time: NOW, mark: None, mac });
        let refused = reply.listener.handle_confirm(NOW, &confirm).map(drop);
        assert_eq!(refused, Err(HandshakeError::WrongKey));
    }
}

#[test]
fn a_confirm_that_was_changed_on_the_way_shows() {
    let (dialer, hello) = dial(&by_metadata(TWO), Some(ONE));
    let reply = answer(&alone(), &hello).unwrap();
    let (_, confirm) = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes)).unwrap();
    let changed = changes(&confirm);
    // Time, association, both proofs. Behind another number the mark is none at all.
    assert!(changed.len() >= 8 + 8 + 32 + 32, "{}", changed.len());
    let (prefix, rest) = confirm.split_at(8 + 8);
    let stripped = [prefix, &rest[rest.len() - 32..]].concat();
    for confirm in changed.iter().map(|bytes| parse(bytes)).chain([mended(stripped)]) {
        let listener = answer(&alone(), &hello).unwrap().listener;
        let refused = listener.handle_confirm(NOW, &confirm).map(drop);
        assert_eq!(refused, Err(HandshakeError::WrongKey), "{confirm:?}");
    }
}

#[test]
fn the_proofs_are_what_the_protocol_says() {
    let (dialer, hello) = dial(&by_metadata(TWO), Some(ONE));
    let reply = answer(&alone(), &hello).unwrap();
    let (_, confirm) = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes)).unwrap();
    let own = own_proof(&ONE, &hello, &reply.bytes);
    let mark = Mark { association: Some(OWN), own };
    assert_eq!(confirm, confirm_by_hand(&TWO, &hello, &reply.bytes, Some(mark)));
    // One who has no metadata of its own, nor an association, may leave it all away.
    let bare = confirm_by_hand(&TWO, &hello, &reply.bytes, None);
    let accepted = reply.listener.handle_confirm(NOW, &parse(&bare)).unwrap();
    let bearer = accepted.bearer.unwrap();
    assert_eq!(bearer.association, None);
    assert!(!bearer.owns(&secret([0; 32])) && !bearer.owns(&secret(TWO)));
}

#[test]
fn a_bearer_shows_which_it_is() {
    let (dialed, accepted) = meet(&by_metadata(TWO), &alone(), Some(ONE)).unwrap();
    assert!(dialed.bearer.is_none(), "the dialer knows whose metadata it holds");
    let bearer = accepted.bearer.as_ref().unwrap();
    assert_eq!(bearer.association, Some(OWN));
    assert!(bearer.owns(&secret(ONE)));
    assert!(!bearer.owns(&secret(TWO)) && !bearer.owns(&secret(EARLIER)));
    let proof = |held: Option<[u8; 32]>| Proof::of(&accepted, ADDRESS, held.map(secret).as_ref());
    let association = Some(OWN);
    assert_eq!(proof(None), Ok(Proof::Metadata { association, own: false }));
    assert_eq!(proof(Some(ONE)), Ok(Proof::Metadata { association, own: true }));
    assert_eq!(proof(Some(EARLIER)), Err(HandshakeError::WrongKey));

    // One that has no metadata of its own passes for none that has.
    let (_, accepted) = meet(&by_metadata(TWO), &alone(), None).unwrap();
    let proof = |held: Option<[u8; 32]>| Proof::of(&accepted, ADDRESS, held.map(secret).as_ref());
    assert_eq!(proof(None), Ok(Proof::Metadata { association, own: false }));
    assert_eq!(proof(Some(ONE)), Err(HandshakeError::WrongKey));
    assert_eq!(proof(Some([0; 32])), Err(HandshakeError::WrongKey));
}

#[test]
fn who_holds_the_auth_key_need_not_prove_more() {
    let (_, accepted) = meet(&by_key(KEY), &both(), None).unwrap();
    assert_eq!(Proof::of(&accepted, ADDRESS, Some(&secret(ONE))), Ok(Proof::AuthKey));
    let (_, accepted) = meet(&Auth::Insecure, &[Auth::Insecure], None).unwrap();
    assert_eq!(Proof::of(&accepted, ADDRESS, None), Ok(Proof::Address(ADDRESS)));
}

#[test]
fn without_metadata_nothing_of_it_is_said() {
    for (auth, accepts) in
        [(by_key(KEY), vec![by_key(KEY)]), (Auth::Insecure, vec![Auth::Insecure])]
    {
        let (dialer, hello) = dial(&auth, Some(ONE));
        let reply = answer(&accepts, &hello).unwrap();
        let (_, confirm) = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes)).unwrap();
        let HandshakeMessage::Confirm(parsed) = parse(&confirm) else { panic!("a Confirm") };
        assert_eq!(parsed.mark, None);
        assert_eq!(confirm.len(), 8 + 8 + 32);
        // A mark that somebody adds changes nothing, as nothing vouches for it.
        let mark = Some(Mark { association: Some(OWN), own: [7; 32] });
        let marked = HandshakeMessage::Confirm(Confirm { mark, ..parsed });
        let accepted = reply.listener.handle_confirm(NOW, &marked).unwrap();
        assert!(accepted.bearer.is_none());
    }
}

#[test]
fn secrets_that_differ_anywhere_are_different() {
    for byte in 0..32 {
        let mut other = TWO;
        other[byte] ^= 0x80;
        assert_ne!(secret(other), secret(TWO), "byte {byte}");
    }
    assert_eq!(secret(TWO), secret(TWO));
}

#[test]
fn secrets_are_not_printed() {
    let (dialer, _) = dial(&by_metadata([0xab; 32]), Some([0xcd; 32]));
    let printed = format!("{dialer:?} {:?} {:?}", secret([0xab; 32]), by_metadata([0xab; 32]));
    assert!(printed.contains("MetadataSecret(..)"), "{printed}");
    for hint in ["171", "205", "ab, ab", "abab", "cdcd"] {
        assert!(!printed.contains(hint), "{printed}");
    }
}

/// HMAC-SHA-256.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().into()
}

/// T of PROTOCOL 3.3.
fn transcript(hello: &[u8], welcome: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(hello).chain_update(without_mac(welcome)).finalize().into()
}

fn own_proof(own: &[u8; 32], hello: &[u8], welcome: &[u8]) -> [u8; 32] {
    hmac(own, &[b"kvx 1 own", &transcript(hello, welcome)])
}

/// A Confirm by one who knows the secret and says what it likes.
fn confirm_by_hand(
    listeners: &[u8; 32],
    hello: &[u8],
    welcome: &[u8],
    mark: Option<Mark>,
) -> Vec<u8> {
    let association = mark.and_then(|mark| mark.association).map_or(0, |own| own.0);
    let marked = mark.map_or(vec![], |mark| [&association.to_le_bytes()[..], &mark.own].concat());
    let time = NOW.as_nanos().to_le_bytes();
    let mac = hmac(listeners, &[b"kvx 1 dialer", &transcript(hello, welcome), &time, &marked]);
    HandshakeMessage::Confirm(Confirm { time: NOW, mark, mac }).encode().unwrap()
}

/// The message of these bytes, whose length was changed.
fn mended(mut bytes: Vec<u8>) -> HandshakeMessage {
    let len = (bytes.len() - 8) as u16;
    bytes[6..8].copy_from_slice(&len.to_le_bytes());
    parse(&bytes)
}
