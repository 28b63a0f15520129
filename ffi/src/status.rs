//! What calls come to: status codes, and the calling thread's last error message.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use ::engine::error::{Cause, Fence};

/// What a call came to. Negative: it failed, and kvx_error_message() tells more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum kvx_status {
    /// Done.
    KVX_OK = 0,
    /// Still under way; or nothing is there yet.
    KVX_PENDING = 1,
    /// Arguments that cannot be honoured.
    KVX_INVALID = -1,
    /// No handle, or one of something that was released.
    KVX_UNKNOWN_HANDLE = -2,
    /// The process was forked after the library was first used.
    KVX_FORKED = -3,
    /// The engine has been shut down.
    KVX_SHUT_DOWN = -4,
    /// Nothing moved for the time that was allowed, or the total time was used up.
    KVX_DEADLINE = -5,
    /// No road to the peer came back in time.
    KVX_PEER_LOST = -6,
    /// The peer shut down.
    KVX_PEER_CLOSED = -7,
    /// The peer was restarted: add it again to reach its new life.
    KVX_PEER_RESTARTED = -8,
    /// The peer removed this engine.
    KVX_PEER_RESET = -9,
    /// The peer was removed here.
    KVX_PEER_REMOVED = -10,
    /// The peer broke the protocol.
    KVX_PEER_MISBEHAVED = -11,
    /// The owner of the memory refused the access.
    KVX_REFUSED = -12,
    /// The handshake failed: another auth key or version, or this engine itself.
    KVX_HANDSHAKE = -13,
    /// Cancelled here, and confirmed: nothing of it lands any more.
    KVX_CANCELLED = -14,
    /// Cancelled here, and not confirmed by its deadline, after which nothing lands either.
    KVX_CANCELLED_UNFENCED = -15,
    /// The session was aborted.
    KVX_ABORTED = -16,
    /// A region that it uses was deregistered.
    KVX_REGION_CLOSED = -17,
    /// A bound that protects memory is reached; later calls may pass.
    KVX_BUSY = -18,
    /// Not available here.
    KVX_UNSUPPORTED = -19,
    /// Memory could not be had.
    KVX_OUT_OF_MEMORY = -20,
    /// Whether a notification was delivered cannot be known.
    KVX_DELIVERY_UNKNOWN = -21,
    /// All lanes to the peer failed, and no transport is left.
    KVX_NO_TRANSPORT = -22,
    /// A system call failed.
    KVX_IO = -23,
    /// A defect of the library; nothing else is known of the call's outcome.
    KVX_PANICKED = -24,
    /// Something that has no code of its own; the message tells.
    KVX_FAILED = -25,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: kvx_status,
    message: String,
}

