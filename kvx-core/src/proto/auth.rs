//! Proofs of the handshake (PROTOCOL 3.3): who may connect, and which lanes belong to whom.

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::wire::handshake::{AuthMethod, Mac, Nonce};

/// How this engine and its peers prove who they are.
#[derive(Clone)]
pub enum Auth {
    /// Not at all: for networks that no stranger reaches.
    Insecure,
    /// All hold the same secret.
    SharedKey(AuthKey),
}

impl Auth {
    pub(crate) fn method(&self) -> AuthMethod {
        match self {
            Self::Insecure => AuthMethod::Insecure,
            Self::SharedKey(_) => AuthMethod::SharedKey,
        }
    }

    fn secret(&self) -> &[u8] {
        match self {
            Self::Insecure => &[],
            Self::SharedKey(key) => &key.0,
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Insecure => "Insecure",
            Self::SharedKey(_) => "SharedKey(..)",
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

/// Everything that was said in a control handshake.
#[derive(Debug)]
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    pub(crate) fn new(hello: &[u8], welcome_without_mac: &[u8]) -> Self {
        Self(Sha256::new().chain_update(hello).chain_update(welcome_without_mac).finalize().into())
    }

    pub(crate) fn listener_proof(&self, auth: &Auth) -> Mac {
        mac(auth.secret(), &[b"kvx 1 listener", &self.0])
    }

    pub(crate) fn dialer_proof(&self, auth: &Auth, time: u64) -> Mac {
        mac(auth.secret(), &[b"kvx 1 dialer", &self.0, &time.to_le_bytes()])
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
