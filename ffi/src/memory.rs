//! Memory: allocated by the engine, or the caller's own; registered, and what it holds told to
//! peers as metadata.

use std::ffi::c_void;
use std::sync::Arc;

use ::engine::error::Operation as Doing;
use ::engine::{Buffer, CallerMemory, Region, Rights};

use crate::engine::{ENGINES, kvx_engine};
use crate::handle::Table;
use crate::raw::{Out, copy_out, slice};
use crate::status::{Failure, call, kvx_status};

/// A registered region. 0 is none.
pub type kvx_region = u64;

/// Peers that hold the region key may read the region.
pub const KVX_REMOTE_READ: u32 = 1;
/// Peers that hold the region key may write it.
pub const KVX_REMOTE_WRITE: u32 = 2;

/// Memory that the library allocated. 0 is none.
pub type kvx_buffer = u64;

pub(crate) static REGIONS: Table<Region> = Table::new(2, "region");
static BUFFERS: Table<Buffer> = Table::new(12, "buffer");

/// Allocates `len` bytes of zeroed, page-aligned memory, fit to be registered: peers on the same
/// host reach it fastest.
///
/// # Safety
/// `address` and `buffer` point to room for an address and a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_buffer_allocate(
    len: u64,
    address: *mut *mut c_void,
    buffer: *mut kvx_buffer,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let address = unsafe { Out::new("address", address) }?;
        // SAFETY: as the caller promises.
        let buffer = unsafe { Out::new("buffer", buffer) }?;
        let allocated = Buffer::allocate(len);
        let allocated = allocated.map_err(|cause| ::engine::Error::new(Doing::Allocate, cause))?;
        let place = allocated.as_ptr().cast();
        buffer.put(BUFFERS.insert(Arc::new(allocated))?);
        address.put(place);
        Ok(kvx_status::KVX_OK)
    })
}

/// Lets go of a buffer. Its memory is freed when no region that was registered of it is left
/// either.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_buffer_release(buffer: kvx_buffer) -> kvx_status {
    call(|| BUFFERS.remove(buffer).map(|_| kvx_status::KVX_OK))
}

/// Registers a buffer.
///
/// # Safety
/// `region` points to room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_buffer_register(
    engine: kvx_engine,
    buffer: kvx_buffer,
    rights: u32,
    region: *mut kvx_region,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let region = unsafe { Out::new("region", region) }?;
        let opened = ENGINES.get(engine)?;
        let buffer = BUFFERS.get(buffer)?;
        let registered = opened.engine.register_buffer(&buffer, checked(rights)?)?;
        region.put(REGIONS.insert(Arc::new(registered))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Registers `len` bytes of the caller's own memory from `address` on. The engine never frees them.
///
/// # Safety
/// Until kvx_region_deregister() or kvx_engine_close() has returned, the engine and, as far as
/// `rights` go, its peers may read and write the range at any moment; it may be unmapped early
/// (transfers then fail), but nothing else may be mapped there. `region` points to room for a
/// handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_register(
    engine: kvx_engine,
    address: *mut c_void,
    len: u64,
    rights: u32,
    region: *mut kvx_region,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let region = unsafe { Out::new("region", region) }?;
        let opened = ENGINES.get(engine)?;
        let rights = checked(rights)?;
        // SAFETY: as the caller promises.
        let memory = unsafe { CallerMemory::new(address.cast(), len) };
        let memory = memory.map_err(|error| Failure::invalid("memory", &error.to_string()))?;
        region.put(REGIONS.insert(Arc::new(opened.engine.register(memory, rights)?))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Publishes a region: from now on, and as long as it is registered, any peer that asks by
/// kvx_peer_published() is told of it. Whoever may connect to the engine may then use it, within its
/// rights. Once more does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_region_publish(region: kvx_region) -> kvx_status {
    call(|| {
        REGIONS.get(region)?.publish()?;
        Ok(kvx_status::KVX_OK)
    })
}

/// Deregisters a region. When this returns, no byte lands in it and none is read from it any more,
/// whatever peers do; transfers that used it fail.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_region_deregister(region: kvx_region) -> kvx_status {
    call(|| {
        REGIONS.remove(region)?.deregister()?;
        Ok(kvx_status::KVX_OK)
    })
}

/// What others need to reach these regions, to be handed over on any channel, for
/// kvx_peer_add(). Whoever holds it may use the regions, within their rights, if it may connect at
/// all: keep it secret.
///
/// # Safety
/// `regions` points to `count` handles; `len` points to the room that `buffer` has, and there the
/// length is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_engine_metadata(
    engine: kvx_engine,
    regions: *const kvx_region,
    count: usize,
    buffer: *mut u8,
    len: *mut usize,
) -> kvx_status {
    call(|| {
        let opened = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let regions = all(unsafe { slice("regions", regions, count) }?)?;
        let metadata = opened.engine.metadata(regions.iter().map(Arc::as_ref))?;
        // SAFETY: as the caller promises.
        unsafe { copy_out(&metadata, buffer, len) }?;
        Ok(kvx_status::KVX_OK)
    })
}

/// What these handles stand for.
pub(crate) fn all(handles: &[kvx_region]) -> Result<Vec<Arc<Region>>, Failure> {
    handles.iter().map(|handle| REGIONS.get(*handle)).collect()
}

fn checked(rights: u32) -> Result<Rights, Failure> {
    let known = u8::try_from(rights).ok().and_then(Rights::from_bits);
    known.ok_or_else(|| Failure::invalid("rights", &format!("{rights:#x} are none")))
}
