//! Sessions: the KV cache of one request, from a sender's pool into the blocks of a receiver's.

use std::ffi::c_char;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::engine::layout::{Attention, Dtype, HeadWindow, Layout, Pool};
use ::engine::{KvPool, Receiver, Room, Sender, SessionKey};

use crate::engine::{ENGINES, kvx_engine};
use crate::event::Event;
use crate::handle::Table;
use crate::memory::{self, kvx_region};
use crate::operation::{Later, Outcome, kvx_operation, outcome, start};
use crate::peer::{PEERS, kvx_peer};
use crate::raw::{self, Out, copy_out, slice};
use crate::status::{Failure, call, kvx_status};

/// The KV pool of a worker rank. 0 is none.
pub type kvx_pool = u64;
/// The prefill side of one session. 0 is none.
pub type kvx_sender = u64;
/// The decode side of one session. 0 is none.
pub type kvx_receiver = u64;

/// Keys and values, a window of heads each.
pub const KVX_KEY_VALUE: u32 = 1;
/// One latent vector a token, the same on every tensor-parallel rank (MLA).
pub const KVX_LATENT: u32 = 2;

/// 8-bit float, either kind.
pub const KVX_FP8: u32 = 1;
/// bfloat16.
pub const KVX_BF16: u32 = 2;
/// IEEE half.
pub const KVX_FP16: u32 = 3;
/// IEEE single.
pub const KVX_FP32: u32 = 4;
/// 8-bit integer.
pub const KVX_INT8: u32 = 5;

static POOLS: Table<KvPool> = Table::new(8, "pool");
static SENDERS: Table<Side<Sender>> = Table::new(9, "sender");
static RECEIVERS: Table<Side<Receiver>> = Table::new(10, "receiver");

/// One side of a session, until it is taken to be ended.
#[derive(Debug)]
struct Side<T> {
    side: Mutex<Option<T>>,
    event: Arc<Event>,
}

impl<T> Side<T> {
    fn new(side: T, event: &Arc<Event>) -> Arc<Self> {
        Arc::new(Self { side: Mutex::new(Some(side)), event: Arc::clone(event) })
    }

    fn with<R>(&self, f: impl FnOnce(&T) -> Result<R, Failure>) -> Result<R, Failure> {
        f(self.lock().as_ref().ok_or_else(ended)?)
    }

    fn take(&self) -> Result<T, Failure> {
        self.lock().take().ok_or_else(ended)
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        // There or taken: whole either way.
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another thread has just released the handle.
fn ended() -> Failure {
    Failure::new(kvx_status::KVX_UNKNOWN_HANDLE, "this side of the session was ended")
}

/// How a worker rank's KV pool lies in memory. Byte i of head h (of this rank's window), token slot
/// t of block b, of pool p is at `pool_offsets[p] + b * block_stride + t * token_stride +
/// h * head_stride + i` in region `pool_regions[p]` of the regions beside the layout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvx_layout {
    /// sizeof(kvx_layout).
    pub size: usize,
    /// KVX_KEY_VALUE or KVX_LATENT.
    pub attention: u32,
    /// What an element is: KVX_FP8 and so on.
    pub dtype: u32,
    /// The first layer held here, counted in the whole model.
    pub first_layer: u32,
    /// The number of layers held here.
    pub layers: u32,
    /// Tokens in a block.
    pub block_tokens: u32,
    /// Blocks in each pool.
    pub blocks: u32,
    /// The first KV head held here; 0 for latent.
    pub heads_first: u32,
    /// The number of heads held here; 1 for latent.
    pub heads_count: u32,
    /// The KV heads of the whole model; 1 for latent.
    pub heads_total: u32,
    /// Elements of one head's K (or V) of one token; of the latent vector.
    pub head_size: u32,
    /// Bytes from one block to the next within a pool.
    pub block_stride: u64,
    /// Bytes from one token slot to the next within a block.
    pub token_stride: u64,
    /// Bytes from one head to the next.
    pub head_stride: u64,
    /// Where each pool begins, in layer order: for keys and values two a layer (K, then V), for
    /// latent one.
    pub pool_regions: *const u32,
    /// The offset of block 0 in that region.
    pub pool_offsets: *const u64,
    /// The number of pools.
    pub pool_count: usize,
}

// SAFETY: repr(C), begins with its size; pointers, integers and nothing else.
unsafe impl raw::Options for kvx_layout {}

/// Which session of which request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvx_session_key {
    /// The request.
    pub room: u64,
    /// Counts retries of the same room, from 0.
    pub attempt: u32,
    /// Rank of the sender in its instance.
    pub sender_rank: u32,
    /// Rank of the receiver in its instance.
    pub receiver_rank: u32,
}

/// What a receiver has granted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvx_granted {
    /// The receiver's tokens; those are sent.
    pub tokens: u32,
    /// The first layer that both sides hold, counted in the whole model.
    pub first_layer: u32,
    /// Their number.
    pub layers: u32,
}

