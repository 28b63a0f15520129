//! Engines: opened with options, asked who and where they are, closed.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use ::engine::{Config, Engine};

use crate::event::Event;
use crate::handle::Table;
use crate::raw::{self, Out, copy_out};
use crate::status::{Failure, call, kvx_status};

/// An engine. 0 is none.
pub type kvx_engine = u64;

pub(crate) static ENGINES: Table<Opened> = Table::new(1, "engine");

/// An engine that has a handle.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) engine: Engine,
    pub(crate) event: Arc<Event>,
}

/// Options of an engine. Zero it, set `size` and what shall differ from the default. A value set
/// here wins over the environment, the environment (`KVX_` and the field's name in upper case)
/// over the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvx_engine_options {
    /// sizeof(kvx_engine_options).
    pub size: usize,
    /// The engine's lasting name, from which its id is made. Default: one that is made up.
    pub name: *const c_char,
    /// Where to listen: "ip" or "ip:port". Default: "127.0.0.1:0", any free port on loopback.
    pub bind: *const c_char,
    /// What peers are told to reach it at, best first: a comma-separated list of "ip", "ip:port"
    /// or interface names. Default: what the bound address suggests.
    pub advertise: *const c_char,
    /// Which transports may be used, best first: a comma-separated list of "shm" (memory of a process
    /// on the same host) and "tcp". Default: "shm,tcp".
    pub transports: *const c_char,
    /// A file of mode 0600 with the auth key that all engines of a deployment share; required off
    /// loopback, unless `metadata_auth` or `insecure` is said.
    pub auth_key_file: *const c_char,
    /// What is logged, such as "kvx=info", the default.
    pub log: *const c_char,
    /// An operation that has not moved for so many nanoseconds fails. Default: 10 s.
    pub deadline_ns: u64,
    /// One that is not done after so many fails too. Default: no such bound.
    pub total_deadline_ns: u64,
    /// Bytes kept for a peer at most. Default: 256 MiB.
    pub peer_memory: u64,
    /// Bytes of notifications that a peer may send before they are taken. Default: 32 MiB.
    pub notification_window: u64,
    /// Bulk connections to a peer. Default: what the transport likes best.
    pub lanes: u16,
    /// Threads that move bytes. Default: the smaller of 4 and the cores.
    pub io_threads: u16,
    /// Not 0: anybody may connect who reaches the port, without a key; but see `metadata_auth`.
    pub insecure: u8,
    /// Not 0: the environment is not asked.
    pub ignore_environment: u8,
    /// 1: whoever holds this engine's metadata may connect, and nobody else but those who hold the
    /// key of `auth_key_file`, if that is set. The metadata then carries a secret. 2: not so, also
    /// where the environment says it.
    pub metadata_auth: u8,
}

// SAFETY: repr(C), begins with its size; pointers, integers and nothing else.
unsafe impl raw::Options for kvx_engine_options {}

/// Opens an engine: binds its port and starts its threads. Without options (null) it is as the
/// environment says.
///
/// # Safety
/// `options` is null or points to options whose text ends with a zero each; `engine` points to room
/// for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_engine_open(
    options: *const kvx_engine_options,
    engine: *mut kvx_engine,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let engine = unsafe { Out::new("engine", engine) }?;
        let config = if options.is_null() {
            Config::from_env().map_err(invalid)?
        } else {
            // SAFETY: as the caller promises.
            let options = unsafe { raw::sized("options", options) }?;
            // SAFETY: as the caller promises.
            unsafe { config(&options) }?
        };
        config.validate().map_err(invalid)?;
        crate::log::begin(&config);
        let opened = Opened { engine: Engine::new(config)?, event: Arc::default() };
        engine.put(ENGINES.insert(Arc::new(opened))?);
        Ok(kvx_status::KVX_OK)
    })
}

