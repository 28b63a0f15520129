//! What is said before a connection is trusted.
//!
//! Not who is trusted: the proofs are computed over these bytes by the peer state machine, which
//! is why messages are encoded once and the bytes received are kept. PROTOCOL 3 describes them.

mod codec;
mod reject;

use std::net::SocketAddr;
use std::sync::Arc;

use bitflags::bitflags;

use crate::error::HandshakeError;
use crate::id::{Association, EngineId, Incarnation, LaneId};
use crate::time::Time;
use crate::transport::TransportOffer;
use crate::wire::WireError;

/// The first four bytes of every connection.
pub const MAGIC: [u8; 4] = *b"KVX\n";

/// A handshake message's bytes at most, its prefix included.
pub const MAX_HANDSHAKE: usize = 4096;

/// Bytes before a handshake message's body.
pub const HANDSHAKE_PREFIX_LEN: usize = 8;

/// Bytes of a proof; it is the last thing in every message that carries one.
pub const MAC_LEN: usize = 32;

bitflags! {
    /// Optional parts of the protocol; a pair uses those that both sides name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Features: u64 {
        /// Frames may carry checksums.
        const CHECKSUM = 1;
        /// Transfers may carry digests.
        const DIGEST = 2;
        /// Either side may ask which regions the other publishes.
        const PUBLISHED_REGIONS = 4;
    }
}

/// How a side proves who it is. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AuthMethod {
    /// Not at all.
    Insecure = 0,
    /// Both hold the same auth key.
    SharedKey = 1,
    /// The dialer holds the listener's metadata, and with it the listener's secret.
    Metadata = 2,
}

impl AuthMethod {
    /// The method of this wire number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Insecure),
            1 => Some(Self::SharedKey),
            2 => Some(Self::Metadata),
            _ => None,
        }
    }

    /// The wire number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// How [`HandshakeError::Method`] names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insecure => "insecure",
            Self::SharedKey => "shared auth key",
            Self::Metadata => "metadata secret",
        }
    }

    /// The method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Insecure, Self::SharedKey, Self::Metadata];
        all.into_iter().find(|method| method.name() == name)
    }
}

/// A nonce: 32 random bytes.
pub type Nonce = [u8; 32];
/// A proof: HMAC-SHA-256.
pub type Mac = [u8; 32];

/// First message of a control connection, from the side that dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version the dialer speaks.
    pub version_min: u16,
    /// Newest version the dialer speaks.
    pub version_max: u16,
    /// Features the dialer has.
    pub features: Features,
    /// How the dialer authenticates.
    pub auth: AuthMethod,
    /// Who the dialer is.
    pub identity: Identity,
    /// Whom the dialer wants to reach; `None`: whoever is there.
    pub expected: Option<EngineId>,
    /// Fresh for each connection.
    pub nonce: Nonce,
}

/// Who speaks, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The engine.
    pub engine: EngineId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its clock at the time of sending.
    pub time: Time,
    /// Its name for logs, at most 255 bytes.
    pub name: Arc<str>,
    /// Where it can be reached, at most 16.
    pub addresses: Vec<SocketAddr>,
    /// Its transports, at most 16.
    pub transports: Vec<TransportOffer>,
    /// Notification bytes it keeps for the peer before its user takes them.
    pub notification_window: u64,
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version both will speak.
    pub version: u16,
    /// The features both will use.
    pub features: Features,
    /// Who the listener is.
    pub identity: Identity,
    /// Fresh for each connection.
    pub nonce: Nonce,
    /// Proof over everything said so far.
    pub mac: Mac,
}

/// The dialer's proof; the last message of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// The dialer's clock at the time of sending.
    pub time: Time,
    /// Told where the dialer proves that it holds the listener's metadata.
    pub mark: Option<Mark>,
    /// Proof over everything said so far, `time` and `mark` included.
    pub mac: Mac,
}

/// What tells a dialer from all others that hold the listener's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The dialer's side of the peer relation, which nobody but the listener was ever told of.
    pub association: Option<Association>,
    /// The dialer's proof of the secret that its own metadata carries; zeros where it has none.
    pub own: Mac,
}

/// First message of a lane's connection, from the side that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneHello {
    /// The dialer.
    pub engine: EngineId,
    /// The dialer's side of the peer relation.
    pub association: Association,
    /// The listener's side of it.
    pub peer_association: Association,
    /// The lane's name, chosen by the dialer of the control connection.
    pub lane: LaneId,
    /// Wire number of the transport.
    pub transport: u8,
    /// Fresh for each connection.
    pub nonce: Nonce,
}

