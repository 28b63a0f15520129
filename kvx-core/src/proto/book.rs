//! Which connection of a pair of engines stays, and who may take whose place (PROTOCOL 3.5, 3.6).

use std::net::IpAddr;
use std::time::Duration;

use crate::error::HandshakeError;
use crate::id::{EngineId, Incarnation};
use crate::proto::auth::Auth;
use crate::time::Time;

/// A connection this young that the lower id dialed is not replaced by one that the higher dialed:
/// the two crossed.
const CROSSING: Duration = Duration::from_secs(3);

/// What this engine knows of the engine that knocks.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The life it is in.
    pub incarnation: Incarnation,
    /// Its present connection: since when, whether dialed here, and from which address.
    pub connection: Option<(Time, bool, IpAddr)>,
    /// Whether it was heard of lately.
    pub alive: bool,
}

/// A connection that another engine dialed.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Who says it is.
    pub engine: EngineId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Where it comes from.
    pub address: IpAddr,
}

/// What becomes of an incoming connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer is new here.
    New,
    /// The same life of a known peer: its connection takes the place of the one it had, if any.
    Continue,
    /// A new life of a known peer: the old one is over.
    Supersede,
}

/// Decides on an incoming connection. Asked before the proofs, to answer early, and again after
/// them, for then it counts.
///
/// `dialing`: whether this engine is dialing that one at this moment.
///
/// # Errors
/// The [`HandshakeError`] to reject with.
pub fn admit(
    own: EngineId,
    known: Option<Known>,
    incoming: Incoming,
    dialing: bool,
    auth: &Auth,
    now: Time,
) -> Result<Verdict, HandshakeError> {
    if incoming.engine == own {
        return Err(HandshakeError::SameEngine);
    }
    if dialing && own < incoming.engine {
        return Err(HandshakeError::Duplicate);
    }
    let Some(known) = known else { return Ok(Verdict::New) };
    if known.incarnation == incoming.incarnation {
        let crossing = known.connection.is_some_and(|(since, dialed_here, _)| {
            dialed_here && own < incoming.engine && now.saturating_since(since) < CROSSING
        });
        return if crossing { Err(HandshakeError::Duplicate) } else { Ok(Verdict::Continue) };
    }
    match (auth, known.connection) {
        // Without proofs the address is all the identity there is.
        (Auth::Insecure, Some((_, _, address))) if known.alive && address != incoming.address => {
            Err(HandshakeError::NameTaken)
        }
        _ => Ok(Verdict::Supersede),
    }
}

/// Whether a connection that this engine dialed, and whose handshake succeeded, is to be used. It is
/// not where it crossed with one that the lower id dialed: the other side turns it down as well.
pub fn keeps(own: EngineId, peer: EngineId, known: Option<Known>, now: Time) -> bool {
    let connection = known.and_then(|known| known.connection);
    !connection.is_some_and(|(since, dialed_here, _)| {
        !dialed_here && peer < own && now.saturating_since(since) < CROSSING
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::proto::auth::AuthKey;

    const LOW: EngineId = EngineId([1; 16]);
    const HIGH: EngineId = EngineId([2; 16]);
    const NOW: Time = Time::from_nanos(100_000_000_000);

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    fn incoming(engine: EngineId, life: u8) -> Incoming {
        Incoming { engine, incarnation: Incarnation([life; 16]), address: address(1) }
    }

    fn known(life: u8, age: u64, dialed_here: bool) -> Option<Known> {
        let since = Time::from_nanos(NOW.as_nanos() - age * 1_000_000_000);
        Some(Known {
            incarnation: Incarnation([life; 16]),
            connection: Some((since, dialed_here, address(1))),
            alive: true,
        })
    }

    fn shared() -> Auth {
        Auth::SharedKey(AuthKey::new(b"secret".to_vec()))
    }

    #[test]
    fn of_two_simultaneous_dials_the_lower_ids_stays() {
        let auth = shared();
        let lower = admit(LOW, None, incoming(HIGH, 1), true, &auth, NOW);
        assert_eq!(lower, Err(HandshakeError::Duplicate));
        let higher = admit(HIGH, None, incoming(LOW, 1), true, &auth, NOW);
        assert_eq!(higher, Ok(Verdict::New));
    }

    #[test]
    fn a_crossing_dial_does_not_replace_a_young_connection_but_a_redial_does() {
        let auth = shared();
        let crossing = admit(LOW, known(1, 1, true), incoming(HIGH, 1), false, &auth, NOW);
        assert_eq!(crossing, Err(HandshakeError::Duplicate));
        let redial = admit(LOW, known(1, 10, true), incoming(HIGH, 1), false, &auth, NOW);
        assert_eq!(redial, Ok(Verdict::Continue));
        let lower = admit(HIGH, known(1, 1, true), incoming(LOW, 1), false, &auth, NOW);
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
        let stranger = Incoming { address: address(9), ..incoming(HIGH, 2) };
        let refused = admit(LOW, known(1, 10, true), stranger, false, &Auth::Insecure, NOW);
        assert_eq!(refused, Err(HandshakeError::NameTaken));
        let same_host =
            admit(LOW, known(1, 10, true), incoming(HIGH, 2), false, &Auth::Insecure, NOW);
        assert_eq!(same_host, Ok(Verdict::Supersede));
        let proven = admit(LOW, known(1, 10, true), stranger, false, &shared(), NOW);
        assert_eq!(proven, Ok(Verdict::Supersede));
    }

    #[test]
    fn an_engine_does_not_connect_to_itself() {
        let own = admit(LOW, None, incoming(LOW, 1), false, &shared(), NOW);
        assert_eq!(own, Err(HandshakeError::SameEngine));
    }
}
