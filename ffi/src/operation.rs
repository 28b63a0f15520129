//! Operations: what takes time. Whoever started one polls it, waits for it, reads its status word,
//! or sleeps until the engine's event descriptor says that something has ended.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ::engine::{
    DirectoryEntry, Granted, Operation, Peer, Received, Result, Sent, Transfer, TransferReport,
};

use crate::event::Event;
use crate::handle::Table;
use crate::peer::{PEERS, kvx_peer};
use crate::raw::Out;
use crate::status::{Failure, call, kvx_status};

/// An operation under way, or ended. 0 is none.
pub type kvx_operation = u64;

/// What a transfer that is done has moved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvx_transfer_report {
    /// Bytes.
    pub bytes: u64,
    /// Runs that they moved in, after merging.
    pub runs: u64,
}

static OPERATIONS: Table<Started> = Table::new(5, "operation");

/// Something that ends later.
#[derive(Debug)]
struct Started {
    ends: Box<dyn Ends>,
    event: Arc<Event>,
    /// `KVX_PENDING`, then what it came to.
    word: AtomicI32,
    outcome: OnceLock<std::result::Result<Outcome, Failure>>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done,
    Moved(TransferReport),
    Peer(Peer),
    Granted(Granted),
    Sent(Sent),
    Received(Received),
    Rank(Option<DirectoryEntry>),
}

/// What is under way.
pub(crate) trait Ends: Debug + Send + Sync {
    /// The outcome if there is one; else the waker is called when there is.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Outcome>>;

    /// Waits on the calling thread; without a timeout until there is one, for every operation ends.
    fn wait(&self, timeout: Option<Duration>) -> Option<Result<Outcome>>;

    /// Gives it up, if that is possible.
    fn cancel(&self) -> bool {
        false
    }
}

impl Ends for Transfer {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Outcome>> {
        Pin::new(&mut self.clone()).poll(cx).map_ok(Outcome::Moved)
    }

    fn wait(&self, timeout: Option<Duration>) -> Option<Result<Outcome>> {
        let outcome = match timeout {
            None => Some(Self::wait(self)),
            Some(timeout) => self.wait_timeout(timeout),
        };
        outcome.map(|moved| moved.map(Outcome::Moved))
    }

    fn cancel(&self) -> bool {
        Self::cancel(self);
        true
    }
}

/// An operation of the engine, and what its outcome is here.
#[derive(Debug)]
pub(crate) struct Later<T>(pub(crate) Operation<T>, pub(crate) fn(T) -> Outcome);

impl<T: Clone + Debug + Send> Ends for Later<T> {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Outcome>> {
        Pin::new(&mut self.0.clone()).poll(cx).map_ok(self.1)
    }

    fn wait(&self, timeout: Option<Duration>) -> Option<Result<Outcome>> {
        let outcome = match timeout {
            None => Some(self.0.wait()),
            Some(timeout) => self.0.wait_timeout(timeout),
        };
        outcome.map(|outcome| outcome.map(self.1))
    }
}

/// Gives what was started a handle. It rings `event` when it has ended.
pub(crate) fn start(
    ends: impl Ends + 'static,
    event: &Arc<Event>,
) -> std::result::Result<u64, Failure> {
    let started = Arc::new(Started {
        ends: Box::new(ends),
        event: Arc::clone(event),
        word: AtomicI32::new(kvx_status::KVX_PENDING as i32),
        outcome: OnceLock::new(),
    });
    let handle = OPERATIONS.insert(Arc::clone(&started))?;
    started.look();
    Ok(handle)
}

/// What an operation has come to, once it has ended well.
pub(crate) fn outcome(operation: kvx_operation) -> std::result::Result<Outcome, Failure> {
    OPERATIONS.get(operation)?.outcome()
}

impl Started {
    /// Looks whether it has ended, and if not, to be called again when it has.
    fn look(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        if let Poll::Ready(outcome) = self.ends.poll(&mut Context::from_waker(&waker)) {
            self.end(outcome);
            self.event.ring();
        }
    }

    fn end(&self, outcome: Result<Outcome>) {
        let outcome = self.outcome.get_or_init(|| outcome.map_err(Failure::from));
        let status = outcome.as_ref().map_or_else(|failure| failure.status, |_| kvx_status::KVX_OK);
        self.word.store(status as i32, Ordering::Release);
    }

