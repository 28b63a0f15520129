//! The dialing side: control connections to a peer's addresses, and the lanes beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kvx_core::error::{Cause, Error, HandshakeError, Operation, PeerName};
use kvx_core::id::{EngineId, LaneId};
use kvx_core::proto::{Dialer, Established, LaneDialer};
use kvx_core::transport::LaneOpen;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{control, stream};
use crate::clock;
use crate::completion::Completion;
use crate::engine::Shared;
use crate::peer::Link;
use crate::random;

/// The next candidate address is tried when the one before has not answered for this long
/// (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How long one address may take to connect and shake hands.
const PATIENCE: Duration = Duration::from_secs(5);

/// A control connection whose other side has proved itself.
struct Verified {
    stream: TcpStream,
    address: SocketAddr,
    established: Established,
}

/// Dials a link's peer; the link's `dialing` is set while this runs.
pub(crate) fn spawn_dial(link: Arc<Link>) {
    let Some(shared) = link.shared.upgrade() else { return };
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let expected = link.engine().map(|(engine, _)| engine).or_else(|| link.name().id());
        let outcome = dial(&shared, link.addresses(), expected).await;
        let mut verified = None;
        match outcome {
            Ok(connection) => verified = Some(connection),
            Err(error) => tracing::debug!(peer = %link.name(), %error, "dial failed"),
        }
        // Under the lock, so that an incoming connection sees either the dial or its outcome.
        let wanted = {
            let mut core = link.lock();
            core.dialing = false;
            !core.protocol.is_connected() && core.protocol.cause_of_death().is_none()
        };
        if let Some(connection) = verified.filter(|_| wanted) {
            let expected = link.life();
            let found = connection.established.identity.incarnation;
            if expected.is_some_and(|expected| expected != found) {
                link.kill(Cause::PeerRestarted);
            } else {
                let Verified { stream, address, established } = connection;
                control::spawn(&shared, Arc::clone(&link), stream, &established, true, address);
            }
        }
        link.timers.notify_one();
    });
}

/// Connects to whoever is at one of these addresses; the link to it is ready when `done` is told.
pub(crate) async fn connect(
    shared: Arc<Shared>,
    label: PeerName,
    addresses: Vec<SocketAddr>,
    done: Arc<Completion<Result<Arc<Link>, Error>>>,
) {
    let failed = |cause: Cause| Error::new(Operation::Connect, cause).with_peer(label.clone());
    let mut pause = Duration::from_millis(20);
    // The engine's answer may be "not now": another connection of the pair is on its way.
    let link = loop {
        match dial(&shared, addresses.clone(), None).await {
            Ok(connection) => match adopt(&shared, connection, &addresses) {
                Ok(link) => break link,
                Err(cause) => return done.set(Err(failed(cause))),
            },
            Err(DialError::Refused(error)) if !is_temporary(&error) => {
                return done.set(Err(failed(error.into())));
            }
            Err(error) => {
                tracing::debug!(peer = %label, %error, "dial failed");
                if done.is_set() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
        if done.is_set() {
            return;
        }
    };
    let ready = Completion::new();
    link.when_ready(Arc::clone(&ready));
    let operation = crate::completion::Operation::new(ready);
    done.set(operation.await.map(|()| link));
}

/// Takes a connection that was dialed without knowing who is there.
fn adopt(
    shared: &Arc<Shared>,
    connection: Verified,
    addresses: &[SocketAddr],
) -> Result<Arc<Link>, Cause> {
    let Verified { stream, address, established } = connection;
    let engine = established.identity.engine;
    let mut peers = shared.peers();
    let known = peers.get(&engine).cloned();
    if let Some(link) = known {
        let life = link.life();
        if life.is_none_or(|life| life == established.identity.incarnation) {
            drop(peers);
            // The lower id's dial takes the place of the other's (PROTOCOL 3.5).
            let connected = link.lock().protocol.is_connected();
            if !connected || shared.identity.engine < engine {
                control::spawn(shared, Arc::clone(&link), stream, &established, true, address);
            }
            return Ok(link);
        }
        peers.remove(&engine);
        drop(peers);
        link.kill(Cause::PeerRestarted);
        peers = shared.peers();
    }
    let link = shared.new_link(PeerName::verified(address.to_string(), engine))?;
    link.set_addresses(addresses.to_vec());
    peers.insert(engine, Arc::clone(&link));
    drop(peers);
    control::spawn(shared, Arc::clone(&link), stream, &established, true, address);
    Ok(link)
}

/// Opens a lane that the protocol asked for.
pub(crate) fn spawn_lane(link: Arc<Link>, lane: LaneId) {
    let Some(shared) = link.shared.upgrade() else { return };
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let outcome = tokio::time::timeout(PATIENCE, open_lane(&shared, &link, lane)).await;
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => HandshakeError::Timeout.into(),
        };
        tracing::debug!(peer = %link.name(), %lane, %error, "lane not opened");
        link.with(|core| core.protocol.handle_lane_failed(clock::now(), lane));
    });
}

