//! Which connection of a pair of engines stays, and who may take whose place (PROTOCOL 3.5, 3.6).

use std::net::IpAddr;
use std::time::Duration;

use crate::error::HandshakeError;
use crate::id::{Association, EngineId, Incarnation};
use crate::proto::handshake::Established;
use crate::time::Time;
use crate::wire::handshake::AuthMethod;
use crate::wire::metadata::MetadataSecret;

/// A connection this young that the lower id dialed is not replaced by one that the higher dialed:
/// the two crossed.
const CROSSING: Duration = Duration::from_secs(3);

/// What this engine knows of the engine that knocks.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The life it is in.
    pub incarnation: Incarnation,
    /// Its side of the peer relation, once it has told.
    pub association: Option<Association>,
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
    /// What speaks for that.
    pub proof: Proof,
}

/// What speaks for it that an engine is the one that it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing yet; what its handshake will prove is still to come.
    Awaited,
    /// Nothing but where it comes from.
    Address(IpAddr),
    /// It holds the auth key, as all engines do that it could be.
    AuthKey,
    /// It holds this engine's metadata, as many may.
    Metadata {
        /// What it names as its side of the peer relation.
        association: Option<Association>,
        /// Whether it is proved to be of those who hold its own metadata too, this engine among them.
        own: bool,
    },
}

impl Proof {
    /// Of a connection that `address` dialed, before its proof.
    pub fn before(method: AuthMethod, address: IpAddr) -> Self {
        match method {
            AuthMethod::Insecure => Self::Address(address),
            AuthMethod::SharedKey | AuthMethod::Metadata => Self::Awaited,
        }
    }

    /// Of a connection that `address` dialed. `secret`: that of the metadata which this engine holds
    /// of the life that the dialer says it is.
    ///
    /// # Errors
    /// [`HandshakeError::WrongKey`]: the dialer has proved nothing but that it holds this engine's
    /// metadata, and not even that secret.
    pub fn of(
        established: &Established,
        address: IpAddr,
        secret: Option<&MetadataSecret>,
    ) -> Result<Self, HandshakeError> {
        Ok(match (established.method, &established.bearer) {
            (AuthMethod::Insecure, _) => Self::Address(address),
            (AuthMethod::SharedKey, _) => Self::AuthKey,
            (AuthMethod::Metadata, bearer) => {
                let proves = |secret| bearer.as_ref().is_some_and(|bearer| bearer.owns(secret));
                if secret.is_some_and(|secret| !proves(secret)) {
                    return Err(HandshakeError::WrongKey);
                }
                let association = bearer.as_ref().and_then(|bearer| bearer.association);
                Self::Metadata { association, own: secret.is_some() }
            }
        })
    }
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
    now: Time,
) -> Result<Verdict, HandshakeError> {
    if incoming.engine == own {
        return Err(HandshakeError::SameEngine);
    }
    if dialing && own < incoming.engine {
        return Err(HandshakeError::Duplicate);
    }
    let Some(known) = known else { return Ok(Verdict::New) };
    let same_life = known.incarnation == incoming.incarnation;
    let crossing = known.connection.is_some_and(|(since, dialed_here, _)| {
        dialed_here && own < incoming.engine && now.saturating_since(since) < CROSSING
    });
    if same_life && crossing {
        return Err(HandshakeError::Duplicate);
    }
    if known.alive && !known.may_be(incoming) {
        return Err(HandshakeError::NameTaken);
    }
    Ok(if same_life && known.goes_on(incoming) { Verdict::Continue } else { Verdict::Supersede })
}

impl Known {
    /// Whether one that knocks has shown that it is this engine, which lives.
    fn may_be(&self, incoming: Incoming) -> bool {
        let same_life = self.incarnation == incoming.incarnation;
        match incoming.proof {
            Proof::Awaited | Proof::AuthKey => true,
            // Without proofs the address is all the identity there is.
            Proof::Address(address) => {
                same_life || self.connection.is_none_or(|(_, _, known)| known == address)
            }
            // Any name can be said by whoever holds the metadata. The association was told to this
            // engine alone.
            Proof::Metadata { association, .. } => same_life && self.is_named(association),
        }
    }

    /// Whether one that says it is this life is to have what was this life's, now that nothing is
    /// heard of it.
    fn goes_on(&self, incoming: Incoming) -> bool {
        match incoming.proof {
            // As long as it has told none there is nothing that was its own: the first connection
            // was lost, or gave way to another.
            Proof::Metadata { association, own } => {
                own || self.association.is_none() || self.is_named(association)
            }
            _ => true,
        }
    }

    fn is_named(&self, association: Option<Association>) -> bool {
        association.is_some() && association == self.association
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
mod tests;
