//! Handshakes: who knows the key is let in, and nobody else; nothing that was said can be changed,
//! turned round or played again (promise 4).

use std::slice;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac as _};
use kvx_core::error::HandshakeError;
use kvx_core::id::{Association, EngineId, Incarnation, LaneId};
use kvx_core::proto::{
    Auth, AuthKey, Dialer, Established, LaneDialer, LaneKey, LaneListener, Listener, ListenerReply,
    LocalIdentity, SessionSecret,
};
use kvx_core::time::Time;
use kvx_core::wire::handshake::{
    Confirm, Features, HANDSHAKE_PREFIX_LEN, HandshakeMessage, Hello, LaneChallenge, LaneHello,
    LaneProof, Welcome, without_mac,
};
use sha2::{Digest, Sha256};

pub(crate) const NOW: Time = Time::from_nanos(5_000_000_000);
const KEY: &[u8] = b"a secret of both";

pub(crate) fn local(number: u8) -> LocalIdentity {
    LocalIdentity {
        engine: EngineId([number; 16]),
        incarnation: Incarnation([number; 16]),
        name: format!("engine {number}").into(),
        addresses: Vec::new(),
        transports: Vec::new(),
        notification_window: 1 << 20,
    }
}

fn key(bytes: &[u8]) -> Auth {
    Auth::SharedKey(AuthKey::new(bytes.to_vec()))
}

pub(crate) fn parse(bytes: &[u8]) -> HandshakeMessage {
    let (prefix, body) = bytes.split_at(HANDSHAKE_PREFIX_LEN);
    let (kind, len) = HandshakeMessage::decode_prefix(prefix.try_into().unwrap()).unwrap();
    assert_eq!(len, body.len());
    HandshakeMessage::decode(kind, body).unwrap()
}

pub(crate) fn hello_of(bytes: &[u8]) -> Hello {
    let HandshakeMessage::Hello(hello) = parse(bytes) else { panic!("a Hello") };
    hello
}

/// Engine 1 dials engine 2, whose answer this is.
fn dial(auth: &Auth) -> (Dialer, Vec<u8>) {
    Dialer::new(&local(1), auth, Some(EngineId([2; 16])), [1; 32], NOW).unwrap()
}

fn answer(auth: &Auth, hello: &[u8]) -> ListenerReply {
    answer_by(2, auth, hello, hello_of(hello), 2).unwrap()
}

/// What this engine answers, which lets in whoever authenticates like this.
fn answer_by(
    engine: u8,
    auth: &Auth,
    hello: &[u8],
    parsed: Hello,
    nonce: u8,
) -> Result<ListenerReply, HandshakeError> {
    Listener::answer(&local(engine), slice::from_ref(auth), hello, parsed, [nonce; 32], NOW)
}

/// What both sides have established. `nonce` tells one handshake from another.
fn meet(nonce: u8) -> (Established, Established) {
    let auth = key(KEY);
    let (dialer, hello) = Dialer::new(&local(1), &auth, None, [nonce; 32], NOW).unwrap();
    let reply = answer(&auth, &hello);
    let (dialed, confirm) = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes)).unwrap();
    (dialed, reply.listener.handle_confirm(NOW, &parse(&confirm)).unwrap())
}

#[test]
fn engines_that_share_a_key_learn_who_is_there() {
    let (dialed, accepted) = meet(7);
    assert_eq!(dialed.identity.engine, EngineId([2; 16]));
    assert_eq!(accepted.identity.engine, EngineId([1; 16]));
    assert_eq!(lane_between(&dialed.secret, &accepted.secret), Ok(()));
}

#[test]
fn a_listener_without_the_key_is_turned_down() {
    let (dialer, hello) = dial(&key(KEY));
    let reply = answer(&key(b"another secret"), &hello);
    let refused = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes));
    assert!(matches!(refused, Err(HandshakeError::WrongKey)));
}

#[test]
fn a_dialer_without_the_key_is_turned_down() {
    let (_, hello) = dial(&key(KEY));
    let confirm = HandshakeMessage::Confirm(Confirm { time: NOW, mark: None, mac: [0; 32] });
    let refused = answer(&key(KEY), &hello).listener.handle_confirm(NOW, &confirm);
    assert!(matches!(refused, Err(HandshakeError::WrongKey)));
}

