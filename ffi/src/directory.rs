//! The directory: which engine serves which rank of an instance.

use std::ffi::c_char;
use std::time::Duration;

use ::engine::RankKey;

use crate::engine::{ENGINES, kvx_engine};
use crate::operation::{Later, Outcome, kvx_operation, outcome, start};
use crate::peer::{PEERS, kvx_peer};
use crate::raw::{self, Out, copy_out};
use crate::status::{Failure, call, kvx_status};

/// A rank of an instance.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvx_rank {
    /// The instance's name, at most 255 bytes; null is the empty one.
    pub instance: *const c_char,
    /// Data-parallel rank.
    pub dp: u32,
    /// Pipeline-parallel rank.
    pub pp: u32,
    /// Tensor-parallel rank.
    pub tp: u32,
}

/// Enters an engine into its own directory as `rank`.
///
/// # Safety
/// `rank` points to a rank whose name is null or ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_rank_serve(engine: kvx_engine, rank: *const kvx_rank) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let rank = unsafe { rank_key(rank) }?;
        ENGINES.get(engine)?.engine.serve_rank(rank)?;
        Ok(kvx_status::KVX_OK)
    })
}

/// Enters the engine that knows this peer into the peer's directory as `rank`, for as long as the
/// two are connected.
///
/// # Safety
/// `rank` points to a rank whose name is null or ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_rank_register(peer: kvx_peer, rank: *const kvx_rank) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let rank = unsafe { rank_key(rank) }?;
        PEERS.get(peer)?.peer.register_rank(rank)?;
        Ok(kvx_status::KVX_OK)
    })
}

/// Asks the peer's directory where `rank` is; it waits up to `wait_ns` (600 s at most) for the rank
/// to appear. When the operation has ended, kvx_operation_rank() has the answer.
///
/// # Safety
/// `rank` points to a rank whose name is null or ends with a zero, `operation` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_rank_find(
    peer: kvx_peer,
    rank: *const kvx_rank,
    wait_ns: u64,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        // SAFETY: as the caller promises.
        let rank = unsafe { rank_key(rank) }?;
        let known = PEERS.get(peer)?;
        let find = known.peer.find_rank(rank, Duration::from_nanos(wait_ns));
        operation.put(start(Later(find, Outcome::Rank), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Where the rank is that was asked for: its addresses, "ip:port" with commas between them, for
/// kvx_peer_connect(), as text without a final zero; and its engine's id, unless `id` is null.
/// KVX_PENDING if it did not appear in time.
///
/// # Safety
/// `len` points to the room that `buffer` has, and there its length is told; `id` is null or points
/// to room for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_operation_rank(
    operation: kvx_operation,
    buffer: *mut c_char,
    len: *mut usize,
    id: *mut [u8; 16],
) -> kvx_status {
    call(|| {
        let Outcome::Rank(found) = outcome(operation)? else {
            return Err(Failure::invalid("operation", "asks for no rank"));
        };
        let Some(entry) = found else {
            return Ok(kvx_status::KVX_PENDING);
        };
        let addresses: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
        // SAFETY: as the caller promises.
        unsafe { copy_out(addresses.join(",").as_bytes(), buffer.cast(), len) }?;
        if !id.is_null() {
            // SAFETY: as the caller promises.
            unsafe { Out::new("id", id) }?.put(entry.engine.0);
        }
        Ok(kvx_status::KVX_OK)
    })
}

/// # Safety
/// `rank` is null or points to a rank whose name is null or ends with a zero.
unsafe fn rank_key(rank: *const kvx_rank) -> Result<RankKey, Failure> {
    // SAFETY: as the caller promises.
    let rank = unsafe { raw::reference("rank", rank) }?;
    // SAFETY: as the caller promises.
    let instance = unsafe { raw::text("instance", rank.instance) }?.unwrap_or_default();
    if instance.len() > 255 {
        return Err(Failure::invalid("instance", "is longer than 255 bytes"));
    }
    Ok(RankKey { instance: instance.to_owned(), dp: rank.dp, pp: rank.pp, tp: rank.tp })
}