/// # Safety
/// The text that `options` refers to ends with a zero each.
unsafe fn config(options: &kvx_engine_options) -> Result<Config, Failure> {
    let environment = options.ignore_environment == 0;
    let mut config =
        if environment { Config::from_env().map_err(invalid)? } else { Config::default() };
    let texts = [
        ("name", options.name),
        ("bind", options.bind),
        ("advertise", options.advertise),
        ("transports", options.transports),
        ("auth_key_file", options.auth_key_file),
        ("log", options.log),
    ];
    for (option, pointer) in texts {
        // SAFETY: as the caller promises.
        if let Some(text) = unsafe { raw::text(option, pointer) }? {
            config.set(option, text).map_err(invalid)?;
        }
    }
    let duration = |nanos| (nanos > 0).then(|| Duration::from_nanos(nanos));
    if let Some(deadline) = duration(options.deadline_ns) {
        config = config.deadline(deadline);
    }
    if let Some(deadline) = duration(options.total_deadline_ns) {
        config = config.total_deadline(Some(deadline));
    }
    if options.peer_memory > 0 {
        config = config.peer_memory(options.peer_memory);
    }
    if options.notification_window > 0 {
        config = config.notification_window(options.notification_window);
    }
    if let Ok(lanes) = options.lanes.try_into() {
        config = config.lanes(lanes);
    }
    if let Ok(threads) = options.io_threads.try_into() {
        config = config.io_threads(threads);
    }
    if options.insecure != 0 {
        config = config.insecure(true);
    }
    match options.metadata_auth {
        0 => {}
        1 => config = config.metadata_auth(true),
        2 => config = config.metadata_auth(false),
        other => {
            let message = format!("metadata_auth: {other} is none of 0, 1 and 2");
            return Err(Failure::new(kvx_status::KVX_INVALID, message));
        }
    }
    Ok(config)
}

fn invalid(error: ::engine::error::Invalid) -> Failure {
    Failure::new(kvx_status::KVX_INVALID, error.to_string())
}

/// Ends an engine: peers are told, everything outstanding fails with KVX_SHUT_DOWN, and when this
/// returns no byte lands in its memory any more. Blocks for half a second at most. What was made of
/// it keeps its handles.
#[unsafe(no_mangle)]
pub extern "C" fn kvx_engine_close(engine: kvx_engine) -> kvx_status {
    call(|| {
        ENGINES.remove(engine)?.engine.shutdown();
        Ok(kvx_status::KVX_OK)
    })
}

/// The engine's lasting id, made from its name, and its present life: 16 bytes each; either may be
/// null.
///
/// # Safety
/// `id` and `incarnation` are null or point to room for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_engine_identity(
    engine: kvx_engine,
    id: *mut [u8; 16],
    incarnation: *mut [u8; 16],
) -> kvx_status {
    call(|| {
        let opened = ENGINES.get(engine)?;
        if !id.is_null() {
            // SAFETY: as the caller promises.
            unsafe { Out::new("id", id) }?.put(opened.engine.id().0);
        }
        if !incarnation.is_null() {
            // SAFETY: as the caller promises.
            unsafe { Out::new("incarnation", incarnation) }?.put(opened.engine.incarnation().0);
        }
        Ok(kvx_status::KVX_OK)
    })
}

/// The address that the engine listens on, "ip:port", as text without a final zero.
///
/// # Safety
/// `len` points to the room that `buffer` has; there its length is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_engine_address(
    engine: kvx_engine,
    buffer: *mut c_char,
    len: *mut usize,
) -> kvx_status {
    call(|| {
        let address = ENGINES.get(engine)?.engine.local_addr().to_string();
        // SAFETY: as the caller promises.
        unsafe { copy_out(address.as_bytes(), buffer.cast(), len) }?;
        Ok(kvx_status::KVX_OK)
    })
}

/// A descriptor (eventfd(2)) that is readable once an operation of the engine has ended, or a
/// notification has come, since it was last read: read eight bytes from it before looking at what
/// has happened. Notifications are told again only after kvx_notification_take() has found none.
///
/// It belongs to the engine: do not close it. The engine may close it as soon as it is closed
/// itself: stop watching it before, or watch a duplicate (dup(2)), which is readable then.
///
/// # Safety
/// `descriptor` points to room for an int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvx_engine_event_descriptor(
    engine: kvx_engine,
    descriptor: *mut i32,
) -> kvx_status {
    call(|| {
        // SAFETY: as the caller promises.
        let descriptor = unsafe { Out::new("descriptor", descriptor) }?;
        let opened = ENGINES.get(engine)?;
        descriptor.put(opened.event.descriptor()?);
        opened.event.ring_at_notification(&opened.engine);
        Ok(kvx_status::KVX_OK)
    })
}
