//! One-sided transfers: lists of spans, paired and planned once, posted any number of times.

use std::sync::Arc;
use std::time::Duration;

use ::engine::plan::Places;
use ::engine::{Peer, PostOptions, Prepared, Region, RegionId, Spans, TransferOp};

use crate::event::Event;
use crate::handle::Table;
use crate::memory::{self, kvx_region};
use crate::operation::{kvx_operation, kvx_transfer_report, start};
use crate::peer::{Known, PEERS, kvx_peer};
use crate::raw::{self, Out, slice};
use crate::status::{Failure, call, kvx_status};

/// A list of spans. 0 is none.
pub type kvx_spans = u64;
/// A transfer that is ready to be posted. 0 is none.
pub type kvx_prepared = u64;

/// From own memory into the peer's.
pub const KVX_WRITE: u32 = 0;
/// From the peer's memory into own.
pub const KVX_READ: u32 = 1;

static SPANS: Table<List> = Table::new(4, "list of spans");
static PREPARED: Table<Ready> = Table::new(6, "prepared transfer");

/// Spans, and what their regions are.
#[derive(Debug)]
struct List {
    spans: Spans,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Local(Vec<Arc<Region>>),
    Peer(Peer, Vec<RegionId>, Arc<Event>),
}

#[derive(Debug)]
struct Ready {
    prepared: Prepared,
    event: Arc<Event>,
}

/// Options of a post. Zero it, set `size` and what shall differ from the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvx_post_options {
    /// sizeof(kvx_post_options).
    pub size: usize,
    /// Bytes that the peer's user is told, or null. With KVX_WRITE, once all data is in the peer's
    /// memory; the operation ends when they are delivered too. With KVX_READ, once all data is in own
    /// memory; the operation ends then, and the engine tells them by itself: at most once, and not if
    /// the READ failed or was cancelled.
    pub notification: *const u8,
    /// Their number.
    pub notification_len: usize,
    /// Fails when nothing has moved for so many nanoseconds. Default: the engine's.
    pub deadline_ns: u64,
    /// Fails when it is not done after so many. Default: the engine's.
    pub total_deadline_ns: u64,
}

// SAFETY: repr(C), begins with its size; a pointer, integers and nothing else.
unsafe impl raw::Options for kvx_post_options {}

/// A list of spans in own memory: span i is `lens[i]` bytes from `offsets[i]` on in
/// `regions[region[i]]`. The columns are copied. The list keeps no region registered.
///
/// # Safety
/// `regions` points to `region_count` handles, the columns to `count` entries each, `spans` to room
/// for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_spans_local(
    regions: *const kvx_region,
    region_count: usize,
    region: *const u32,
    offsets: *const u64,
    lens: *const u64,
    count: usize,
    spans: *mut kvx_spans,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("spans", spans) }?;
        // SAFETY: as the caller promises.
        let regions = memory::all(unsafe { slice("regions", regions, region_count) }?)?;
        // SAFETY: as the caller promises.
        let spans = unsafe { columns(region, offsets, lens, count) }?;
        out.put(SPANS.insert(Arc::new(List { spans, of: Of::Local(regions) }))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// A list of spans in a peer's memory: span i is `lens[i]` bytes from `offsets[i]` on in the
/// `region[i]`th of the peer's regions. The columns are copied.
///
/// # Safety
/// The columns point to `count` entries each, `spans` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_spans_remote(
    peer: kvx_peer,
    region: *const u32,
    offsets: *const u64,
    lens: *const u64,
    count: usize,
    spans: *mut kvx_spans,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("spans", spans) }?;
        let known = PEERS.get(peer)?;
        // SAFETY: as the caller promises.
        let spans = unsafe { columns(region, offsets, lens, count) }?;
        out.put(SPANS.insert(Arc::new(List { spans, of: of_peer(&known) }))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// A list of spans in own memory, given by address: span i is `lens[i]` bytes at `addresses[i]`,
/// each within one of the regions.
///
/// # Safety
/// `regions` points to `region_count` handles, the columns to `count` entries each, `spans` to room
/// for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_spans_local_at(
    regions: *const kvx_region,
    region_count: usize,
    addresses: *const u64,
    lens: *const u64,
    count: usize,
    spans: *mut kvx_spans,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("spans", spans) }?;
        // SAFETY: as the caller promises.
        let regions = memory::all(unsafe { slice("regions", regions, region_count) }?)?;
        let places = Places::new(regions.iter().map(|region| (region.address(), region.len())));
        // SAFETY: as the caller promises.
        let spans = unsafe { placed(&places, addresses, lens, count) }?;
        out.put(SPANS.insert(Arc::new(List { spans, of: Of::Local(regions) }))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// A list of spans in a peer's memory, given by the addresses that the peer knows it by: span i is
/// `lens[i]` bytes at `addresses[i]`, each within one of the peer's regions.
///
/// # Safety
/// The columns point to `count` entries each, `spans` to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_spans_remote_at(
    peer: kvx_peer,
    addresses: *const u64,
    lens: *const u64,
    count: usize,
    spans: *mut kvx_spans,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("spans", spans) }?;
        let known = PEERS.get(peer)?;
        let regions = known.peer.regions();
        let places = Places::new(regions.iter().map(|region| (region.base, region.len)));
        // SAFETY: as the caller promises.
        let spans = unsafe { placed(&places, addresses, lens, count) }?;
        out.put(SPANS.insert(Arc::new(List { spans, of: of_peer(&known) }))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// The number of spans in a list.
///
/// # Safety
/// `count` points to room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_spans_count(spans: kvx_spans, count: *mut usize) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let count = unsafe { Out::new("count", count) }?;
        count.put(SPANS.get(spans)?.spans.len());
        Ok(kvx_status::KVX_OK)
    })
}

