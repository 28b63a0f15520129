//! The dialing side: control connections to a peer's addresses, and the lanes beside them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvx_core::error::{Cause, Error, HandshakeError, Operation as Doing, PeerName};
use kvx_core::id::{Association, EngineId, LaneId};
use kvx_core::proto::{Auth, Dialer, Established, LaneDialer, keeps};
use kvx_core::transport::LaneOpen;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{control, stream};
use crate::clock;
use crate::completion::{Completion, Operation};
use crate::engine::{Shared, replace};
use crate::peer::{LaneOpenError, Link};
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
        let is_wanted = link.lock().is_wanted();
        // Whoever is dialed for its own sake chose the addresses: many of those must not use up the
        // descriptors.
        let courtesy = if is_wanted { None } else { shared.courtesy.try_acquire().ok() };
        if !is_wanted && courtesy.is_none() {
            link.lock().dialing = false;
            link.timers.notify_one();
            return;
        }
        let expected = link.engine().map(|(engine, _)| engine).or_else(|| link.name().id());
        let outcome = match link.auth(&shared) {
            Ok(auth) => {
                let association = Some(link.association);
                let caller = Caller { shared: Arc::clone(&shared), auth, expected, association };
                dial(caller, link.addresses()).await
            }
            Err(cause) => Err(DialError::NoKey(cause)),
        };
        let mut verified = None;
        match outcome {
            Ok(connection) => verified = Some(connection),
            Err(error) => tracing::debug!(peer = %link.name(), %error, "dial failed"),
        }
        // Under the lock, so that an incoming connection sees either the dial or its outcome.
        let wanted = {
            let mut core = link.lock();
            core.dialing = false;
            verified = verified.filter(|_| !shared.is_closed());
            let protocol = &core.protocol;
            let vacant = !protocol.is_connected() && protocol.cause_of_death().is_none();
            verified.filter(|new| vacant && protocol.check_connection(&new.established).is_ok())
        };
        if let Some(connection) = wanted {
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

/// Dials under way by address, so that those who want the same share one.
#[derive(Debug, Default)]
pub(crate) struct Connects(Mutex<HashMap<Vec<SocketAddr>, Operation<Arc<Link>>>>);

/// Connects to whoever is at one of these addresses, or finds the live peer that is. Ends by the
/// engine's deadline.
pub(crate) fn connect(
    shared: &Arc<Shared>,
    label: PeerName,
    addresses: Vec<SocketAddr>,
) -> Operation<Arc<Link>> {
    let done = Completion::new();
    let operation = Operation::new(Arc::clone(&done));
    let known = shared.peers().values().find(|link| link.is_at(&addresses)).cloned();
    if let Some(link) = known {
        let runtime = shared.runtime.clone();
        runtime.spawn(async move { done.set(when_ready(link).await) });
        return operation;
    }
    let mut connects = shared.connects.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(under_way) = connects.get(&addresses) {
        return under_way.clone();
    }
    connects.insert(addresses.clone(), operation.clone());
    drop(connects);
    let guest = Arc::clone(shared);
    shared.runtime.spawn(async move {
        let after = guest.deadline.progress;
        let mut last = None;
        let road = find_road(&guest, &label, &addresses, &mut last);
        let outcome = tokio::time::timeout(after, road).await;
        let outcome = outcome.unwrap_or_else(|_| {
            // What stood in the way says more than that time is up.
            let cause = last.unwrap_or(Cause::Deadline { after, total: true });
            Err(Error::new(Doing::Connect, cause).with_peer(label))
        });
        guest.connects.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&addresses);
        done.set(outcome);
    });
    operation
}