#[test]
fn a_proof_with_any_byte_wrong_is_refused() {
    let auth = key(KEY);
    for wrong in 0..32 {
        let (dialer, hello) = dial(&auth);
        let reply = answer(&auth, &hello);
        let mut changed = reply.bytes.clone();
        let place = changed.len() - 32 + wrong;
        changed[place] ^= 1;
        let refused = dialer.handle_welcome(NOW, &changed, parse(&changed));
        assert!(matches!(refused, Err(HandshakeError::WrongKey)), "byte {wrong} of Welcome");

        let (dialer, _) = dial(&auth);
        let (_, mut confirm) =
            dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes)).unwrap();
        let place = confirm.len() - 32 + wrong;
        confirm[place] ^= 1;
        let refused = reply.listener.handle_confirm(NOW, &parse(&confirm));
        assert!(matches!(refused, Err(HandshakeError::WrongKey)), "byte {wrong} of Confirm");
    }
}

/// Every byte of a message that can be changed so that it still parses, changed.
pub(crate) fn changes(bytes: &[u8]) -> Vec<Vec<u8>> {
    let change = |at: usize| {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        let (prefix, body) = changed.split_at(HANDSHAKE_PREFIX_LEN);
        let (kind, len) = HandshakeMessage::decode_prefix(prefix.try_into().unwrap()).ok()?;
        let parses = len == body.len() && HandshakeMessage::decode(kind, body).is_ok();
        parses.then_some(changed)
    };
    (HANDSHAKE_PREFIX_LEN..bytes.len()).filter_map(change).collect()
}

#[test]
fn a_hello_that_was_changed_on_the_way_shows() {
    let auth = key(KEY);
    let changed = changes(&dial(&auth).1);
    assert!(changed.len() > 100, "ids, incarnation, time, nonce, name");
    for hello in changed {
        let (dialer, _) = dial(&auth);
        // A listener turns some of them down itself: another engine expected, another method.
        let reply = answer_by(2, &auth, &hello, hello_of(&hello), 2);
        if let Ok(reply) = reply {
            let refused = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes));
            assert!(matches!(refused, Err(HandshakeError::WrongKey)));
        }
    }
}

#[test]
fn a_welcome_that_was_changed_on_the_way_shows() {
    let auth = key(KEY);
    let (_, hello) = dial(&auth);
    let changed = changes(&answer(&auth, &hello).bytes);
    assert!(changed.len() > 100);
    for welcome in changed {
        let (dialer, _) = dial(&auth);
        let refused = dialer.handle_welcome(NOW, &welcome, parse(&welcome));
        assert!(matches!(refused, Err(HandshakeError::WrongKey)));
    }
}

#[test]
fn a_confirm_that_was_changed_on_the_way_shows() {
    let auth = key(KEY);
    let (dialer, hello) = dial(&auth);
    let reply = answer(&auth, &hello);
    let (_, confirm) = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes)).unwrap();
    for confirm in changes(&confirm) {
        let refused = answer(&auth, &hello).listener.handle_confirm(NOW, &parse(&confirm));
        assert!(matches!(refused, Err(HandshakeError::WrongKey)));
    }
}

#[test]
fn a_confirm_serves_one_handshake_only() {
    let auth = key(KEY);
    let (dialer, hello) = dial(&auth);
    let reply = answer(&auth, &hello);
    let (_, confirm) = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes)).unwrap();
    // The same Hello once more, played by someone who has recorded both messages.
    let again = answer_by(2, &auth, &hello, hello_of(&hello), 3);
    let refused = again.unwrap().listener.handle_confirm(NOW, &parse(&confirm));
    assert!(matches!(refused, Err(HandshakeError::WrongKey)));
}

#[test]
fn only_the_engine_that_is_expected_answers() {
    let auth = key(KEY);
    let (_, hello) = dial(&auth);
    let third = answer_by(3, &auth, &hello, hello_of(&hello), 2);
    assert!(matches!(third, Err(HandshakeError::WrongEngine { .. })), "the listener sees it");
    // A listener that does not look.
    let careless = Hello { expected: None, ..hello_of(&hello) };
    let reply = answer_by(3, &auth, &hello, careless, 2).unwrap();
    let (dialer, _) = dial(&auth);
    let refused = dialer.handle_welcome(NOW, &reply.bytes, parse(&reply.bytes));
    assert!(matches!(refused, Err(HandshakeError::WrongEngine { .. })), "so does the dialer");
}

