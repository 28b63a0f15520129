//! Peers: added from their metadata or connected to, looked at, told, removed.

use std::ffi::c_char;
use std::sync::Arc;

use ::engine::Peer;
use ::engine::transport::MemoryKind;

use crate::engine::{ENGINES, kvx_engine};
use crate::event::Event;
use crate::handle::Table;
use crate::operation::{Later, Outcome, kvx_operation, start};
use crate::raw::{self, Out, copy_out, slice};
use crate::status::{Failure, call, kvx_status};

/// A peer, in one of its lives. 0 is none.
pub type kvx_peer = u64;

pub(crate) static PEERS: Table<Known> = Table::new(3, "peer");

/// A peer that has a handle.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) peer: Peer,
    pub(crate) event: Arc<Event>,
}

impl Known {
    pub(crate) fn new(peer: Peer, event: &Arc<Event>) -> Self {
        Self { peer, event: Arc::clone(event) }
    }
}

/// A region of a peer, as its owner describes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvx_remote_region {
    /// The address under which its owner knows the first byte.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
    /// What we may do with it: KVX_REMOTE_READ, KVX_REMOTE_WRITE.
    pub rights: u32,
    /// -1 for host memory, else the ordinal of the CUDA device.
    pub device: i32,
}

/// Adds a peer from its metadata, or more regions of a peer added before, and begins to connect to
/// it. Transfers may be posted at once.
///
/// # Safety
/// `metadata` points to `len` bytes, `peer` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_add(
    engine: kvx_engine,
    metadata: *const u8,
    len: usize,
    peer: *mut kvx_peer,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("peer", peer) }?;
        let opened = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let peer = opened.engine.add_peer(unsafe { slice("metadata", metadata, len) }?)?;
        out.put(PEERS.insert(Arc::new(Known::new(peer, &opened.event)))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Connects to the engine at `address` ("host:port"), whoever it is. When the operation has ended,
/// kvx_operation_peer() has the peer.
///
/// # Safety
/// `address` ends with a zero; `operation` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_connect(
    engine: kvx_engine,
    address: *const c_char,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let opened = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let address = unsafe { raw::text("address", address) }?;
        let address = address.ok_or_else(|| Failure::invalid("address", "is null"))?;
        let connect = opened.engine.connect(address);
        operation.put(start(Later(connect, Outcome::Peer), &opened.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// The engine as a peer of its own: transfers to it are copies.
///
/// # Safety
/// `peer` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_myself(engine: kvx_engine, peer: *mut kvx_peer) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let peer = unsafe { Out::new("peer", peer) }?;
        let opened = ENGINES.get(engine)?;
        let myself = Known::new(opened.engine.myself(), &opened.event);
        peer.put(PEERS.insert(Arc::new(myself))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// What errors call the peer, as text without a final zero.
///
/// # Safety
/// `len` points to the room that `buffer` has; there its length is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_name(
    peer: kvx_peer,
    buffer: *mut c_char,
    len: *mut usize,
) -> kvx_status {
    call(|| {
        let name = PEERS.get(peer)?.peer.name().to_string();
        // SAFETY: as the caller promises.
        unsafe { copy_out(name.as_bytes(), buffer.cast(), len) }?;
        Ok(kvx_status::KVX_OK)
    })
}

/// The peer's engine and its life: 16 bytes each, either may be null. KVX_PENDING as long as nothing
/// is proven.
///
/// # Safety
/// `id` and `incarnation` are null or point to room for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_identity(
    peer: kvx_peer,
    id: *mut [u8; 16],
    incarnation: *mut [u8; 16],
) -> kvx_status {
    call(|| {
        let Some((engine, life)) = PEERS.get(peer)?.peer.identity() else {
            return Ok(kvx_status::KVX_PENDING);
        };
        if !id.is_null() {
            // SAFETY: as the caller promises.
            unsafe { Out::new("id", id) }?.put(engine.0);
        }
        if !incarnation.is_null() {
            // SAFETY: as the caller promises.
            unsafe { Out::new("incarnation", incarnation) }?.put(life.0);
        }
        Ok(kvx_status::KVX_OK)
    })
}

/// The same peer with the regions of `other`, too, which is the same peer added again: first those of
/// `peer`, then those of `other`. All three are handles of their own.
///
/// # Safety
/// `joined` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_join(
    peer: kvx_peer,
    other: kvx_peer,
    joined: *mut kvx_peer,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let joined = unsafe { Out::new("joined", joined) }?;
        let known = PEERS.get(peer)?;
        let both = known.peer.joined(&PEERS.get(other)?.peer)?;
        joined.put(PEERS.insert(Arc::new(Known::new(both, &known.event)))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// The number of the peer's regions: those that its metadata listed, or that it published when
/// kvx_peer_published() asked.
///
/// # Safety
/// `count` points to room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_region_count(peer: kvx_peer, count: *mut usize) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let count = unsafe { Out::new("count", count) }?;
        count.put(PEERS.get(peer)?.peer.regions().len());
        Ok(kvx_status::KVX_OK)
    })
}

