//! What a KV-cache transfer is, without I/O: ids, regions, layouts, plans, the wire format and the
//! peer state machine.
//!
//! This crate opens no socket, starts no thread, reads no clock and draws no random number: time and
//! bytes come in as arguments, actions come out. It touches no memory either: it says which bytes may
//! be touched, under which lease, and transports do.
//!
//! Reading order: [`id`], [`time`], [`error`], [`region`], [`layout`], [`plan`], [`wire`],
//! [`transport`], [`proto`], [`testing`]. The bytes on the wire are described in PROTOCOL.md.
#![forbid(unsafe_code)]

pub mod error;
pub mod id;
pub mod layout;
pub mod plan;
pub mod proto;
pub mod region;
pub mod testing;
pub mod time;
pub mod transport;
pub mod wire;