/// Releases a list. What was prepared of it stays.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_spans_release(spans: kvx_spans) -> kvx_status {
    call(|| SPANS.remove(spans).map(|_| kvx_status::KVX_OK))
}

/// Prepares a transfer (KVX_WRITE or KVX_READ): span i of `local` to or from span i of `remote`.
///
/// # Safety
/// `prepared` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_prepare(
    op: u32,
    local: kvx_spans,
    remote: kvx_spans,
    prepared: *mut kvx_prepared,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("prepared", prepared) }?;
        let (local, remote) = (SPANS.get(local)?, SPANS.get(remote)?);
        let (regions, peer, ids, event) = sides(&local, &remote)?;
        let (ours, theirs) = ((&regions[..], &local.spans), (ids, &remote.spans));
        let prepared = peer.prepare(checked(op)?, ours, theirs)?;
        out.put(ready(prepared, event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Prepares a transfer of chosen spans: number `local_indices[i]` of `local` to or from number
/// `remote_indices[i]` of `remote`. Lists are made once and used for many requests.
///
/// # Safety
/// `local_indices` and `remote_indices` point to `count` entries each, `prepared` to room for a
/// handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_prepare_selected(
    op: u32,
    local: kvx_spans,
    local_indices: *const u32,
    remote: kvx_spans,
    remote_indices: *const u32,
    count: usize,
    prepared: *mut kvx_prepared,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new("prepared", prepared) }?;
        // SAFETY: as the caller promises.
        let local_indices = unsafe { slice("local_indices", local_indices, count) }?;
        // SAFETY: as the caller promises.
        let remote_indices = unsafe { slice("remote_indices", remote_indices, count) }?;
        let (local, remote) = (SPANS.get(local)?, SPANS.get(remote)?);
        let (regions, peer, ids, event) = sides(&local, &remote)?;
        let ours = (&regions[..], &local.spans, local_indices);
        let theirs = (ids, &remote.spans, remote_indices);
        let prepared = peer.prepare_selected(checked(op)?, ours, theirs)?;
        out.put(ready(prepared, event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// What each post of a prepared transfer will move.
///
/// # Safety
/// `size` points to room for a kvx_transfer_report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_prepared_size(
    prepared: kvx_prepared,
    size: *mut kvx_transfer_report,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let size = unsafe { Out::new("size", size) }?;
        let ready = PREPARED.get(prepared)?;
        let runs = ready.prepared.runs() as u64;
        size.put(kvx_transfer_report { bytes: ready.prepared.bytes(), runs });
        Ok(kvx_status::KVX_OK)
    })
}

/// Releases a prepared transfer. What was posted of it goes on.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_prepared_release(prepared: kvx_prepared) -> kvx_status {
    call(|| PREPARED.remove(prepared).map(|_| kvx_status::KVX_OK))
}

