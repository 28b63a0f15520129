//! The limits beside which the engine is measured: what bare vectored calls over blocking sockets
//! reach with the same blocks, and what memcpy does. Not the engine: nothing of kvx runs here.
//!
//! The loop leaves out all that can be left out: a thread a connection a side, the blocks shared out
//! evenly, up to 1,024 of them a call straight from and into where they lie, no framing, no checks,
//! vectors built and memory touched before the clock runs. A rep ends when the receiver has
//! everything and one byte has gone back on each connection.
//!
//! Whoever reaches the port can make the server move bytes that it makes up itself, and hold memory
//! up to a bound; there is nothing else to be had, and so nobody is authenticated.

mod client;
mod copying;
mod memory;
mod message;
mod party;
mod server;
mod session;
mod stream;

pub(crate) use client::LimitClient;
pub(crate) use copying::memcpy;
pub(crate) use message::cost;
pub(crate) use server::{LimitServer, MEMORY};

#[cfg(test)]
mod tests;