/// The answer to [`LaneHello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneChallenge {
    /// Fresh for each connection.
    pub nonce: Nonce,
    /// The listener's proof of the session key.
    pub mac: Mac,
}

/// The dialer's proof of the session key. Frames follow at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneProof {
    /// The proof.
    pub mac: Mac,
}

/// Why the listener ends a handshake; instead of any answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The reason as the one who holds this value should report it. The listener gives its own
    /// view; decoding turns versions and methods round, so that the dialer has its own.
    pub reason: HandshakeError,
}

/// The type of a handshake message. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HandshakeKind {
    /// [`Hello`].
    Hello = 1,
    /// [`Welcome`].
    Welcome = 2,
    /// [`Confirm`].
    Confirm = 3,
    /// [`LaneHello`].
    LaneHello = 4,
    /// [`LaneChallenge`].
    LaneChallenge = 5,
    /// [`LaneProof`].
    LaneProof = 6,
    /// [`Reject`].
    Reject = 7,
}

impl HandshakeKind {
    /// Every type, in the order of the numbers.
    pub const ALL: [Self; 7] = [
        Self::Hello,
        Self::Welcome,
        Self::Confirm,
        Self::LaneHello,
        Self::LaneChallenge,
        Self::LaneProof,
        Self::Reject,
    ];

    /// The type of this wire number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The wire number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The type's name, for errors and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "Hello",
            Self::Welcome => "Welcome",
            Self::Confirm => "Confirm",
            Self::LaneHello => "LaneHello",
            Self::LaneChallenge => "LaneChallenge",
            Self::LaneProof => "LaneProof",
            Self::Reject => "Reject",
        }
    }
}

/// Every handshake message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeMessage {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Confirm`].
    Confirm(Confirm),
    /// See [`LaneHello`].
    LaneHello(LaneHello),
    /// See [`LaneChallenge`].
    LaneChallenge(LaneChallenge),
    /// See [`LaneProof`].
    LaneProof(LaneProof),
    /// See [`Reject`].
    Reject(Reject),
}

impl HandshakeMessage {
    /// The message's type.
    pub const fn kind(&self) -> HandshakeKind {
        match self {
            Self::Hello(_) => HandshakeKind::Hello,
            Self::Welcome(_) => HandshakeKind::Welcome,
            Self::Confirm(_) => HandshakeKind::Confirm,
            Self::LaneHello(_) => HandshakeKind::LaneHello,
            Self::LaneChallenge(_) => HandshakeKind::LaneChallenge,
            Self::LaneProof(_) => HandshakeKind::LaneProof,
            Self::Reject(_) => HandshakeKind::Reject,
        }
    }

    /// The type's name, for errors and logs.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The whole message's bytes, prefix included.
    ///
    /// # Errors
    /// When a list or text is longer than its bound.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        codec::encode(self)
    }

    /// What the first bytes of a message announce: its type, and the length of its body, so that
    /// prefix and body are at most [`MAX_HANDSHAKE`] bytes. After [`HANDSHAKE_PREFIX_LEN`] bytes
    /// it is plain whether the other side speaks kvx at all.
    ///
    /// # Errors
    /// [`WireError::Magic`] when it does not; else the first rule that is broken.
    pub fn decode_prefix(
        prefix: &[u8; HANDSHAKE_PREFIX_LEN],
    ) -> Result<(HandshakeKind, usize), WireError> {
        codec::decode_prefix(prefix)
    }

    /// The message of a prefix and the body that followed it.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(kind: HandshakeKind, body: &[u8]) -> Result<Self, WireError> {
        codec::decode(kind, body)
    }
}

impl Welcome {
    /// What the proofs cover of this message: all its bytes but `mac`, which follow as its last
    /// [`MAC_LEN`] bytes (PROTOCOL 3.3).
    ///
    /// # Errors
    /// When a list or text is longer than its bound.
    pub fn encode_without_mac(&self) -> Result<Vec<u8>, WireError> {
        codec::encode_without_mac(self)
    }
}

/// A message that ends with a proof, as it was received, without that proof. The receiver of a
/// [`Welcome`] must prove these bytes and not encode the message again: extensions that it does
/// not know would be missing.
pub fn without_mac(message: &[u8]) -> &[u8] {
    &message[..message.len().saturating_sub(MAC_LEN)]
}