impl Failure {
    pub(crate) fn new(status: kvx_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// An argument that cannot be honoured.
    pub(crate) fn invalid(argument: &str, why: &str) -> Self {
        Self::new(kvx_status::KVX_INVALID, format!("{argument}: {why}"))
    }
}

impl From<::engine::Error> for Failure {
    fn from(error: ::engine::Error) -> Self {
        Self::new(status_of(&error.cause), error.to_string())
    }
}

fn status_of(cause: &Cause) -> kvx_status {
    match cause {
        Cause::Deadline { .. } => kvx_status::KVX_DEADLINE,
        Cause::PeerRestarted => kvx_status::KVX_PEER_RESTARTED,
        Cause::PeerClosed => kvx_status::KVX_PEER_CLOSED,
        Cause::PeerReset => kvx_status::KVX_PEER_RESET,
        Cause::PeerLost { .. } => kvx_status::KVX_PEER_LOST,
        Cause::PeerRemoved => kvx_status::KVX_PEER_REMOVED,
        Cause::PeerMisbehaved(_) => kvx_status::KVX_PEER_MISBEHAVED,
        Cause::Refused(_) => kvx_status::KVX_REFUSED,
        Cause::Handshake(_) => kvx_status::KVX_HANDSHAKE,
        Cause::Cancelled(Fence::Fenced) => kvx_status::KVX_CANCELLED,
        Cause::Cancelled(Fence::Unfenced) => kvx_status::KVX_CANCELLED_UNFENCED,
        Cause::Aborted { .. } => kvx_status::KVX_ABORTED,
        Cause::RegionClosed => kvx_status::KVX_REGION_CLOSED,
        Cause::Busy(_) => kvx_status::KVX_BUSY,
        Cause::Invalid(_) => kvx_status::KVX_INVALID,
        Cause::Unsupported(_) => kvx_status::KVX_UNSUPPORTED,
        Cause::ShutDown => kvx_status::KVX_SHUT_DOWN,
        Cause::Forked => kvx_status::KVX_FORKED,
        Cause::OutOfMemory { .. } => kvx_status::KVX_OUT_OF_MEMORY,
        Cause::DeliveryUnknown(_) => kvx_status::KVX_DELIVERY_UNKNOWN,
        Cause::NoTransport => kvx_status::KVX_NO_TRANSPORT,
        Cause::Io { .. } => kvx_status::KVX_IO,
        _ => kvx_status::KVX_FAILED,
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// What the calling thread's last failed call failed with, in English. Never null; valid until the
/// thread's next call of a kvx function fails.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_error_message() -> *const c_char {
    let message = catch_unwind(|| MESSAGE.try_with(|message| message.borrow().as_ptr()));
    // A thread that ends has no message any more.
    message.ok().and_then(Result::ok).unwrap_or(c"".as_ptr())
}

/// The version of the library, such as "1.2.3". Never null; valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Does what a function of the interface does, as the interface does everything: not in a forked
/// child, without letting a panic out, and with the message of a failure kept for the thread.
pub(crate) fn call(f: impl FnOnce() -> Result<kvx_status, Failure>) -> kvx_status {
    let guarded = || if is_forked() { Err(forked()) } else { f() };
    // What a panic leaves half done are entries that nobody has a handle to.
    let outcome = catch_unwind(AssertUnwindSafe(guarded)).unwrap_or_else(|_| Err(panicked()));
    outcome.unwrap_or_else(|failure| {
        let status = failure.status;
        // To be able to tell is not worth another panic.
        let _ = catch_unwind(AssertUnwindSafe(|| keep(failure)));
        status
    })
}

fn keep(failure: Failure) {
    let mut bytes = failure.message.into_bytes();
    bytes.retain(|byte| *byte != 0);
    let message = CString::new(bytes).unwrap_or_default();
    let _ = MESSAGE.try_with(|kept| kept.replace(message));
}

/// Whether this process is a child of the one that first called.
fn is_forked() -> bool {
    static HOME: OnceLock<u32> = OnceLock::new();
    *HOME.get_or_init(::engine::process_id) != ::engine::process_id()
}

fn forked() -> Failure {
    Failure::new(kvx_status::KVX_FORKED, "this process was forked from the one that uses kvx")
}

fn panicked() -> Failure {
    Failure::new(kvx_status::KVX_PANICKED, "a defect of kvx: it panicked, see standard error")
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message() -> String {
        // SAFETY: the message is valid until this thread's next failure.
        unsafe { CStr::from_ptr(kvx_error_message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_a_status() {
        let status = call(|| std::panic::resume_unwind(Box::new("out")));
        assert_eq!(status, kvx_status::KVX_PANICKED);
        assert!(message().contains("defect"));
    }

    #[test]
    fn each_thread_has_its_own_message() {
        let fail = |text: &str| call(|| Err(Failure::new(kvx_status::KVX_INVALID, text)));
        assert_eq!(fail("one\0two"), kvx_status::KVX_INVALID);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(message(), "");
                fail("other");
                assert_eq!(message(), "other");
            });
        });
        assert_eq!(message(), "onetwo");
    }
}
