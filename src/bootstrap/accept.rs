//! The listening side: every connection of this engine's peers comes in at one port.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kvx_core::error::{Cause, HandshakeError, PeerName, Resource};
use kvx_core::proto::{
    Established, Incoming, LaneListener, Listener, ListenerReply, Proof, Verdict, admit,
};
use kvx_core::transport::{LaneOpen, TransportKind};
use kvx_core::wire::handshake::{HandshakeMessage, Hello, LaneHello};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::{control, stream};
use crate::clock;
use crate::engine::{Shared, make_room, replace};
use crate::peer::Link;
use crate::random;

/// Connections in their handshake at once. Beyond it the oldest is dropped: whoever floods the
/// port pushes out its own silent connections first.
const MAX_HANDSHAKES: usize = 256;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause after an accept that failed, for lack of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The handshakes under way.
#[derive(Debug, Default)]
pub(crate) struct Doorkeeper {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    last: u64,
    handshakes: VecDeque<(u64, AbortHandle)>,
}

/// Accepts until the engine is gone.
pub(crate) async fn listen(shared: Weak<Shared>, listener: TcpListener) {
    let mut failing = false;
    loop {
        let accepted = listener.accept().await;
        let Some(shared) = shared.upgrade() else { return };
        match accepted {
            Ok((stream, from)) => {
                failing = false;
                admit_stranger(&shared, stream, from);
            }
            Err(error) => {
                // Once, until it works again: what is lacking may be lacking for hours.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "accept failed");
                }
                drop(shared);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit_stranger(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr) {
    let mut pending = shared.doorkeeper.pending.lock().unwrap_or_else(PoisonError::into_inner);
    if pending.handshakes.len() >= MAX_HANDSHAKES
        && let Some((_, oldest)) = pending.handshakes.pop_front()
    {
        oldest.abort();
    }
    pending.last += 1;
    let number = pending.last;
    let guest = Arc::downgrade(shared);
    let task = shared.runtime.spawn(async move {
        let outcome = tokio::time::timeout(PATIENCE, greet(&guest, stream, from)).await;
        if let Some(shared) = guest.upgrade() {
            shared.doorkeeper.forget(number);
        }
        match outcome.unwrap_or(Err(HandshakeError::Timeout)) {
            // The connection goes on in its own task, without this one's time limit.
            Ok(()) => {}
            Err(error) => tracing::debug!(%from, %error, "handshake refused"),
        }
    });
    pending.handshakes.push_back((number, task.abort_handle()));
}

impl Doorkeeper {
    fn forget(&self, number: u64) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.handshakes.retain(|(other, _)| *other != number);
    }
}

async fn greet(
    guest: &Weak<Shared>,
    mut stream: TcpStream,
    from: SocketAddr,
) -> Result<(), HandshakeError> {
    // Small messages both ways: waiting for more to send with them only costs time.
    let _ = stream.set_nodelay(true);
    let (bytes, message) = stream::read(&mut stream).await?;
    let shared = guest.upgrade().filter(|shared| shared.check().is_ok());
    let shared = shared.ok_or(HandshakeError::ShuttingDown)?;
    let outcome = match message {
        HandshakeMessage::Hello(hello) => {
            greet_control(&shared, &mut stream, from, &bytes, hello).await
        }
        HandshakeMessage::LaneHello(hello) => {
            return greet_lane(&shared, stream, &bytes, &hello).await;
        }
        _ => Err(HandshakeError::NotKvx),
    };
    match outcome {
        Ok((link, established)) => {
            control::spawn(&shared, link, stream, &established, false, from);
            Ok(())
        }
        Err(reason) => {
            stream::reject(&mut stream, &reason).await;
            Err(reason)
        }
    }
}

async fn greet_control(
    shared: &Arc<Shared>,
    stream: &mut TcpStream,
    from: SocketAddr,
    bytes: &[u8],
    hello: Hello,
) -> Result<(Arc<Link>, Established), HandshakeError> {
    let nonce = random::bytes().map_err(|_| HandshakeError::Busy)?;
    let local = &shared.identity;
    let now = clock::now();
    let method = hello.auth;
    let ListenerReply { listener, bytes } =
        Listener::answer(local, &shared.access.accepts, bytes, hello, nonce, now)?;
    let (engine, incarnation) = listener.claimed();
    let proof = Proof::before(method, from.ip());
    verdict(shared, Incoming { engine, incarnation, proof })?;
    stream::write(stream, &bytes).await?;
    let (_, message) = stream::read(stream).await?;
    let established = listener.handle_confirm(clock::now(), &message)?;
    // What was said before the proof may not hold any more.
    let mut peers = shared.peers();
    // A shutdown takes all peers there are, under the same lock: none may come after.
    shared.check().map_err(|_| HandshakeError::ShuttingDown)?;
    let known = peers.get(&engine).filter(|link| !link.is_over());
    let secret = known.and_then(|link| link.metadata_secret(incarnation));
    let proof = Proof::of(&established, from.ip(), secret.as_ref())?;
    let verdict = verdict_of(shared, known, Incoming { engine, incarnation, proof })?;
    if verdict == Verdict::Continue
        && let Some(link) = peers.get(&engine).cloned()
    {
        link.lock().protocol.check_connection(&established)?;
        return Ok((link, established));
    }
    // One that is in the life it was in, and cannot show that it is the same, has begun anew.
    let same_life = known.and_then(|link| link.life()) == Some(incarnation);
    let cause = if same_life { Cause::PeerReset } else { Cause::PeerRestarted };
    let name = PeerName::verified(from.to_string(), engine);
    let spare = make_room(&mut peers, engine)?;
    let link = shared.new_link(name).map_err(|_| HandshakeError::Busy)?;
    replace(peers, engine, &link, cause);
    if let Some(spare) = spare {
        spare.kill(Cause::Busy(Resource::Connections));
    }
    Ok((link, established))
}

fn verdict(shared: &Shared, incoming: Incoming) -> Result<Verdict, HandshakeError> {
    verdict_of(shared, shared.peers().get(&incoming.engine), incoming)
}

fn verdict_of(
    shared: &Shared,
    link: Option<&Arc<Link>>,
    incoming: Incoming,
) -> Result<Verdict, HandshakeError> {
    let link = link.filter(|link| !link.is_over());
    let known = link.and_then(|link| link.known());
    let dialing = link.is_some_and(|link| link.lock().dialing);
    let own = shared.identity.engine;
    let verdict = admit(own, known, incoming, dialing, clock::now())?;
    // A peer that the user's metadata names, and that was never heard of, is not known to the rule
    // above. It continues in the life that the metadata speaks of; another life is another peer.
    let named = link.filter(|_| verdict == Verdict::New).map(|link| link.life());
    Ok(match named {
        Some(life) if life.is_none_or(|life| life == incoming.incarnation) => Verdict::Continue,
        Some(_) => Verdict::Supersede,
        None => verdict,
    })
}

async fn greet_lane(
    shared: &Arc<Shared>,
    mut stream: TcpStream,
    bytes: &[u8],
    hello: &LaneHello,
) -> Result<(), HandshakeError> {
    let prepared = prepare_lane(shared, bytes, hello);
    let (link, kind, listener, challenge) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            stream::reject(&mut stream, &reason).await;
            return Err(reason);
        }
    };
    stream::write(&mut stream, &challenge).await?;
    let (_, message) = stream::read(&mut stream).await?;
    let key = listener.handle_proof(&message)?;
    let transport = shared.transport(kind).ok_or(HandshakeError::NoControl)?;
    let stream = stream.into_std().map_err(|_| HandshakeError::Ended)?;
    // The link may have died or been replaced while the proof was on its way.
    link.lock().protocol.check_lane(hello.association, hello.peer_association, hello.lane)?;
    let open = LaneOpen { lane: hello.lane, stream: stream.into(), key, dialed: false };
    let pair = (hello.peer_association, hello.association);
    link.open_lane(&*transport, open, pair).map_err(|error| {
        tracing::debug!(%error, lane = %hello.lane, "lane not opened");
        HandshakeError::NoControl
    })
}

type PreparedLane = (Arc<Link>, TransportKind, LaneListener, Vec<u8>);

fn prepare_lane(
    shared: &Arc<Shared>,
    bytes: &[u8],
    hello: &LaneHello,
) -> Result<PreparedLane, HandshakeError> {
    let link = shared.peers().get(&hello.engine).cloned().ok_or(HandshakeError::NoControl)?;
    link.lock().protocol.check_lane(hello.association, hello.peer_association, hello.lane)?;
    let kind = TransportKind::from_code(hello.transport).ok_or(HandshakeError::NoControl)?;
    let (secret, _) = link.secret().ok_or(HandshakeError::NoControl)?;
    let nonce = random::bytes().map_err(|_| HandshakeError::Busy)?;
    let (listener, challenge) = LaneListener::new(bytes, hello, &secret, nonce)?;
    Ok((link, kind, listener, challenge))
}