#[test]
fn an_engine_does_not_meet_itself() {
    let auth = key(KEY);
    let (_, hello) = Dialer::new(&local(2), &auth, None, [1; 32], NOW).unwrap();
    let refused = answer_by(2, &auth, &hello, hello_of(&hello), 2);
    assert!(matches!(refused, Err(HandshakeError::SameEngine)));
}

#[test]
fn both_sides_prove_themselves_in_the_same_way_or_not_at_all() {
    for (dialing, listening) in [(key(KEY), Auth::Insecure), (Auth::Insecure, key(KEY))] {
        let (_, hello) = dial(&dialing);
        let reply = answer_by(2, &listening, &hello, hello_of(&hello), 2);
        assert!(matches!(reply, Err(HandshakeError::Method { .. })));
    }
}

#[test]
fn without_a_common_version_there_is_no_connection() {
    let auth = key(KEY);
    let (_, hello) = dial(&auth);
    for (version_min, version_max) in [(2, 9), (0, 0)] {
        let foreign = Hello { version_min, version_max, ..hello_of(&hello) };
        let refused = answer_by(2, &auth, &hello, foreign, 2);
        assert!(matches!(refused, Err(HandshakeError::Version { .. })));
    }
    let newer = Hello { version_max: 9, ..hello_of(&hello) };
    assert!(answer_by(2, &auth, &hello, newer, 2).is_ok());
}

/// A Welcome by one who knows the key and says what it likes: proved as PROTOCOL 3.3 has it.
fn welcome_by_hand(hello: &[u8], change: impl FnOnce(&mut Welcome)) -> Vec<u8> {
    let HandshakeMessage::Welcome(mut welcome) = parse(&answer(&key(KEY), hello).bytes) else {
        panic!("a Welcome")
    };
    change(&mut welcome);
    let bytes = HandshakeMessage::Welcome(welcome.clone()).encode().unwrap();
    let transcript = Sha256::new().chain_update(hello).chain_update(without_mac(&bytes)).finalize();
    let mut proof = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    proof.update(b"kvx 1 listener");
    proof.update(&transcript);
    welcome.mac = proof.finalize().into_bytes().into();
    HandshakeMessage::Welcome(welcome).encode().unwrap()
}

#[test]
fn a_welcome_is_checked_however_well_it_is_proved() {
    let auth = key(KEY);
    let welcomed = |change: fn(&mut Welcome)| {
        let (dialer, hello) = dial(&auth);
        let bytes = welcome_by_hand(&hello, change);
        dialer.handle_welcome(NOW, &bytes, parse(&bytes)).map(drop)
    };
    assert!(welcomed(|_| {}).is_ok(), "the proof is what PROTOCOL says");
    let version = welcomed(|welcome| welcome.version = 2);
    assert!(matches!(version, Err(HandshakeError::Version { .. })), "{version:?}");
    assert!(welcomed(|welcome| welcome.features = Features::all()).is_err(), "none was offered");
    let engine = welcomed(|welcome| welcome.identity.engine = EngineId([3; 16]));
    assert!(matches!(engine, Err(HandshakeError::WrongEngine { .. })));
    let itself = welcomed(|welcome| welcome.identity.engine = EngineId([1; 16]));
    assert!(matches!(itself, Err(HandshakeError::SameEngine)));
}

const PAIR: (Association, Association) = (Association(11), Association(12));

fn dial_lane(secret: &SessionSecret, lane: u32) -> (LaneDialer, Vec<u8>) {
    LaneDialer::new(EngineId([1; 16]), PAIR, LaneId(lane), 1, secret, [5; 32]).unwrap()
}

fn challenge(secret: &SessionSecret, hello: &[u8], nonce: u8) -> (LaneListener, Vec<u8>) {
    let HandshakeMessage::LaneHello(parsed) = parse(hello) else { panic!("a LaneHello") };
    LaneListener::new(hello, &parsed, secret, [nonce; 32]).unwrap()
}

