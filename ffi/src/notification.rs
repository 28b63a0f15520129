//! Notifications from all peers of an engine, in the order in which they became due.

use std::ffi::c_char;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::engine::Notification;

use crate::engine::{ENGINES, kvx_engine};
use crate::handle::Table;
use crate::raw::{Out, copy_out};
use crate::status::{call, kvx_status};

/// A notification that was taken. 0 is none.
pub type kvx_notification = u64;

static NOTIFICATIONS: Table<Notification> = Table::new(7, "notification");

/// Counts that somebody may look at. They stay, a few bytes an engine: who looks need not know when
/// the engine ends.
static LOOKED_AT: Mutex<Vec<Arc<AtomicUsize>>> = Mutex::new(Vec::new());

/// Takes the next notification, waiting `timeout_ns` at most for one (0: not at all; negative: 292
/// years). KVX_PENDING if there is none.
///
/// # Safety
/// `notification` points to room for a handle, `len` is null or points to room for the number of
/// its bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_notification_take(
    engine: kvx_engine,
    timeout_ns: i64,
    notification: *mut kvx_notification,
    len: *mut usize,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("notification", notification) }?;
        let opened = ENGINES.get(engine)?;
        let timeout = u64::try_from(timeout_ns).unwrap_or(i64::MAX as u64);
        let taken = match timeout {
            0 => opened.engine.poll_notification(),
            nanos => opened.engine.wait_notification(Duration::from_nanos(nanos)),
        };
        let Some(taken) = taken else {
            opened.event.ring_at_notification(&opened.engine);
            return Ok(kvx_status::KVX_PENDING);
        };
        if !len.is_null() {
            // SAFETY: as the caller promises.
            unsafe { Out::new("len", len) }?.put(taken.bytes.len());
        }
        out.put(NOTIFICATIONS.insert(Arc::new(taken))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Where the number of notifications stands that are there and were not taken, to be looked at
/// without a call. Valid for as long as the process lives; of a closed engine it changes no more.
///
/// # Safety
/// `word` points to room for an address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_notification_count_word(
    engine: kvx_engine,
    word: *mut *const usize,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("word", word) }?;
        let count = ENGINES.get(engine)?.engine.notification_count();
        let place: *const AtomicUsize = Arc::as_ptr(&count);
        let mut looked_at = LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
        if !looked_at.iter().any(|known| Arc::ptr_eq(known, &count)) {
            looked_at.push(count);
        }
        out.put(place.cast());
        Ok(kvx_status::KVX_OK)
    })
}

/// A notification's bytes.
///
/// # Safety
/// `len` points to the room that `buffer` has; there their number is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_notification_bytes(
    notification: kvx_notification,
    buffer: *mut u8,
    len: *mut usize,
) -> kvx_status {
    call(|| {
        let taken = NOTIFICATIONS.get(notification)?;
        // SAFETY: as the caller promises.
        unsafe { copy_out(&taken.bytes, buffer, len) }?;
        Ok(kvx_status::KVX_OK)
    })
}

/// The id of the engine that a notification is from: 16 bytes. KVX_PENDING if it is not known.
///
/// # Safety
/// `id` points to room for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_notification_engine(
    notification: kvx_notification,
    id: *mut [u8; 16],
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let id = unsafe { Out::new("id", id) }?;
        let Some(engine) = NOTIFICATIONS.get(notification)?.engine() else {
            return Ok(kvx_status::KVX_PENDING);
        };
        id.put(engine.0);
        Ok(kvx_status::KVX_OK)
    })
}

/// What errors call the peer that a notification is from, as text without a final zero.
///
/// # Safety
/// `len` points to the room that `buffer` has; there its length is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_notification_peer(
    notification: kvx_notification,
    buffer: *mut c_char,
    len: *mut usize,
) -> kvx_status {
    call(|| {
        let name = NOTIFICATIONS.get(notification)?.peer.to_string();
        // SAFETY: as the caller promises.
        unsafe { copy_out(name.as_bytes(), buffer.cast(), len) }?;
        Ok(kvx_status::KVX_OK)
    })
}

/// Releases a notification.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_notification_release(notification: kvx_notification) -> kvx_status {
    call(|| NOTIFICATIONS.remove(notification).map(|_| kvx_status::KVX_OK))
}
