//! Who is attacked, and what the attacker has honestly learned of it. Not what is done with that.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use kvx_core::id::{EngineId, Incarnation, RegionId, SessionKey};
use kvx_core::proto::{Auth, AuthKey};
use kvx_core::region::Rights;
use kvx_core::transport::TransportKind;
use kvx_core::wire::WireError;
use kvx_core::wire::metadata::{Metadata, MetadataSecret, RegionDescription};

/// An engine to attack, as an insider sees it: it holds the auth key, or metadata that lets its
/// holders in, and whatever else the victim's user gave away.
#[derive(Clone)]
pub struct Target {
    /// Where the victim listens.
    pub address: SocketAddr,
    /// What lets the attacker in.
    pub auth: Auth,
    /// The victim's engine, where metadata or a handshake has told it.
    pub engine: Option<EngineId>,
    /// Regions whose keys the victim gave away.
    pub shown: Vec<RegionDescription>,
    /// Regions that exist but were not given away. Attacks use their ids and lengths alone; the
    /// keys in these descriptions are not looked at.
    pub hidden: Vec<RegionDescription>,
    /// Another engine that the victim is connected with, for the attacks that claim to be it.
    pub other: Option<Other>,
    /// Makes the victim's user do what some attacks wait for.
    pub user: Option<User>,
    /// What lanes are opened over where the attack itself does not say. Over anything but TCP the
    /// attacker offers both.
    pub transport: TransportKind,
}

/// Carries out what an attack asks the victim's user for, from the attacker's thread.
pub type User = Arc<dyn Fn(Ask) + Send + Sync>;

/// What the victim's user does in good faith, and an attack abuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Connects to an address. Not to wait for the outcome.
    Dial(SocketAddr),
    /// Connects to an address, and asks who is there which regions it publishes. Not to wait for the
    /// outcome.
    List(SocketAddr),
    /// Deregisters a region that was given away, and returns when that has.
    Deregister(RegionId),
    /// Opens a receiver for this session with the engine, which is connected, as its sender.
    Receive(EngineId, SessionKey),
    /// Drops the receiver of this session, and returns when that has.
    Drop(SessionKey),
}

/// An engine in whose name an attacker may speak.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its lasting id.
    pub engine: EngineId,
    /// Its present life.
    pub incarnation: Incarnation,
}

impl Target {
    /// The engine at `address`, of which nothing more is known.
    pub fn new(address: SocketAddr, auth_key: Vec<u8>) -> Self {
        Self {
            address,
            auth: Auth::SharedKey(AuthKey::new(auth_key)),
            engine: None,
            shown: Vec::new(),
            hidden: Vec::new(),
            other: None,
            user: None,
            transport: TransportKind::Tcp,
        }
    }

    /// Adds what a metadata blob of the victim gives away. A secret in it lets the attacker in from
    /// then on.
    ///
    /// # Errors
    /// The bytes are no blob.
    pub fn with_metadata(mut self, blob: &[u8]) -> Result<Self, WireError> {
        let metadata = Metadata::decode(blob)?;
        self.engine = Some(metadata.engine);
        self.shown.extend(metadata.regions);
        if let Some(secret) = metadata.secret {
            self.auth = Auth::Metadata(secret);
        }
        Ok(self)
    }

    /// Adds regions that the victim has and did not give away: of the blob, the ids and lengths.
    ///
    /// # Errors
    /// The bytes are no blob.
    pub fn with_hidden(mut self, blob: &[u8]) -> Result<Self, WireError> {
        let metadata = Metadata::decode(blob)?;
        self.engine = Some(metadata.engine);
        self.hidden.extend(metadata.regions);
        Ok(self)
    }

    /// Adds an engine that the victim knows.
    pub fn with_other(mut self, engine: EngineId, incarnation: Incarnation) -> Self {
        self.other = Some(Other { engine, incarnation });
        self
    }

    /// Lanes are opened over this transport.
    pub fn over(mut self, transport: TransportKind) -> Self {
        self.transport = transport;
        self
    }

    /// Adds the victim's user.
    pub fn with_user(mut self, user: impl Fn(Ask) + Send + Sync + 'static) -> Self {
        self.user = Some(Arc::new(user));
        self
    }

    /// The secret that lets the attacker in, where it is the victim's metadata that does.
    pub(crate) fn secret(&self) -> Option<&MetadataSecret> {
        match &self.auth {
            Auth::Metadata(secret) => Some(secret),
            Auth::Insecure | Auth::SharedKey(_) => None,
        }
    }

    /// A region given away with exactly these rights.
    pub(crate) fn shown_with(&self, rights: Rights) -> Option<&RegionDescription> {
        self.shown.iter().find(|region| region.rights == rights)
    }

    /// A region given away that allows at least this.
    pub(crate) fn shown_allowing(&self, rights: Rights) -> Option<&RegionDescription> {
        self.shown.iter().find(|region| region.rights.contains(rights))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("engine", &self.engine)
            .field("shown", &self.shown.len())
            .field("hidden", &self.hidden.len())
            .field("other", &self.other)
            .field("transport", &self.transport)
            .field("has_user", &self.user.is_some())
            .finish()
    }
}
