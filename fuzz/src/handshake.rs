//! Handshakes by a list of operations: many at once, whose messages are lost, changed, swapped and
//! replayed. Who is satisfied has talked to one who said precisely what was heard, and who holds
//! the same auth key, or the listener's metadata (PROTOCOL 3.3 and 3.4).

use arbitrary::Arbitrary;
use kvx_core::id::{Association, EngineId, Incarnation, LaneId};
use kvx_core::proto::{
    Auth, AuthKey, Dialer, Established, LaneDialer, LaneListener, Listener, LocalIdentity,
};
use kvx_core::time::Time;
use kvx_core::wire::handshake::{AuthMethod, HANDSHAKE_PREFIX_LEN, HandshakeMessage, without_mac};
use kvx_core::wire::metadata::MetadataSecret;

/// What may happen. Numbers choose among what there is.
#[derive(Arbitrary, Debug)]
enum Operation {
    /// An engine of these dials, expecting perhaps another. By that one's metadata, if it has any to
    /// let others in by, by a secret that is wrong, or by its own key.
    Dial { engine: u8, expects: Option<u8> },
    /// An engine answers a message, if it is a Hello.
    Answer { engine: u8, message: u8 },
    /// A dialer takes a message for its Welcome.
    Welcome { dialer: u8, message: u8 },
    /// A listener takes a message for its Confirm.
    Confirm { listener: u8, message: u8 },
    /// A lane is dialed under a control connection.
    DialLane { established: u8, lane: u8 },
    /// A message is answered, if it is a LaneHello, under a control connection.
    AnswerLane { established: u8, message: u8 },
    /// A lane's dialer takes a message for its LaneChallenge.
    Challenge { dialer: u8, message: u8 },
    /// A lane's listener takes a message for its LaneProof.
    Proof { listener: u8, message: u8 },
    /// Someone on the path makes another message of one.
    Change { message: u8, at: u16, by: u8 },
    /// The same, and shorter or longer.
    Splice { message: u8, at: u16, drop: u8, insert: [u8; 3] },
}

/// Engines; [`Key`] says what each holds.
const ENGINES: u8 = 8;

/// What a handshake was proved by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// Of engines 0, 1, 6 and 7; the last but one lets nobody in by it.
    First,
    /// Of engines 2 and 3.
    Second,
    /// Engines 4 and 5 have none.
    Insecure,
    /// What lets others in at this engine, 6 or 7; of another number, nowhere.
    Metadata(u8),
}

impl Key {
    /// What an engine dials by where nothing else is said.
    fn own(engine: u8) -> Self {
        match engine / 2 {
            1 => Self::Second,
            2 => Self::Insecure,
            _ => Self::First,
        }
    }

    /// What lets others in at an engine.
    fn accepted(engine: u8) -> Vec<Self> {
        match engine {
            6 => vec![Self::Metadata(6)],
            7 => vec![Self::Metadata(7), Self::First],
            _ => vec![Self::own(engine)],
        }
    }

    fn auth(self) -> Auth {
        match self {
            Self::First => Auth::SharedKey(AuthKey::new(b"the key of the first".to_vec())),
            Self::Second => Auth::SharedKey(AuthKey::new(b"the key of the next two".to_vec())),
            Self::Insecure => Auth::Insecure,
            Self::Metadata(engine) => Auth::Metadata(secret(engine)),
        }
    }

    fn method(self) -> AuthMethod {
        match self {
            Self::First | Self::Second => AuthMethod::SharedKey,
            Self::Insecure => AuthMethod::Insecure,
            Self::Metadata(_) => AuthMethod::Metadata,
        }
    }
}

fn secret(engine: u8) -> MetadataSecret {
    MetadataSecret::new([engine; MetadataSecret::LEN])
}

/// The secret that an engine's own metadata carries.
fn own_secret(engine: u8) -> Option<MetadataSecret> {
    (engine >= 6).then(|| secret(engine))
}

/// All that was said, and who is where.
#[derive(Default)]
struct World {
    messages: Vec<Vec<u8>>,
    dialers: Vec<Dialing>,
    listeners: Vec<Listening>,
    established: Vec<Side>,
    lane_dialers: Vec<LaneDialing>,
    lane_listeners: Vec<LaneListening>,
    /// Nonces drawn: each is another one.
    drawn: u8,
}

