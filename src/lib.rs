//! kvx moves the KV cache of a language model from prefill to decode workers.
//!
//! An [`Engine`] registers memory and knows [`Peer`]s. Above it stand two ways to move bytes:
//!
//! - **Sessions**: a [`Receiver`] grants blocks of its pool, a [`Sender`] writes them layer by
//!   layer, for each request ([`Engine::sender`], [`Peer::receiver`]).
//! - **One-sided transfers**: WRITE and READ of span lists between registered regions, with
//!   notifications ([`Peer::prepare`], [`Prepared::post`]). A peer's regions are known from its
//!   metadata, handed over on any channel ([`Engine::metadata`], [`Engine::add_peer`]), or from what it
//!   publishes to whoever connects ([`Region::publish`], [`Peer::published`]).
//!
//! Every operation can be awaited in any executor or waited for on any thread, ends by its
//! deadline, and fails with an [`Error`] that names the operation, the peer and the cause.

mod auth;
mod bootstrap;
mod clock;
mod completion;
pub mod config;
mod discovery;
mod engine;
pub mod memory;
mod notifications;
mod one_sided;
mod peer;
mod published;
mod random;
mod region;
mod session;

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use completion::Operation;
pub use config::Config;
pub use engine::Engine;
pub use kvx_core::error::{Cause, Error, Result};
pub use kvx_core::id::{EngineId, Incarnation, RegionId, Room, SessionKey};
pub use kvx_core::plan::{Span, Spans};
pub use kvx_core::proto::{TransferOp, TransferReport};
pub use kvx_core::region::Rights;
pub use kvx_core::wire::message::{DirectoryEntry, RankKey};
pub use kvx_core::{error, layout, plan, transport};
#[doc(hidden)]
pub use memory::process_id;
pub use memory::{Buffer, CallerMemory};
pub use notifications::Notification;
pub use one_sided::{Peer, PostOptions, Prepared, RemoteRegion, Transfer};
pub use region::Region;
pub use session::{Granted, KvPool, Received, Receiver, Sender, Sent};