/// Dials until someone answers for good. `last` is why the last dial failed.
async fn find_road(
    shared: &Arc<Shared>,
    label: &PeerName,
    addresses: &[SocketAddr],
    last: &mut Option<Cause>,
) -> Result<Arc<Link>, Error> {
    let failed = |cause: Cause| Error::new(Doing::Connect, cause).with_peer(label.clone());
    let mut pause = Duration::from_millis(20);
    let auth = shared.access.dials.clone().map_err(failed)?;
    let caller = Caller { shared: Arc::clone(shared), auth, expected: None, association: None };
    loop {
        match dial(caller.clone(), addresses.to_vec()).await {
            Ok(connection) => {
                *last = None;
                return when_ready(adopt(shared, connection, addresses).map_err(failed)?).await;
            }
            Err(DialError::Refused(error)) if !is_temporary(&error) => {
                return Err(failed(error.into()));
            }
            Err(error) => {
                tracing::debug!(peer = %label, %error, "dial failed");
                if matches!(error, DialError::Refused(HandshakeError::Duplicate))
                    && let Some(link) = dialed_by(shared, addresses)
                {
                    return when_ready(link).await;
                }
                *last = Some(error.into_cause(label));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// The one peer that has dialed this engine and says that it is at one of these addresses: whoever
/// is there has just said that it is connected with this engine already.
fn dialed_by(shared: &Shared, addresses: &[SocketAddr]) -> Option<Arc<Link>> {
    let peers = shared.peers();
    let mut there = peers.values().filter(|link| link.has_dialed_from(addresses));
    // Where two say so, one is mistaken, or worse.
    let first = there.next().cloned();
    first.filter(|_| there.next().is_none())
}

async fn when_ready(link: Arc<Link>) -> Result<Arc<Link>, Error> {
    let ready = Completion::new();
    link.when_ready(Arc::clone(&ready));
    Operation::new(ready).await.map(|()| link)
}

/// Takes a connection that was dialed without knowing who is there.
fn adopt(
    shared: &Arc<Shared>,
    connection: Verified,
    addresses: &[SocketAddr],
) -> Result<Arc<Link>, Cause> {
    let Verified { stream, address, established } = connection;
    let engine = established.identity.engine;
    let peers = shared.peers();
    // A shutdown takes all peers there are, under the same lock: none may come after.
    shared.check()?;
    let known = peers.get(&engine).filter(|link| !link.is_over()).cloned();
    if let Some(link) = known {
        let life = link.life();
        if life.is_none_or(|life| life == established.identity.incarnation) {
            drop(peers);
            if keeps(shared.identity.engine, engine, link.known(), clock::now())
                && link.lock().protocol.check_connection(&established).is_ok()
            {
                control::spawn(shared, Arc::clone(&link), stream, &established, true, address);
            }
            return Ok(link);
        }
    }
    let link = shared.new_link(PeerName::verified(address.to_string(), engine))?;
    link.set_addresses(addresses.to_vec());
    replace(peers, engine, &link, Cause::PeerRestarted);
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
    let chosen = link.transport(shared).ok_or_else(no_control)?;
    let Some((kind, transport)) = chosen.and_then(|kind| Some((kind, shared.transport(kind)?)))
    else {
        link.kill(Cause::NoTransport);
        return Err(no_control());
    };
    let mut stream = TcpStream::connect(address).await.map_err(DialError::Io)?;
    // A lane carries bulk, but its handshake does not.
    let _ = stream.set_nodelay(true);
    let nonce = random::bytes().map_err(|_| HandshakeError::Busy)?;
    let engine = shared.identity.engine;
    let (dialer, hello) = LaneDialer::new(engine, associations, lane, kind.code(), &secret, nonce)?;
    stream::write(&mut stream, &hello).await?;
    let (_, challenge) = stream::read(&mut stream).await?;
    let (proof, key) = dialer.handle_challenge(&challenge)?;
    stream::write(&mut stream, &proof).await?;
    let stream = stream.into_std().map_err(DialError::Io)?;
    let open = LaneOpen { lane, stream: stream.into(), key, dialed: true };
    Ok(link.open_lane(&*transport, open, associations)?)
}

/// Who dials, and whom it wants to reach.
#[derive(Clone)]
struct Caller {
    shared: Arc<Shared>,
    auth: Auth,
    /// `None`: whoever is there.
    expected: Option<EngineId>,
    /// This side's, if it has known the peer before.
    association: Option<Association>,
}

/// Tries the addresses; the first whose handshake succeeds wins.
async fn dial(caller: Caller, addresses: Vec<SocketAddr>) -> Result<Verified, DialError> {
    let attempts = addresses.into_iter().map(|address| {
        let caller = caller.clone();
        async move {
            tokio::time::timeout(PATIENCE, shake_hands(&caller, address))
                .await
                .unwrap_or(Err(DialError::Refused(HandshakeError::Timeout)))
        }
    });
    in_turn(attempts).await
}

/// Starts attempts one after the other, each as soon as the one before has failed, or a little after
/// it began; the first that succeeds wins.
async fn in_turn<T: Send + 'static>(
    attempts: impl Iterator<Item = impl Future<Output = Result<T, DialError>> + Send + 'static>,
) -> Result<T, DialError> {
    let mut waiting = attempts.fuse();
    let mut started = JoinSet::new();
    // A refusal by an engine says more than a port that nobody listens at.
    let mut error = DialError::NoAddress;
    loop {
        let pause = match waiting.next() {
            Some(attempt) => {
                started.spawn(attempt);
                STAGGER
            }
            // Each attempt ends by itself.
            None => Duration::MAX,
        };
        let ended = match tokio::time::timeout(pause, started.join_next()).await {
            Err(_) => continue,
            Ok(None) => return Err(error),
            Ok(Some(ended)) => ended,
        };
        match ended {
            Ok(Ok(won)) => return Ok(won),
            Ok(Err(next)) if !matches!(error, DialError::Refused(_)) => error = next,
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

async fn shake_hands(caller: &Caller, address: SocketAddr) -> Result<Verified, DialError> {
    let Caller { shared, auth, expected, association } = caller;
    let mut stream = TcpStream::connect(address).await.map_err(DialError::Io)?;
    let _ = stream.set_nodelay(true);
    let nonce = random::bytes().map_err(|_| HandshakeError::Busy)?;
    let (mut dialer, hello) = Dialer::new(&shared.identity, auth, *expected, nonce, clock::now())?;
    if let Some(association) = association {
        dialer = dialer.marked(*association, shared.access.secret.as_ref());
    }
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
    NoKey(#[source] Cause),
    #[error("{0}")]
    Io(#[source] std::io::Error),
    #[error(transparent)]
    Refused(#[from] HandshakeError),
    #[error(transparent)]
    Lane(#[from] LaneOpenError),
}

impl DialError {
    fn into_cause(self, label: &PeerName) -> Cause {
        match self {
            Self::Io(error) => Cause::io(format!("connect to {label}"), error),
            Self::Refused(error) => error.into(),
            Self::NoKey(cause) => cause,
            Self::NoAddress | Self::Lane(_) => Cause::NoTransport,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What an attempt comes to; `None`: never anything.
    type Attempt = Option<Result<u8, DialError>>;

    fn refused() -> Attempt {
        Some(Err(DialError::Refused(HandshakeError::WrongKey)))
    }

    fn nobody() -> Attempt {
        Some(Err(DialError::Io(std::io::ErrorKind::ConnectionRefused.into())))
    }

    async fn outcome(attempts: Vec<Attempt>) -> Result<u8, DialError> {
        let attempts = attempts.into_iter().map(|attempt| async {
            match attempt {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        });
        in_turn(attempts).await
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
    }

    #[test]
    fn the_next_address_is_tried_as_soon_as_one_has_failed() {
        run(async {
            let mut attempts: Vec<Attempt> = (0..16).map(|_| nobody()).collect();
            attempts.push(Some(Ok(7)));
            let no_time_passes = async {
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                outcome = outcome(attempts) => assert_eq!(outcome.unwrap(), 7),
                () = no_time_passes => panic!("it waits between addresses at which nobody is"),
            }
        });
    }

    #[test]
    fn the_next_address_is_tried_while_one_is_silent() {
        assert_eq!(run(outcome(vec![None, nobody(), Some(Ok(9))])).unwrap(), 9);
    }

    #[test]
    fn when_all_have_failed_the_answer_of_an_engine_is_told() {
        let error = run(outcome(vec![nobody(), refused(), nobody()])).unwrap_err();
        assert!(matches!(error, DialError::Refused(HandshakeError::WrongKey)), "{error}");
        assert!(matches!(run(outcome(vec![])).unwrap_err(), DialError::NoAddress));
    }
}
