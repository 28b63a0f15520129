//! The handshakes of control connections and lanes (PROTOCOL 3), as bytes in and bytes out.
//!
//! They verify who is there. Whether the verified engine is welcome, [`super::book`] decides; what
//! was outstanding with it, [`super::Peer`] knows.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::HandshakeError;
use crate::id::{Association, EngineId, Incarnation, LaneId};
use crate::proto::auth::{
    Auth, Bearer, LaneKey, LaneTranscript, SessionSecret, Transcript, proofs_match,
};
use crate::proto::clock::ClockSample;
use crate::time::Time;
use crate::transport::TransportOffer;
use crate::wire::handshake::{
    AuthMethod, Confirm, Features, HandshakeMessage, Hello, Identity, LaneChallenge, LaneHello,
    LaneProof, Mark, Nonce, Reject, Welcome, without_mac,
};
use crate::wire::metadata::MetadataSecret;
use crate::wire::{VERSION, VERSION_MIN, WireError};

/// The features that this version has.
const FEATURES: Features = Features::PUBLISHED_REGIONS;

/// What this engine says of itself in handshakes.
#[derive(Clone, Debug)]
pub struct LocalIdentity {
    /// The engine.
    pub engine: EngineId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name for logs.
    pub name: Arc<str>,
    /// Where it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Its transports.
    pub transports: Vec<TransportOffer>,
    /// Notification bytes it keeps for each peer before its user takes them.
    pub notification_window: u64,
}

/// A verified control connection.
#[derive(Clone, Debug)]
pub struct Established {
    /// Who is there.
    pub identity: Identity,
    /// What both sides do.
    pub features: Features,
    /// What lanes must prove.
    pub secret: SessionSecret,
    /// What the exchange said of the peer's clock.
    pub clock: ClockSample,
    /// How the sides proved themselves.
    pub method: AuthMethod,
    /// What is known of the dialer, where this side listened and its metadata was the proof.
    pub bearer: Option<Bearer>,
}

/// The dialing side of a control handshake, once its Hello is out.
#[derive(Debug)]
pub struct Dialer {
    auth: Auth,
    expected: Option<EngineId>,
    own: EngineId,
    hello: Vec<u8>,
    sent: Time,
    association: Option<Association>,
    own_secret: Option<MetadataSecret>,
}

/// The listening side of a control handshake, once its Welcome is out.
#[derive(Debug)]
pub struct Listener {
    auth: Auth,
    identity: Identity,
    features: Features,
    transcript: Transcript,
    sent: Time,
}

/// What a listener answers to a Hello.
#[derive(Debug)]
pub struct ListenerReply {
    /// The handshake, to be continued with the dialer's Confirm.
    pub listener: Listener,
    /// The Welcome to send.
    pub bytes: Vec<u8>,
}

impl LocalIdentity {
    fn at(&self, time: Time) -> Identity {
        Identity {
            engine: self.engine,
            incarnation: self.incarnation,
            time,
            name: Arc::clone(&self.name),
            addresses: self.addresses.clone(),
            transports: self.transports.clone(),
            notification_window: self.notification_window,
        }
    }
}