/// Posts a prepared transfer, with options or without (null). The calling thread sends the first
/// bytes itself and never blocks on the network.
///
/// # Safety
/// `options` is null or points to options whose notification is as long as it says; `operation`
/// points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_post(
    prepared: kvx_prepared,
    options: *const kvx_post_options,
    operation: *mut kvx_operation,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let operation = unsafe { Out::new("operation", operation) }?;
        let ready = PREPARED.get(prepared)?;
        let mut with = PostOptions::new();
        if !options.is_null() {
            // SAFETY: as the caller promises.
            let options = unsafe { raw::sized("options", options) }?;
            // SAFETY: as the caller promises.
            with = unsafe { post_options(&options) }?;
        }
        let transfer = ready.prepared.post(with)?;
        operation.put(start(transfer, &ready.event)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// # Safety
/// The notification is as long as it says.
unsafe fn post_options(options: &kvx_post_options) -> Result<PostOptions, Failure> {
    let mut with = PostOptions::new();
    if !options.notification.is_null() {
        let (bytes, len) = (options.notification, options.notification_len);
        // SAFETY: as the caller promises.
        let bytes = unsafe { slice("notification", bytes, len) }?;
        with = with.notify(raw::copy("notification", bytes)?);
    }
    let nanos = |nanos| (nanos > 0).then(|| Duration::from_nanos(nanos));
    match (nanos(options.deadline_ns), nanos(options.total_deadline_ns)) {
        (None, None) => {}
        (Some(progress), total) => with = with.deadline(progress, total),
        (None, Some(total)) => with = with.deadline(total, Some(total)),
    }
    Ok(with)
}

/// # Safety
/// The columns point to `count` entries each.
unsafe fn columns(
    region: *const u32,
    offsets: *const u64,
    lens: *const u64,
    count: usize,
) -> Result<Spans, Failure> {
    // SAFETY: as the caller promises.
    let region = unsafe { slice("region", region, count) }?;
    // SAFETY: as the caller promises.
    let offsets = unsafe { slice("offsets", offsets, count) }?;
    // SAFETY: as the caller promises.
    let lens = unsafe { slice("lens", lens, count) }?;
    let spans = Spans::from_columns(region, offsets, lens);
    spans.map_err(|error| Failure::invalid("spans", &error.to_string()))
}

/// # Safety
/// The columns point to `count` entries each.
unsafe fn placed(
    places: &Places,
    addresses: *const u64,
    lens: *const u64,
    count: usize,
) -> Result<Spans, Failure> {
    // SAFETY: as the caller promises.
    let addresses = unsafe { slice("addresses", addresses, count) }?;
    // SAFETY: as the caller promises.
    let lens = unsafe { slice("lens", lens, count) }?;
    let spans = places.spans(addresses, lens);
    spans.map_err(|error| Failure::invalid("spans", &error.to_string()))
}

fn of_peer(known: &Known) -> Of {
    let regions = known.peer.regions().iter().map(|region| region.id).collect();
    Of::Peer(known.peer.clone(), regions, Arc::clone(&known.event))
}

/// What the two lists of a transfer are of.
type Sides<'a> = (Vec<&'a Region>, &'a Peer, &'a [RegionId], &'a Arc<Event>);

fn sides<'a>(local: &'a List, remote: &'a List) -> Result<Sides<'a>, Failure> {
    let Of::Local(regions) = &local.of else {
        return Err(Failure::invalid("local", "is a list of a peer's spans"));
    };
    let Of::Peer(peer, ids, event) = &remote.of else {
        return Err(Failure::invalid("remote", "is a list of own spans"));
    };
    Ok((regions.iter().map(Arc::as_ref).collect(), peer, ids, event))
}

fn ready(prepared: Prepared, event: &Arc<Event>) -> Result<u64, Failure> {
    PREPARED.insert(Arc::new(Ready { prepared, event: Arc::clone(event) }))
}

fn checked(op: u32) -> Result<TransferOp, Failure> {
    match op {
        KVX_WRITE => Ok(TransferOp::Write),
        KVX_READ => Ok(TransferOp::Read),
        other => Err(Failure::invalid("op", &format!("{other} is neither WRITE nor READ"))),
    }
}