struct Dialing {
    engine: u8,
    key: Key,
    association: Association,
    /// Gone once it has taken an answer.
    dialer: Option<Dialer>,
    hello: Vec<u8>,
    /// The answer it was satisfied with, and what it said then.
    done: Option<(Vec<u8>, Vec<u8>)>,
}

struct Listening {
    engine: u8,
    key: Key,
    listener: Option<Listener>,
    hello: Vec<u8>,
    welcome: Vec<u8>,
}

/// A side of a control connection that was verified: its engine, and the whole conversation.
struct Side {
    established: Established,
    engine: u8,
    key: Key,
    hello: Vec<u8>,
    welcome: Vec<u8>,
}

struct LaneDialing {
    dialer: Option<LaneDialer>,
    /// Index of the side that dials.
    under: usize,
    hello: Vec<u8>,
    /// The challenge it was satisfied with, and its proof.
    done: Option<(HandshakeMessage, HandshakeMessage)>,
}

struct LaneListening {
    listener: Option<LaneListener>,
    under: usize,
    hello: Vec<u8>,
    challenge: Vec<u8>,
}

/// Does the operations.
pub fn run(bytes: &[u8]) {
    let Some(operations) = crate::structured::<Vec<Operation>>(bytes) else { return };
    let mut world = World::default();
    // A control handshake takes three messages, and there are 255 nonces.
    operations.into_iter().take(200).for_each(|operation| {
        world.apply(operation);
    });
}

impl World {
    /// `None` where there is nothing to do it with.
    fn apply(&mut self, operation: Operation) -> Option<()> {
        match operation {
            Operation::Dial { engine, expects } => self.dial(engine % ENGINES, expects),
            Operation::Answer { engine, message } => self.answer(engine % ENGINES, message)?,
            Operation::Welcome { dialer, message } => self.welcome(dialer, message)?,
            Operation::Confirm { listener, message } => self.confirm(listener, message)?,
            Operation::DialLane { established, lane } => self.dial_lane(established, lane)?,
            Operation::AnswerLane { established, message } => {
                self.answer_lane(established, message)?;
            }
            Operation::Challenge { dialer, message } => self.challenge(dialer, message)?,
            Operation::Proof { listener, message } => self.proof(listener, message)?,
            Operation::Change { message, at, by } => {
                let mut changed = self.message(message)?;
                let at = usize::from(at) % changed.len();
                changed[at] ^= by;
                self.messages.push(changed);
            }
            Operation::Splice { message, at, drop, insert } => {
                let mut changed = self.message(message)?;
                let at = usize::from(at) % changed.len();
                let end = (at + usize::from(drop)).min(changed.len());
                changed.splice(at..end, insert);
                mend(&mut changed);
                self.messages.push(changed);
            }
        }
        Some(())
    }

    fn dial(&mut self, engine: u8, expects: Option<u8>) {
        let key = match expects.map(|other| (other % ENGINES, other / ENGINES % 4)) {
            Some((other, 0)) if own_secret(other).is_some() => Key::Metadata(other),
            Some((other, 1)) => Key::Metadata(other ^ 1),
            _ => Key::own(engine),
        };
        let expects = expects.map(|engine| identity(engine % ENGINES).engine);
        let nonce = self.nonce();
        let association = Association(u64::from(self.drawn) + 1);
        let dialed = Dialer::new(&identity(engine), &key.auth(), expects, nonce, now());
        let (dialer, hello) = dialed.expect("an identity that fits");
        let dialer = Some(dialer.marked(association, own_secret(engine).as_ref()));
        self.messages.push(hello.clone());
        self.dialers.push(Dialing { engine, key, association, dialer, hello, done: None });
    }

