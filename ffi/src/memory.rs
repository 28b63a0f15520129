//! Memory: allocated by the engine, or the caller's own; registered, and what it holds told to
//! peers as metadata.

use std::ffi::c_void;
use std::sync::Arc;

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

pub(crate) static REGIONS: Table<Registered> = Table::new(2, "region");

/// A region that has a handle.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) region: Region,
    /// Its memory, if the engine allocated it.
    _buffer: Option<Buffer>,
}

/// Allocates `len` bytes of zeroed, page-aligned memory and registers them. They stay until the
/// region is deregistered.
///
/// # Safety
/// `address` and `region` point to room for an address and a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_allocate(
    engine: kvx_engine,
    len: u64,
    rights: u32,
    address: *mut *mut c_void,
    region: *mut kvx_region,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let address = unsafe { Out::new("address", address) }?;
        // SAFETY: as the caller promises.
        let region = unsafe { Out::new("region", region) }?;
        let (buffer, registered) = ENGINES.get(engine)?.engine.allocate(len, checked(rights)?)?;
        let place = buffer.as_ptr().cast();
        region.put(insert(registered, Some(buffer))?);
        address.put(place);
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
        region.put(insert(opened.engine.register(memory, rights)?, None)?);
        Ok(kvx_status::KVX_OK)
    })
}

/// Deregisters a region. When this returns, no byte lands in it and none is read from it any more,
/// whatever peers do; transfers that used it fail. Memory that the engine allocated is freed.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_region_deregister(region: kvx_region) -> kvx_status {
    call(|| {
        REGIONS.remove(region)?.region.deregister()?;
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
        let metadata = opened.engine.metadata(regions.iter().map(|known| &known.region))?;
        // SAFETY: as the caller promises.
        unsafe { copy_out(&metadata, buffer, len) }?;
        Ok(kvx_status::KVX_OK)
    })
}

/// What these handles stand for.
pub(crate) fn all(handles: &[kvx_region]) -> Result<Vec<Arc<Registered>>, Failure> {
    handles.iter().map(|handle| REGIONS.get(*handle)).collect()
}

fn insert(region: Region, buffer: Option<Buffer>) -> Result<u64, Failure> {
    REGIONS.insert(Arc::new(Registered { region, _buffer: buffer }))
}

fn checked(rights: u32) -> Result<Rights, Failure> {
    let known = u8::try_from(rights).ok().and_then(Rights::from_bits);
    known.ok_or_else(|| Failure::invalid("rights", &format!("{rights:#x} are none")))
}