    /// The outcome, once it has ended well.
    fn outcome(&self) -> std::result::Result<Outcome, Failure> {
        let pending = || Failure::new(kvx_status::KVX_PENDING, "the operation is under way");
        self.outcome.get().ok_or_else(pending)?.clone()
    }

    fn status(&self) -> std::result::Result<kvx_status, Failure> {
        match self.outcome.get() {
            None => Ok(kvx_status::KVX_PENDING),
            Some(Ok(_)) => Ok(kvx_status::KVX_OK),
            Some(Err(failure)) => Err(failure.clone()),
        }
    }
}

impl Wake for Started {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

/// What an operation has come to, as far as it has: KVX_PENDING while it is under way. Never waits,
/// and makes no system call.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_operation_poll(operation: kvx_operation) -> kvx_status {
    call(|| OPERATIONS.get(operation)?.status())
}

/// Waits on the calling thread until an operation has ended, for `timeout_ns` at most (then it is
/// KVX_PENDING); with a negative timeout until it has, as every operation does by its deadline.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_operation_wait(operation: kvx_operation, timeout_ns: i64) -> kvx_status {
    call(|| {
        let started = OPERATIONS.get(operation)?;
        if started.outcome.get().is_none() {
            let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
            if let Some(outcome) = started.ends.wait(timeout) {
                started.end(outcome);
            }
        }
        started.status()
    })
}

/// Gives a transfer up. It then ends as KVX_CANCELLED, once the owner of the memory has confirmed,
/// as KVX_CANCELLED_UNFENCED at its deadline, or well if it was done before. What is no transfer
/// cannot be given up: KVX_UNSUPPORTED.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_operation_cancel(operation: kvx_operation) -> kvx_status {
    call(|| {
        if OPERATIONS.get(operation)?.ends.cancel() {
            return Ok(kvx_status::KVX_OK);
        }
        Err(Failure::new(kvx_status::KVX_UNSUPPORTED, "only transfers can be cancelled"))
    })
}

/// Lets go of an operation, which goes on if it is under way.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_operation_release(operation: kvx_operation) -> kvx_status {
    call(|| OPERATIONS.remove(operation).map(|_| kvx_status::KVX_OK))
}

/// Where an operation's status stands, to be looked at without a call: KVX_PENDING, then what
/// kvx_operation_poll() says. Valid until the operation is released.
///
/// # Safety
/// `word` points to room for an address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_operation_status_word(
    operation: kvx_operation,
    word: *mut *const i32,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let word = unsafe { Out::new("word", word) }?;
        word.put(OPERATIONS.get(operation)?.word.as_ptr().cast_const());
        Ok(kvx_status::KVX_OK)
    })
}

/// What a transfer, or a session that was finished, has moved. Of one that is not done, its status.
///
/// # Safety
/// `report` points to room for a kvx_transfer_report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_operation_report(
    operation: kvx_operation,
    report: *mut kvx_transfer_report,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let report = unsafe { Out::new("report", report) }?;
        let (bytes, runs) = match outcome(operation)? {
            Outcome::Moved(moved) => (moved.bytes, moved.runs.into()),
            Outcome::Sent(sent) => (sent.bytes, sent.runs),
            _ => return Err(Failure::invalid("operation", "moves nothing")),
        };
        report.put(kvx_transfer_report { bytes, runs });
        Ok(kvx_status::KVX_OK)
    })
}

/// The peer that kvx_peer_connect() has connected to, or kvx_peer_published() has asked, as a handle
/// of its own.
///
/// # Safety
/// `peer` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_operation_peer(
    operation: kvx_operation,
    peer: *mut kvx_peer,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let peer = unsafe { Out::new("peer", peer) }?;
        let started = OPERATIONS.get(operation)?;
        let Outcome::Peer(connected) = started.outcome()? else {
            return Err(Failure::invalid("operation", "brings no peer"));
        };
        peer.put(PEERS.insert(Arc::new(crate::peer::Known::new(connected, &started.event)))?);
        Ok(kvx_status::KVX_OK)
    })
}