/// A pool that lies in these regions, as the layout says. Made once, used for every session; it
/// keeps no region registered.
///
/// # Safety
/// `layout` points to a layout whose arrays are as long as it says, `regions` to `count` handles,
/// `pool` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_pool_create(
    layout: *const kvx_layout,
    regions: *const kvx_region,
    count: usize,
    pool: *mut kvx_pool,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let pool = unsafe { Out::new("pool", pool) }?;
        // SAFETY: as the caller promises.
        let described = unsafe { raw::sized("layout", layout) }?;
        // SAFETY: as the caller promises.
        let layout = unsafe { layout_of(&described) }?;
        // SAFETY: as the caller promises.
        let regions = memory::all(unsafe { slice("regions", regions, count) }?)?;
        let regions: Vec<_> = regions.iter().map(Arc::as_ref).collect();
        pool.put(POOLS.insert(Arc::new(KvPool::new(layout, &regions)?))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// # Safety
/// The arrays are as long as the layout says.
unsafe fn layout_of(layout: &kvx_layout) -> Result<Layout, Failure> {
    let code = |code: u32| u8::try_from(code).ok();
    let attention = code(layout.attention).and_then(Attention::from_code);
    let dtype = code(layout.dtype).and_then(Dtype::from_code);
    // SAFETY: as the caller promises.
    let regions = unsafe { slice("pool_regions", layout.pool_regions, layout.pool_count) }?;
    // SAFETY: as the caller promises.
    let offsets = unsafe { slice("pool_offsets", layout.pool_offsets, layout.pool_count) }?;
    let pools = regions.iter().zip(offsets);
    Ok(Layout {
        first_layer: layout.first_layer,
        layers: layout.layers,
        attention: attention.ok_or_else(|| Failure::invalid("attention", "is none"))?,
        block_tokens: layout.block_tokens,
        blocks: layout.blocks,
        heads: HeadWindow {
            first: layout.heads_first,
            count: layout.heads_count,
            total: layout.heads_total,
        },
        head_size: layout.head_size,
        dtype: dtype.ok_or_else(|| Failure::invalid("dtype", "is none"))?,
        block_stride: layout.block_stride,
        token_stride: layout.token_stride,
        head_stride: layout.head_stride,
        pools: pools.map(|(region, offset)| Pool { region: *region, offset: *offset }).collect(),
    })
}

/// Releases a pool. Sessions that use it go on.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_pool_release(pool: kvx_pool) -> kvx_status {
    call(|| POOLS.remove(pool).map(|_| kvx_status::KVX_OK))
}