impl Dialer {
    /// Begins: returns the Hello to send. `expected`: the engine that must answer, if known.
    ///
    /// # Errors
    /// When the own identity does not fit a handshake message.
    pub fn new(
        local: &LocalIdentity,
        auth: &Auth,
        expected: Option<EngineId>,
        nonce: Nonce,
        now: Time,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let hello = HandshakeMessage::Hello(Hello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            features: FEATURES,
            auth: auth.method(),
            identity: local.at(now),
            expected,
            nonce,
        })
        .encode()?;
        let dialer = Self {
            auth: auth.clone(),
            expected,
            own: local.engine,
            hello: hello.clone(),
            sent: now,
            association: None,
            own_secret: None,
        };
        Ok((dialer, hello))
    }

    /// Tells this dialer from others that hold the listener's metadata: by its association, and by
    /// the secret of its own metadata if that has one. Said only to a listener that is proved by its
    /// metadata.
    pub fn marked(mut self, association: Association, own: Option<&MetadataSecret>) -> Self {
        self.association = Some(association);
        self.own_secret = own.cloned();
        self
    }

    /// Takes the listener's answer (its whole bytes, and what they decode to): returns the
    /// connection and the Confirm to send.
    ///
    /// # Errors
    /// The listener's refusal, or what is wrong with its answer.
    pub fn handle_welcome(
        self,
        now: Time,
        bytes: &[u8],
        message: HandshakeMessage,
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        let welcome = match message {
            HandshakeMessage::Welcome(welcome) => welcome,
            HandshakeMessage::Reject(Reject { reason }) => return Err(reason),
            _ => return Err(HandshakeError::NotKvx),
        };
        let transcript = Transcript::new(&self.hello, without_mac(bytes));
        if !proofs_match(&transcript.listener_proof(&self.auth), &welcome.mac) {
            return Err(HandshakeError::WrongKey);
        }
        if !(VERSION_MIN..=VERSION).contains(&welcome.version) {
            return Err(version_error(welcome.version, welcome.version));
        }
        if !FEATURES.contains(welcome.features) {
            let value = welcome.features.bits();
            return Err(WireError::Value { what: "features", value }.into());
        }
        let found = welcome.identity.engine;
        if found == self.own {
            return Err(HandshakeError::SameEngine);
        }
        if let Some(expected) = self.expected.filter(|expected| *expected != found) {
            return Err(HandshakeError::WrongEngine { expected, found });
        }
        let mark = self.mark(&transcript);
        let mac = transcript.dialer_proof(&self.auth, now.as_nanos(), mark.as_ref());
        let confirm = HandshakeMessage::Confirm(Confirm { time: now, mark, mac }).encode()?;
        let clock = ClockSample { sent: self.sent, peer: welcome.identity.time, received: now };
        let established = Established {
            features: welcome.features,
            secret: transcript.session_secret(&self.auth),
            clock,
            identity: welcome.identity,
            method: self.auth.method(),
            bearer: None,
        };
        Ok((established, confirm))
    }

    fn mark(&self, transcript: &Transcript) -> Option<Mark> {
        let own = self.own_secret.as_ref().map_or([0; 32], |own| transcript.own_proof(own));
        let mark = Mark { association: self.association, own };
        (self.auth.method() == AuthMethod::Metadata).then_some(mark)
    }
}

impl Listener {
    /// Answers a Hello (its whole bytes, and what they decode to). `accepts`: what lets a dialer in,
    /// no method twice; the first is what a dialer is told that brings none of them.
    ///
    /// # Errors
    /// Why the dialer is turned away; a [`Reject`] carries it.
    pub fn answer(
        local: &LocalIdentity,
        accepts: &[Auth],
        bytes: &[u8],
        hello: Hello,
        nonce: Nonce,
        now: Time,
    ) -> Result<ListenerReply, HandshakeError> {
        if hello.version_max < VERSION_MIN || hello.version_min > VERSION {
            return Err(version_error(hello.version_min, hello.version_max));
        }
        let Some(auth) = accepts.iter().find(|auth| auth.method() == hello.auth) else {
            let ours = accepts.first().map_or("nobody", |auth| auth.method().name());
            return Err(HandshakeError::Method { ours, theirs: hello.auth.name() });
        };
        if let Some(expected) = hello.expected.filter(|expected| *expected != local.engine) {
            return Err(HandshakeError::WrongEngine { expected, found: local.engine });
        }
        if hello.identity.engine == local.engine {
            return Err(HandshakeError::SameEngine);
        }
        let features = hello.features & FEATURES;
        let mut welcome = Welcome {
            version: VERSION.min(hello.version_max),
            features,
            identity: local.at(now),
            nonce,
            mac: [0; 32],
        };
        let transcript = Transcript::new(bytes, &welcome.encode_without_mac()?);
        welcome.mac = transcript.listener_proof(auth);
        let bytes = HandshakeMessage::Welcome(welcome).encode()?;
        let identity = hello.identity;
        let listener = Self { auth: auth.clone(), identity, features, transcript, sent: now };
        Ok(ListenerReply { listener, bytes })
    }

    /// Who the dialer says it is; not verified yet.
    pub fn claimed(&self) -> (EngineId, Incarnation) {
        (self.identity.engine, self.identity.incarnation)
    }