/// A lane's handshake between sides that hold these secrets.
pub(crate) fn lane_between(
    ours: &SessionSecret,
    theirs: &SessionSecret,
) -> Result<(), HandshakeError> {
    let (dialer, hello) = dial_lane(ours, 2);
    let (listener, challenge) = challenge(theirs, &hello, 6);
    let (proof, dialers) = dialer.handle_challenge(&parse(&challenge))?;
    let listeners = listener.handle_proof(&parse(&proof))?;
    let answer = |key: &LaneKey, dialer| key.answer(b"test", dialer, b"challenge");
    assert_eq!(answer(&dialers, true), answer(&listeners, true));
    assert_ne!(answer(&dialers, true), answer(&listeners, false), "the other side's");
    Ok(())
}

#[test]
fn a_lane_is_proved_under_its_own_session() {
    let (one, _) = meet(7);
    let (other, _) = meet(8);
    let refused = lane_between(&one.secret, &other.secret);
    assert_eq!(refused, Err(HandshakeError::WrongKey), "the same engines, the same auth key");
}

#[test]
fn a_lane_is_opened_only_against_the_proof() {
    let (session, _) = meet(7);
    let (_, hello) = dial_lane(&session.secret, 2);
    let (listener, challenged) = challenge(&session.secret, &hello, 6);
    let nothing = HandshakeMessage::LaneProof(LaneProof { mac: [0; 32] });
    assert_eq!(listener.handle_proof(&nothing).map(drop), Err(HandshakeError::WrongKey));

    // The listener's own proof, turned round by one who does not know the secret.
    let HandshakeMessage::LaneChallenge(LaneChallenge { mac, .. }) = parse(&challenged) else {
        panic!("a LaneChallenge")
    };
    let (listener, _) = challenge(&session.secret, &hello, 6);
    let reflected = HandshakeMessage::LaneProof(LaneProof { mac });
    assert_eq!(listener.handle_proof(&reflected).map(drop), Err(HandshakeError::WrongKey));
}

#[test]
fn a_lanes_listener_is_proved_too() {
    let (session, _) = meet(7);
    let (dialer, _) = dial_lane(&session.secret, 2);
    let nothing = LaneChallenge { nonce: [6; 32], mac: [0; 32] };
    let refused = dialer.handle_challenge(&HandshakeMessage::LaneChallenge(nothing));
    assert!(matches!(refused, Err(HandshakeError::WrongKey)));
}

#[test]
fn a_lanes_proof_serves_one_lane_once() {
    let (session, _) = meet(7);
    let (dialer, hello) = dial_lane(&session.secret, 2);
    let (_, challenged) = challenge(&session.secret, &hello, 6);
    let proof = parse(&dialer.handle_challenge(&parse(&challenged)).unwrap().0);

    let (again, _) = challenge(&session.secret, &hello, 7);
    assert_eq!(
        again.handle_proof(&proof).map(drop),
        Err(HandshakeError::WrongKey),
        "another challenge"
    );
    let (_, hello) = dial_lane(&session.secret, 4);
    let (other, _) = challenge(&session.secret, &hello, 6);
    assert_eq!(other.handle_proof(&proof).map(drop), Err(HandshakeError::WrongKey), "another lane");
}

#[test]
fn a_lane_hello_that_was_changed_on_the_way_shows() {
    let (session, _) = meet(7);
    let (_, hello) = dial_lane(&session.secret, 2);
    for changed in changes(&hello) {
        let (dialer, _) = dial_lane(&session.secret, 2);
        let (_, challenged) = challenge(&session.secret, &changed, 6);
        let refused = dialer.handle_challenge(&parse(&challenged));
        assert!(matches!(refused, Err(HandshakeError::WrongKey)));
    }
    let HandshakeMessage::LaneHello(LaneHello { lane, .. }) = parse(&hello) else { panic!() };
    assert_eq!(lane, LaneId(2));
}

#[test]
fn a_message_out_of_place_is_no_handshake() {
    let auth = key(KEY);
    let (dialer, hello) = dial(&auth);
    let refused = dialer.handle_welcome(NOW, &hello, parse(&hello));
    assert!(matches!(refused, Err(HandshakeError::NotKvx)));
    let refused = answer(&auth, &hello).listener.handle_confirm(NOW, &parse(&hello));
    assert!(matches!(refused, Err(HandshakeError::NotKvx)));
    let name: Arc<str> = Arc::clone(&local(1).name);
    assert_eq!(hello_of(&hello).identity.name, name);
}