/// Opens the sending side of a session; the receiver may have come before. `deadline_ns`: how long
/// to wait for it, and for progress of each write; 0: the engine's.
///
/// # Safety
/// `key` points to a key, `sender` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_sender_open(
    engine: kvx_engine,
    key: *const kvx_session_key,
    pool: kvx_pool,
    deadline_ns: u64,
    sender: *mut kvx_sender,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("sender", sender) }?;
        // SAFETY: as the caller promises.
        let key = session_key(unsafe { raw::reference("key", key) }?);
        let (opened, pool) = (ENGINES.get(engine)?, POOLS.get(pool)?);
        let sender = opened.engine.sender(key, &pool, deadline(deadline_ns))?;
        out.put(SENDERS.insert(Side::new(sender, &opened.event))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Ends when the receiver has granted its blocks; kvx_operation_granted() tells which.
///
/// # Safety
/// `operation` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_sender_granted(
    sender: kvx_sender,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let known = SENDERS.get(sender)?;
        let granted = known.with(|sender| Ok(sender.granted()))?;
        operation.put(start(Later(granted, Outcome::Granted), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Writes `layers` layers from `first_layer` on (counted in the whole model) of the prompt, which
/// lies in `blocks` of the sender's pool. To be called for each group of layers as prefill finishes
/// them, in any order, each layer once.
///
/// # Safety
/// `blocks` points to `count` entries, `operation` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_sender_write(
    sender: kvx_sender,
    first_layer: u32,
    layers: u32,
    blocks: *const u32,
    count: usize,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        // SAFETY: as the caller promises.
        let blocks = unsafe { slice("blocks", blocks, count) }?;
        let known = SENDERS.get(sender)?;
        let layers = first_layer..first_layer.saturating_add(layers);
        let write = known.with(|sender| Ok(sender.write(layers, blocks)?))?;
        operation.put(start(write, &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Says that all layers were written, with the small payload that decode needs (256 KiB at most).
/// The operation ends when everything is in the receiver's memory and it knows. The handle is
/// released.
///
/// # Safety
/// `payload` points to `len` bytes, `operation` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_sender_finish(
    sender: kvx_sender,
    payload: *const u8,
    len: usize,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        // SAFETY: as the caller promises.
        let payload = raw::copy("payload", unsafe { slice("payload", payload, len) }?)?;
        let known = SENDERS.remove(sender)?;
        let finish = known.take()?.finish(payload);
        operation.put(start(Later(finish, Outcome::Sent), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Gives the session up; the receiver is told why. The handle is released.
///
/// # Safety
/// `reason` is null or ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_sender_abort(sender: kvx_sender, reason: *const c_char) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let reason = unsafe { raw::text("reason", reason) }?.unwrap_or_default();
        SENDERS.remove(sender)?.take()?.abort(reason);
        Ok(kvx_status::KVX_OK)
    })
}

/// Opens the receiving side of a session with this peer as the sender: grants it `blocks` of
/// `pool`, which stand for `tokens` tokens. The sender may come later. `deadline_ns`: how long
/// nothing may arrive, the time until the first layer included; 0: the engine's.
///
/// # Safety
/// `key` points to a key, `blocks` to `count` entries, `receiver` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_receiver_open(
    peer: kvx_peer,
    key: *const kvx_session_key,
    pool: kvx_pool,
    tokens: u32,
    blocks: *const u32,
    count: usize,
    deadline_ns: u64,
    receiver: *mut kvx_receiver,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("receiver", receiver) }?;
        // SAFETY: as the caller promises.
        let key = session_key(unsafe { raw::reference("key", key) }?);
        // SAFETY: as the caller promises.
        let blocks = unsafe { slice("blocks", blocks, count) }?;
        let (known, pool) = (PEERS.get(peer)?, POOLS.get(pool)?);
        let receiver = known.peer.receiver(key, &pool, tokens, blocks, deadline(deadline_ns))?;
        out.put(RECEIVERS.insert(Side::new(receiver, &known.event))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Ends when this layer (counted in the whole model) has arrived.
///
/// # Safety
/// `operation` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_receiver_layer(
    receiver: kvx_receiver,
    layer: u32,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let known = RECEIVERS.get(receiver)?;
        let arrived = known.with(|receiver| Ok(receiver.layer(layer)))?;
        operation.put(start(Later(arrived, |()| Outcome::Done), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// The number of layers that have arrived.
///
/// # Safety
/// `layers` points to room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_receiver_arrived(
    receiver: kvx_receiver,
    layers: *mut u32,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let layers = unsafe { Out::new("layers", layers) }?;
        layers.put(RECEIVERS.get(receiver)?.with(|receiver| Ok(receiver.arrived()))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Ends when everything has arrived; kvx_operation_payload() then has what the sender ended with.
///
/// # Safety
/// `operation` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_receiver_done(
    receiver: kvx_receiver,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let known = RECEIVERS.get(receiver)?;
        let done = known.with(|receiver| Ok(receiver.done()))?;
        operation.put(start(Later(done, Outcome::Received), &known.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Ends the receiving side: aborts the session, with a reason or without (null), unless it is
/// complete. When this returns, nothing lands in the granted blocks any more. The handle is
/// released.
///
/// # Safety
/// `reason` is null or ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_receiver_close(
    receiver: kvx_receiver,
    reason: *const c_char,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let reason = unsafe { raw::text("reason", reason) }?;
        let receiver = RECEIVERS.remove(receiver)?.take()?;
        match reason {
            Some(reason) => receiver.abort(reason),
            None => drop(receiver),
        }
        Ok(kvx_status::KVX_OK)
    })
}

/// What the receiver has granted, once kvx_sender_granted() has ended.
///
/// # Safety
/// `granted` points to room for a kvx_granted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_operation_granted(
    operation: kvx_operation,
    granted: *mut kvx_granted,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("granted", granted) }?;
        let Outcome::Granted(granted) = outcome(operation)? else {
            return Err(Failure::invalid("operation", "waits for no grant"));
        };
        out.put(kvx_granted {
            tokens: granted.tokens,
            first_layer: granted.layers.start,
            layers: granted.layers.len() as u32,
        });
        Ok(kvx_status::KVX_OK)
    })
}

/// What the sender ended with, once kvx_receiver_done() has ended.
///
/// # Safety
/// `len` points to the room that `buffer` has; there its length is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_operation_payload(
    operation: kvx_operation,
    buffer: *mut u8,
    len: *mut usize,
) -> kvx_status {
    call(|| {
        let Outcome::Received(received) = outcome(operation)? else {
            return Err(Failure::invalid("operation", "waits for no sender"));
        };
        // SAFETY: as the caller promises.
        unsafe { copy_out(&received.payload, buffer, len) }?;
        Ok(kvx_status::KVX_OK)
    })
}

fn session_key(key: &kvx_session_key) -> SessionKey {
    let kvx_session_key { room, attempt, sender_rank, receiver_rank } = *key;
    SessionKey { room: Room(room), attempt, sender_rank, receiver_rank }
}

fn deadline(nanos: u64) -> Option<Duration> {
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}
