//! Connections to the victim: a correct handshake, and then whatever bytes one likes. Blocking
//! sockets with limits; not what is sent on them.

mod control;
mod lane;
mod ring;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use kvx_core::error::HandshakeError;
use kvx_core::id::{EngineId, Incarnation};
use kvx_core::proto::LocalIdentity;
use kvx_core::transport::{Operations, TransportKind, TransportOffer};

use crate::random;

pub(crate) use control::{Control, Recording};
pub(crate) use lane::{Claim, Lane};
pub(crate) use ring::{Greeting, Rings, message, put_answer, say};
pub(crate) use stream::{PATIENCE, Stream};

/// Why a connection is of no more use.
#[derive(Clone, Debug)]
pub(crate) enum Gone {
    /// The victim ended it.
    Ended,
    /// The victim turned its handshake down.
    Rejected(HandshakeError),
    /// The victim said nothing where it had to.
    Silent(&'static str),
    /// The victim takes nothing more, because nothing of what it says is read.
    Full,
    /// The attacker's own machine gives out.
    Own(String),
    /// The attack needs to know something that the target does not tell.
    Lacks(&'static str),
}

pub(crate) type Result<T> = std::result::Result<T, Gone>;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the victim ended the connection"),
            Self::Rejected(error) => write!(f, "the victim turned a handshake down: {error}"),
            Self::Silent(what) => write!(f, "the victim owes {what}"),
            Self::Full => f.write_str("the victim takes nothing more"),
            Self::Own(why) => write!(f, "the attacker itself failed: {why}"),
            Self::Lacks(what) => write!(f, "not known: {what}"),
        }
    }
}

impl From<std::io::Error> for Gone {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::UnexpectedEof
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected => Self::Ended,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Full,
            _ => Self::Own(error.to_string()),
        }
    }
}

impl From<HandshakeError> for Gone {
    fn from(error: HandshakeError) -> Self {
        Self::Rejected(error)
    }
}

impl From<kvx_core::wire::WireError> for Gone {
    fn from(error: kvx_core::wire::WireError) -> Self {
        Self::Own(error.to_string())
    }
}

/// Whom the attacker says it is.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) engine: EngineId,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: Arc<str>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) notification_window: u64,
    /// What it offers.
    pub(crate) transports: Vec<TransportKind>,
}

impl Me {
    /// Somebody whom nobody knows.
    pub(crate) fn new() -> Result<Self> {
        let engine = EngineId(random::unique()?);
        Ok(Self {
            engine,
            incarnation: Incarnation(random::unique()?),
            name: format!("hostile-{engine}").into(),
            addresses: Vec::new(),
            notification_window: 16 << 20,
            transports: vec![TransportKind::Tcp],
        })
    }

    pub(crate) fn identity(&self) -> LocalIdentity {
        LocalIdentity {
            engine: self.engine,
            incarnation: self.incarnation,
            name: Arc::clone(&self.name),
            addresses: self.addresses.clone(),
            transports: self.transports.iter().map(offer).collect(),
            notification_window: self.notification_window,
        }
    }
}

fn offer(kind: &TransportKind) -> TransportOffer {
    let operations = Operations::WRITE | Operations::READ | Operations::OWNER_CHECKS;
    TransportOffer { code: kind.code(), operations }
}

/// The name of a refusal, without its details.
pub(crate) fn reason(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::NotKvx => "NotKvx",
        HandshakeError::Malformed(_) => "Malformed",
        HandshakeError::Version { .. } => "Version",
        HandshakeError::Method { .. } => "Method",
        HandshakeError::WrongKey => "WrongKey",
        HandshakeError::WrongEngine { .. } => "WrongEngine",
        HandshakeError::SameEngine => "SameEngine",
        HandshakeError::Duplicate => "Duplicate",
        HandshakeError::NameTaken => "NameTaken",
        HandshakeError::NoControl => "NoControl",
        HandshakeError::Busy => "Busy",
        HandshakeError::ShuttingDown => "ShuttingDown",
        HandshakeError::Ended => "Ended",
        HandshakeError::Timeout => "Timeout",
        _ => "another reason",
    }
}
