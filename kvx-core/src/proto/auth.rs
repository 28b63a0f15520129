//! Proofs of the handshake (PROTOCOL 3.3): who may connect, and which lanes belong to whom.

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::Association;
use crate::wire::handshake::{AuthMethod, Mac, Mark, Nonce};
use crate::wire::metadata::MetadataSecret;

/// How a dialer and the listener prove who they are.
#[derive(Clone)]
pub enum Auth {
    /// Not at all: for networks that no stranger reaches.
    Insecure,
    /// All hold the same secret.
    SharedKey(AuthKey),
    /// The dialer holds the metadata of the listener, whose secret this is.
    Metadata(MetadataSecret),
}

impl Auth {
    pub(crate) fn method(&self) -> AuthMethod {
        match self {
            Self::Insecure => AuthMethod::Insecure,
            Self::SharedKey(_) => AuthMethod::SharedKey,
            Self::Metadata(_) => AuthMethod::Metadata,
        }
    }

    fn secret(&self) -> &[u8] {
        match self {
            Self::Insecure => &[],
            Self::SharedKey(key) => &key.0,
            Self::Metadata(secret) => secret.as_bytes(),
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Insecure => "Insecure",
            Self::SharedKey(_) => "SharedKey(..)",
            Self::Metadata(_) => "Metadata(..)",
        })
    }
}

/// Who may connect: a secret that all engines of a deployment hold. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AuthKey(Vec<u8>);

impl AuthKey {
    /// The key of these bytes. How long a key must be, whoever loads it decides.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthKey(..)")
    }
}

/// What a control connection's two sides share after their handshake. Lanes prove it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionSecret([u8; 32]);

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

/// A dialer that has proved no more than that it holds this engine's metadata, as many may.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// Its side of the peer relation, as it says: whoever else holds the metadata does not know it.
    pub association: Option<Association>,
    own: Mac,
    transcript: Transcript,
}

impl Bearer {
    pub(crate) fn new(mark: Option<&Mark>, transcript: Transcript) -> Self {
        Self {
            association: mark.and_then(|mark| mark.association),
            own: mark.map_or([0; 32], |mark| mark.own),
            transcript,
        }
    }

    /// Whether it has proved that this is the secret of its own metadata.
    pub fn owns(&self, secret: &MetadataSecret) -> bool {
        proofs_match(&self.transcript.own_proof(secret), &self.own)
    }
}

/// Everything that was said in a control handshake.
#[derive(Clone, Debug)]
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    pub(crate) fn new(hello: &[u8], welcome_without_mac: &[u8]) -> Self {
        Self(Sha256::new().chain_update(hello).chain_update(welcome_without_mac).finalize().into())
    }

    pub(crate) fn listener_proof(&self, auth: &Auth) -> Mac {
        mac(auth.secret(), &[b"kvx 1 listener", &self.0])
    }

    pub(crate) fn dialer_proof(&self, auth: &Auth, time: u64, mark: Option<&Mark>) -> Mac {
        let time = time.to_le_bytes();
        let Some(mark) = mark else {
            return mac(auth.secret(), &[b"kvx 1 dialer", &self.0, &time]);
        };
        let association = mark.association.map_or(0, |own| own.0).to_le_bytes();
        mac(auth.secret(), &[b"kvx 1 dialer", &self.0, &time, &association, &mark.own])
    }

    /// That a dialer's own metadata carries this secret.
    pub(crate) fn own_proof(&self, secret: &MetadataSecret) -> Mac {
        mac(secret.as_bytes(), &[b"kvx 1 own", &self.0])
    }

    pub(crate) fn session_secret(&self, auth: &Auth) -> SessionSecret {
        SessionSecret(mac(auth.secret(), &[b"kvx 1 session", &self.0]))
    }
}

/// Everything that was said in a lane's handshake.
#[derive(Debug)]
pub(crate) struct LaneTranscript([u8; 32]);

impl LaneTranscript {
    pub(crate) fn new(hello: &[u8], challenge: &Nonce) -> Self {
        Self(Sha256::new().chain_update(hello).chain_update(challenge).finalize().into())
    }

    pub(crate) fn listener_proof(&self, secret: &SessionSecret) -> Mac {
        mac(&secret.0, &[b"kvx 1 lane listener", &self.0])
    }

    pub(crate) fn dialer_proof(&self, secret: &SessionSecret) -> Mac {
        mac(&secret.0, &[b"kvx 1 lane dialer", &self.0])
    }

    pub(crate) fn key(&self, secret: &SessionSecret) -> LaneKey {
        LaneKey(mac(&secret.0, &[b"kvx 1 lane key", &self.0]))
    }
}

/// What both sides of one lane know, and nobody else: for transports whose sides have to prove more
/// to each other than that they hold the lane's stream.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LaneKey(Mac);

impl LaneKey {
    /// The key of these bytes, which must be secret.
    pub const fn new(bytes: Mac) -> Self {
        Self(bytes)
    }

    /// The lane's dialer's answer to a challenge, or its listener's; `purpose` tells what it is an
    /// answer for.
    pub fn answer(&self, purpose: &[u8], is_dialer: bool, challenge: &[u8]) -> Mac {
        let side: &[u8] = if is_dialer { b" dialer" } else { b" listener" };
        mac(&self.0, &[purpose, side, challenge])
    }
}

/// Keeps the secret.
impl std::fmt::Debug for LaneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneKey(..)")
    }
}

/// Compares in constant time.
pub(crate) fn proofs_match(expected: &Mac, given: &Mac) -> bool {
    expected.ct_eq(given).into()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Mac {
    // HMAC takes keys of any length (RFC 2104, section 2).
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}