    fn answer(&mut self, engine: u8, message: u8) -> Option<()> {
        let bytes = self.message(message)?;
        let HandshakeMessage::Hello(hello) = parse(&bytes)? else { return None };
        let nonce = self.nonce();
        let (local, method) = (identity(engine), hello.auth);
        let keys = Key::accepted(engine);
        let accepts: Vec<Auth> = keys.iter().map(|key| key.auth()).collect();
        let answered = Listener::answer(&local, &accepts, &bytes, hello, nonce, now());
        let reply = answered.ok()?;
        let key = keys.into_iter().find(|key| key.method() == method);
        let key = key.expect("a method that the engine does not take");
        self.messages.push(reply.bytes.clone());
        self.listeners.push(Listening {
            engine,
            key,
            listener: Some(reply.listener),
            hello: bytes,
            welcome: reply.bytes,
        });
        Some(())
    }

    fn welcome(&mut self, dialer: u8, message: u8) -> Option<()> {
        let bytes = self.message(message)?;
        let message = parse(&bytes)?;
        let dialing = pick_mut(&mut self.dialers, dialer)?;
        let taken = dialing.dialer.take()?.handle_welcome(now(), &bytes, message);
        let (established, confirm) = taken.ok()?;
        // A listener with the same auth key heard this Hello, and said this Welcome.
        let heard = |listening: &&Listening| {
            listening.hello == dialing.hello
                && listening.welcome == bytes
                && listening.key == dialing.key
        };
        let listening = self.listeners.iter().find(heard).expect("satisfied by nobody");
        assert_eq!(established.identity.engine, identity(listening.engine).engine);
        dialing.done = Some((bytes.clone(), confirm.clone()));
        self.messages.push(confirm);
        assert!(established.bearer.is_none(), "a dialer is nobody's bearer");
        let (engine, key, hello) = (dialing.engine, dialing.key, dialing.hello.clone());
        self.established.push(Side { established, engine, key, hello, welcome: bytes });
        Some(())
    }

    fn confirm(&mut self, listener: u8, message: u8) -> Option<()> {
        let message = parse(&self.message(message)?)?;
        let listening = pick_mut(&mut self.listeners, listener)?;
        let claimed = listening.listener.as_ref()?.claimed();
        let established = listening.listener.take()?.handle_confirm(now(), &message).ok()?;
        assert_eq!(claimed, (established.identity.engine, established.identity.incarnation));
        // A dialer with the same key said this Hello, took this Welcome, and confirmed.
        // Extensions that nobody knows are not covered (PROTOCOL 2.2): messages are compared.
        let said = |dialing: &&Dialing| {
            dialing.hello == listening.hello
                && listening.key == dialing.key
                && dialing.done.as_ref().is_some_and(|(welcome, confirm)| {
                    *welcome == listening.welcome && parse(confirm).as_ref() == Some(&message)
                })
        };
        let dialing = self.dialers.iter().find(said).expect("satisfied by nobody");
        assert_eq!(established.identity.engine, identity(dialing.engine).engine);
        let by_metadata = listening.key.method() == AuthMethod::Metadata;
        assert_eq!(established.bearer.is_some(), by_metadata);
        if let Some(bearer) = &established.bearer {
            assert_eq!(bearer.association, Some(dialing.association));
            for engine in 0..ENGINES {
                let own = engine == dialing.engine && own_secret(engine).is_some();
                assert_eq!(bearer.owns(&secret(engine)), own, "engine {engine}");
            }
        }
        let (engine, key, hello) = (listening.engine, listening.key, listening.hello.clone());
        let welcome = listening.welcome.clone();
        self.established.push(Side { established, engine, key, hello, welcome });
        Some(())
    }

    fn dial_lane(&mut self, established: u8, lane: u8) -> Option<()> {
        let under = usize::from(established) % self.established.len().max(1);
        let nonce = self.nonce();
        let side = self.established.get(under)?;
        let associations = (Association(1), Association(2));
        let engine = identity(side.engine).engine;
        let secret = &side.established.secret;
        let lane = LaneId(lane.into());
        let dialed = LaneDialer::new(engine, associations, lane, 1, secret, nonce);
        let (dialer, hello) = dialed.expect("a LaneHello has a fixed size");
        self.messages.push(hello.clone());
        self.lane_dialers.push(LaneDialing { dialer: Some(dialer), under, hello, done: None });
        Some(())
    }