async fn open_lane(shared: &Arc<Shared>, link: &Arc<Link>, lane: LaneId) -> Result<(), DialError> {
    let no_control = || DialError::Refused(HandshakeError::NoControl);
    let (secret, address) = link.secret().ok_or_else(no_control)?;
    let associations = link.lock().protocol.associations().ok_or_else(no_control)?;
    let kind = link.transport(shared).ok_or_else(no_control)?;
    let transport = shared.transport(kind).ok_or_else(no_control)?;
    let mut stream = TcpStream::connect(address).await.map_err(DialError::Io)?;
    // A lane carries bulk, but its handshake does not.
    let _ = stream.set_nodelay(true);
    let nonce = random::bytes().map_err(|_| HandshakeError::Busy)?;
    let engine = shared.identity.engine;
    let (dialer, hello) = LaneDialer::new(engine, associations, lane, kind.code(), &secret, nonce)?;
    stream::write(&mut stream, &hello).await?;
    let (_, challenge) = stream::read(&mut stream).await?;
    let proof = dialer.handle_challenge(&challenge)?;
    stream::write(&mut stream, &proof).await?;
    let stream = stream.into_std().map_err(DialError::Io)?;
    let open = LaneOpen { lane, stream: stream.into() };
    link.open_lane(&*transport, open).map_err(|error| DialError::Lane(error.to_string()))
}

/// Tries the addresses, each a little after the one before; the first whose handshake succeeds
/// wins.
async fn dial(
    shared: &Arc<Shared>,
    addresses: Vec<SocketAddr>,
    expected: Option<EngineId>,
) -> Result<Verified, DialError> {
    let mut attempts = JoinSet::new();
    for (index, address) in addresses.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * index as u32).await;
            tokio::time::timeout(PATIENCE, shake_hands(&shared, address, expected))
                .await
                .unwrap_or(Err(DialError::Refused(HandshakeError::Timeout)))
        });
    }
    // A refusal by an engine says more than a port that nobody listens at.
    let mut error = DialError::NoAddress;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(verified)) => return Ok(verified),
            Ok(Err(next)) if !matches!(error, DialError::Refused(_)) => error = next,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(error)
}

async fn shake_hands(
    shared: &Arc<Shared>,
    address: SocketAddr,
    expected: Option<EngineId>,
) -> Result<Verified, DialError> {
    let mut stream = TcpStream::connect(address).await.map_err(DialError::Io)?;
    let _ = stream.set_nodelay(true);
    let nonce = random::bytes().map_err(|_| HandshakeError::Busy)?;
    let (dialer, hello) =
        Dialer::new(&shared.identity, &shared.auth, expected, nonce, clock::now())?;
    stream::write(&mut stream, &hello).await?;
    let (bytes, message) = stream::read(&mut stream).await?;
    let (established, confirm) = dialer.handle_welcome(clock::now(), &bytes, message)?;
    stream::write(&mut stream, &confirm).await?;
    Ok(Verified { stream, address, established })
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("no address to dial")]
    NoAddress,
    #[error("{0}")]
    Io(#[source] std::io::Error),
    #[error(transparent)]
    Refused(#[from] HandshakeError),
    #[error("{0}")]
    Lane(String),
}

/// Whether dialing again may help.
fn is_temporary(error: &HandshakeError) -> bool {
    matches!(
        error,
        HandshakeError::Duplicate
            | HandshakeError::Busy
            | HandshakeError::Ended
            | HandshakeError::Timeout
            | HandshakeError::NoControl
            | HandshakeError::ShuttingDown
    )
}