    /// Takes the dialer's proof.
    ///
    /// # Errors
    /// The proof is wrong, or is none.
    pub fn handle_confirm(
        self,
        now: Time,
        message: &HandshakeMessage,
    ) -> Result<Established, HandshakeError> {
        let HandshakeMessage::Confirm(confirm) = message else {
            return Err(HandshakeError::NotKvx);
        };
        // Of another method's dialer a mark means nothing, and its proof does not cover one.
        let method = self.auth.method();
        let mark = confirm.mark.as_ref().filter(|_| method == AuthMethod::Metadata);
        let time = confirm.time.as_nanos();
        let expected = self.transcript.dialer_proof(&self.auth, time, mark);
        if !proofs_match(&expected, &confirm.mac) {
            return Err(HandshakeError::WrongKey);
        }
        let secret = self.transcript.session_secret(&self.auth);
        let bearer =
            (method == AuthMethod::Metadata).then(|| Bearer::new(mark, self.transcript.clone()));
        Ok(Established {
            secret,
            clock: ClockSample { sent: self.sent, peer: confirm.time, received: now },
            identity: self.identity,
            features: self.features,
            method,
            bearer,
        })
    }
}

/// The dialing side of a lane's handshake, once its LaneHello is out.
#[derive(Debug)]
pub struct LaneDialer {
    secret: SessionSecret,
    hello: Vec<u8>,
}

/// The listening side of a lane's handshake, once its LaneChallenge is out.
#[derive(Debug)]
pub struct LaneListener {
    secret: SessionSecret,
    transcript: LaneTranscript,
    /// The lane that is being opened.
    pub lane: LaneId,
}

impl LaneDialer {
    /// Begins: returns the LaneHello to send.
    ///
    /// # Errors
    /// Never in practice: a LaneHello has a fixed size.
    pub fn new(
        engine: EngineId,
        associations: (Association, Association),
        lane: LaneId,
        transport: u8,
        secret: &SessionSecret,
        nonce: Nonce,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let (association, peer_association) = associations;
        let hello = LaneHello { engine, association, peer_association, lane, transport, nonce };
        let hello = HandshakeMessage::LaneHello(hello).encode()?;
        Ok((Self { secret: secret.clone(), hello: hello.clone() }, hello))
    }

    /// Takes the listener's challenge: returns the proof to send, after which frames may follow, and
    /// the lane's key.
    ///
    /// # Errors
    /// The listener's refusal, or its proof is wrong.
    pub fn handle_challenge(
        self,
        message: &HandshakeMessage,
    ) -> Result<(Vec<u8>, LaneKey), HandshakeError> {
        let challenge = match message {
            HandshakeMessage::LaneChallenge(challenge) => challenge,
            HandshakeMessage::Reject(Reject { reason }) => return Err(reason.clone()),
            _ => return Err(HandshakeError::NotKvx),
        };
        let transcript = LaneTranscript::new(&self.hello, &challenge.nonce);
        if !proofs_match(&transcript.listener_proof(&self.secret), &challenge.mac) {
            return Err(HandshakeError::WrongKey);
        }
        let mac = transcript.dialer_proof(&self.secret);
        let proof = HandshakeMessage::LaneProof(LaneProof { mac }).encode()?;
        Ok((proof, transcript.key(&self.secret)))
    }
}

impl LaneListener {
    /// Answers a LaneHello (its whole bytes, and what they decode to) of a peer whose session
    /// secret is `secret`: returns the challenge to send.
    ///
    /// # Errors
    /// Never in practice: a LaneChallenge has a fixed size.
    pub fn new(
        bytes: &[u8],
        hello: &LaneHello,
        secret: &SessionSecret,
        nonce: Nonce,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let transcript = LaneTranscript::new(bytes, &nonce);
        let mac = transcript.listener_proof(secret);
        let challenge = HandshakeMessage::LaneChallenge(LaneChallenge { nonce, mac }).encode()?;
        Ok((Self { secret: secret.clone(), transcript, lane: hello.lane }, challenge))
    }

    /// Takes the dialer's proof: returns the lane's key.
    ///
    /// # Errors
    /// The proof is wrong, or is none.
    pub fn handle_proof(self, message: &HandshakeMessage) -> Result<LaneKey, HandshakeError> {
        let HandshakeMessage::LaneProof(proof) = message else {
            return Err(HandshakeError::NotKvx);
        };
        if !proofs_match(&self.transcript.dialer_proof(&self.secret), &proof.mac) {
            return Err(HandshakeError::WrongKey);
        }
        Ok(self.transcript.key(&self.secret))
    }
}

fn version_error(theirs_min: u16, theirs_max: u16) -> HandshakeError {
    HandshakeError::Version { ours_min: VERSION_MIN, ours_max: VERSION, theirs_min, theirs_max }
}