    fn answer_lane(&mut self, established: u8, message: u8) -> Option<()> {
        let bytes = self.message(message)?;
        let HandshakeMessage::LaneHello(hello) = parse(&bytes)? else { return None };
        let under = usize::from(established) % self.established.len().max(1);
        let nonce = self.nonce();
        let secret = &self.established.get(under)?.established.secret;
        let answered = LaneListener::new(&bytes, &hello, secret, nonce);
        let (listener, challenge) = answered.expect("a LaneChallenge has a fixed size");
        assert_eq!(listener.lane, hello.lane);
        self.messages.push(challenge.clone());
        let listener = Some(listener);
        self.lane_listeners.push(LaneListening { listener, under, hello: bytes, challenge });
        Some(())
    }

    fn challenge(&mut self, dialer: u8, message: u8) -> Option<()> {
        let message = parse(&self.message(message)?)?;
        let dialing = pick_mut(&mut self.lane_dialers, dialer)?;
        let proof = dialing.dialer.take()?.handle_challenge(&message).ok()?.0;
        let sides = &self.established;
        let answered = |listening: &&LaneListening| {
            listening.hello == dialing.hello
                && parse(&listening.challenge).as_ref() == Some(&message)
                && same_connection(&sides[listening.under], &sides[dialing.under])
        };
        assert!(self.lane_listeners.iter().any(|l| answered(&l)), "satisfied by nobody");
        dialing.done = parse(&proof).map(|proof| (message, proof));
        self.messages.push(proof);
        Some(())
    }

    fn proof(&mut self, listener: u8, message: u8) -> Option<()> {
        let message = parse(&self.message(message)?)?;
        let listening = pick_mut(&mut self.lane_listeners, listener)?;
        listening.listener.take()?.handle_proof(&message).ok()?;
        let sides = &self.established;
        let challenge = parse(&listening.challenge);
        let proved = |dialing: &&LaneDialing| {
            dialing.hello == listening.hello
                && same_connection(&sides[listening.under], &sides[dialing.under])
                && dialing.done.as_ref().is_some_and(|(heard, proof)| {
                    Some(heard) == challenge.as_ref() && *proof == message
                })
        };
        assert!(self.lane_dialers.iter().any(|d| proved(&d)), "satisfied by nobody");
        Some(())
    }

    fn nonce(&mut self) -> [u8; 32] {
        self.drawn = self.drawn.wrapping_add(1);
        [self.drawn; 32]
    }

    fn message(&self, which: u8) -> Option<Vec<u8>> {
        // The newest are the ones of interest.
        let back = usize::from(which) % self.messages.len().max(1);
        self.messages.iter().rev().nth(back).filter(|bytes| !bytes.is_empty()).cloned()
    }
}

/// Two sides of one control connection share its conversation and their auth key; the session key
/// is made of nothing else. What a side dialed itself it also knows, so that it may be its own.
fn same_connection(left: &Side, right: &Side) -> bool {
    left.hello == right.hello
        && without_mac(&left.welcome) == without_mac(&right.welcome)
        && left.key == right.key
}

fn identity(engine: u8) -> LocalIdentity {
    LocalIdentity {
        engine: EngineId([engine; 16]),
        incarnation: Incarnation([engine; 16]),
        name: format!("engine {engine}").into(),
        addresses: vec![([192, 0, 2, engine], 8998).into()],
        transports: Vec::new(),
        notification_window: 1 << 20,
    }
}

fn parse(bytes: &[u8]) -> Option<HandshakeMessage> {
    let (prefix, body) = bytes.split_first_chunk::<HANDSHAKE_PREFIX_LEN>()?;
    let (kind, len) = HandshakeMessage::decode_prefix(prefix).ok()?;
    HandshakeMessage::decode(kind, body.get(..len).filter(|all| all.len() == body.len())?).ok()
}

/// Puts the length in the prefix right.
fn mend(bytes: &mut [u8]) {
    if let Some(len) = bytes.len().checked_sub(HANDSHAKE_PREFIX_LEN) {
        bytes[6..8].copy_from_slice(&(len as u16).to_le_bytes());
    }
}

fn now() -> Time {
    Time::from_nanos(1 << 40)
}

fn pick_mut<T>(list: &mut [T], which: u8) -> Option<&mut T> {
    let back = usize::from(which) % list.len().max(1);
    list.iter_mut().rev().nth(back)
}
