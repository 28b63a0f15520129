//! What a KV-cache transfer is, without I/O.
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
