//! Connections: what listens at the bootstrap port, who dials, and the handshakes in between.
//! Whom a connection belongs to and what is said on it, the links know.

mod accept;
mod control;
mod dial;
mod near;
mod stream;

pub(crate) use accept::{Doorkeeper, listen};
pub(crate) use dial::{Connects, connect, spawn_dial, spawn_lane};