/// One of them, in the order of the metadata; of those that it published, oldest first.
///
/// # Safety
/// `region` points to room for a kvx_remote_region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_region(
    peer: kvx_peer,
    index: usize,
    region: *mut kvx_remote_region,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("region", region) }?;
        let known = PEERS.get(peer)?;
        let region = known.peer.regions().get(index);
        let region = region.ok_or_else(|| Failure::invalid("index", "the peer has fewer"))?;
        let device = match region.kind {
            MemoryKind::Host => Some(-1),
            MemoryKind::Cuda(ordinal) => i32::try_from(ordinal).ok(),
            _ => None,
        };
        let unknown = || Failure::new(kvx_status::KVX_UNSUPPORTED, "memory of an unknown kind");
        out.put(kvx_remote_region {
            address: region.base,
            len: region.len,
            rights: region.rights.bits().into(),
            device: device.ok_or_else(unknown)?,
        });
        Ok(kvx_status::KVX_OK)
    })
}

/// KVX_OK if the peer is connected at present, else KVX_PENDING.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_peer_is_connected(peer: kvx_peer) -> kvx_status {
    call(|| {
        let connected = PEERS.get(peer)?.peer.is_connected();
        Ok(if connected { kvx_status::KVX_OK } else { kvx_status::KVX_PENDING })
    })
}

/// Ends when the peer is connected.
///
/// # Safety
/// `operation` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_ready(
    peer: kvx_peer,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let known = PEERS.get(peer)?;
        operation.put(start(Later(known.peer.ready(), |()| Outcome::Done), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Asks a peer which regions it publishes. When the operation has ended, kvx_operation_peer() has
/// the peer with these regions; what was deregistered since the last time is not among them.
/// KVX_UNSUPPORTED if the peer's version publishes nothing.
///
/// # Safety
/// `operation` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_published(
    peer: kvx_peer,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let known = PEERS.get(peer)?;
        operation.put(start(Later(known.peer.published(), Outcome::Peer), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Tells the peer's user these bytes; ends when the peer has them.
///
/// # Safety
/// `bytes` points to `len` bytes, `operation` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_peer_notify(
    peer: kvx_peer,
    bytes: *const u8,
    len: usize,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let known = PEERS.get(peer)?;
        // SAFETY: as the caller promises.
        let bytes = raw::copy("bytes", unsafe { slice("bytes", bytes, len) }?)?;
        operation.put(start(Later(known.peer.notify(bytes), |()| Outcome::Done), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Forgets a peer: everything outstanding with it fails with KVX_PEER_REMOVED, and nothing of it
/// lands any more when this returns. The handle is released.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_peer_remove(peer: kvx_peer) -> kvx_status {
    call(|| {
        PEERS.remove(peer)?.peer.remove();
        Ok(kvx_status::KVX_OK)
    })
}

/// Releases a handle; the engine keeps the peer.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_peer_release(peer: kvx_peer) -> kvx_status {
    call(|| PEERS.remove(peer).map(|_| kvx_status::KVX_OK))
}
