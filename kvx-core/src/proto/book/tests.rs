use std::net::Ipv4Addr;

use super::*;

const LOW: EngineId = EngineId([1; 16]);
const HIGH: EngineId = EngineId([2; 16]);
const NOW: Time = Time::from_nanos(100_000_000_000);

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn incoming(engine: EngineId, life: u8, proof: Proof) -> Incoming {
    Incoming { engine, incarnation: Incarnation([life; 16]), proof }
}

/// By the auth key.
fn keyed(engine: EngineId, life: u8) -> Incoming {
    incoming(engine, life, Proof::AuthKey)
}

/// By this engine's metadata, under this association.
fn bearer(life: u8, association: u64, own: bool) -> Incoming {
    let association = Some(Association(association)).filter(|association| association.0 != 0);
    incoming(HIGH, life, Proof::Metadata { association, own })
}

fn known(life: u8, age: u64, dialed_here: bool) -> Option<Known> {
    let since = Time::from_nanos(NOW.as_nanos() - age * 1_000_000_000);
    Some(Known {
        incarnation: Incarnation([life; 16]),
        association: Some(Association(7)),
        connection: Some((since, dialed_here, address(1))),
        alive: true,
    })
}

#[test]
fn of_two_simultaneous_dials_the_lower_ids_stays() {
    let lower = admit(LOW, None, keyed(HIGH, 1), true, NOW);
    assert_eq!(lower, Err(HandshakeError::Duplicate));
    let higher = admit(HIGH, None, keyed(LOW, 1), true, NOW);
    assert_eq!(higher, Ok(Verdict::New));
}

#[test]
fn a_crossing_dial_does_not_replace_a_young_connection_but_a_redial_does() {
    let crossing = admit(LOW, known(1, 1, true), keyed(HIGH, 1), false, NOW);
    assert_eq!(crossing, Err(HandshakeError::Duplicate));
    let redial = admit(LOW, known(1, 10, true), keyed(HIGH, 1), false, NOW);
    assert_eq!(redial, Ok(Verdict::Continue));
    let lower = admit(HIGH, known(1, 1, true), keyed(LOW, 1), false, NOW);
    assert_eq!(lower, Ok(Verdict::Continue));
}

#[test]
fn both_sides_of_a_crossing_keep_the_same_connection() {
    let accepted = known(1, 1, false);
    assert!(!keeps(HIGH, LOW, accepted, NOW), "the higher drops its own dial");
    assert!(keeps(LOW, HIGH, accepted, NOW), "the lower keeps its own dial");
    assert!(keeps(HIGH, LOW, known(1, 10, false), NOW), "no crossing: an old connection");
    assert!(keeps(HIGH, LOW, None, NOW));
}

#[test]
fn a_live_engine_is_superseded_by_the_same_identity_only() {
    let from = |last| incoming(HIGH, 2, Proof::Address(address(last)));
    let refused = admit(LOW, known(1, 10, true), from(9), false, NOW);
    assert_eq!(refused, Err(HandshakeError::NameTaken));
    let same_host = admit(LOW, known(1, 10, true), from(1), false, NOW);
    assert_eq!(same_host, Ok(Verdict::Supersede));
    let proven = admit(LOW, known(1, 10, true), keyed(HIGH, 2), false, NOW);
    assert_eq!(proven, Ok(Verdict::Supersede));
}

#[test]
fn a_live_engine_is_not_displaced_by_others_that_hold_the_same_metadata() {
    let judge = |incoming| admit(LOW, known(1, 10, false), incoming, false, NOW);
    assert_eq!(judge(bearer(1, 7, false)), Ok(Verdict::Continue), "it names its association");
    for (life, association, own) in
        [(1, 8, false), (1, 0, false), (1, 8, true), (1, 0, true), (2, 7, false), (2, 0, true)]
    {
        let refused = judge(bearer(life, association, own));
        assert_eq!(refused, Err(HandshakeError::NameTaken), "{life} {association} {own}");
    }
    // One of which no association is known cannot be told from others.
    let untold = known(1, 10, true).map(|known| Known { association: None, ..known });
    for association in [0, 7] {
        let refused = admit(LOW, untold, bearer(1, association, true), false, NOW);
        assert_eq!(refused, Err(HandshakeError::NameTaken), "{association}");
    }
}

#[test]
fn what_was_an_engines_is_not_anothers_that_holds_the_same_metadata() {
    let silent = known(1, 10, false).map(|known| Known { alive: false, ..known });
    let judge = |incoming| admit(LOW, silent, incoming, false, NOW);
    assert_eq!(judge(bearer(1, 7, false)), Ok(Verdict::Continue), "it names its association");
    assert_eq!(judge(bearer(1, 8, true)), Ok(Verdict::Continue), "it proves its own metadata");
    assert_eq!(judge(bearer(1, 8, false)), Ok(Verdict::Supersede), "it could be anybody");
    assert_eq!(judge(bearer(1, 0, false)), Ok(Verdict::Supersede));
    assert_eq!(judge(bearer(2, 7, true)), Ok(Verdict::Supersede), "a new life");
    let keyed = judge(keyed(HIGH, 1));
    assert_eq!(keyed, Ok(Verdict::Continue));
    // Where a first connection came to nothing, nothing was its own.
    let untold = silent.map(|known| Known { association: None, ..known });
    for association in [0, 8] {
        let first = admit(LOW, untold, bearer(1, association, false), false, NOW);
        assert_eq!(first, Ok(Verdict::Continue), "{association}");
    }
}

#[test]
fn before_its_proof_only_an_address_is_held_against_a_dialer() {
    let judge = |proof| admit(LOW, known(1, 10, false), incoming(HIGH, 2, proof), false, NOW);
    for method in [AuthMethod::SharedKey, AuthMethod::Metadata] {
        assert_eq!(judge(Proof::before(method, address(9))), Ok(Verdict::Supersede), "{method:?}");
    }
    let insecure = judge(Proof::before(AuthMethod::Insecure, address(9)));
    assert_eq!(insecure, Err(HandshakeError::NameTaken));
}

#[test]
fn an_engine_does_not_connect_to_itself() {
    let own = admit(LOW, None, keyed(LOW, 1), false, NOW);
    assert_eq!(own, Err(HandshakeError::SameEngine));
}
