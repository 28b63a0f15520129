//! The limits beside which the engine is measured: what bare vectored calls reach with the same
//! blocks, over blocking sockets or out of the other process's memory, and what memcpy does. Not
//! the engine: nothing of kvx runs here.
//!
//! The loop leaves out all that can be left out: a thread a connection a side, the blocks shared out
//! evenly, up to 1,024 of them a call straight from and into where they lie, no framing, no checks,
//! vectors built and memory touched before the clock runs. A rep ends when the receiver has
//! everything and one byte has gone back on each connection. Out of memory, the source's connections
//! carry no more than a byte there, for the server to begin, and one back.
//!
//! Whoever reaches the port can make the server move bytes that it makes up itself, and hold memory
//! up to a bound; there is nothing else to be had, and so nobody is authenticated. Whose memory the
//! server reads is not said there: it hears that from the run itself, over the engine.

mod bells;
mod client;
mod copying;
mod foreign;
mod memory;
mod message;
mod party;
mod server;
mod session;
mod stream;
mod together;

pub(crate) use client::LimitClient;
pub(crate) use copying::{Copier, Pages};
pub(crate) use foreign::Foreign;
pub(crate) use message::{cost, is_refusal};
pub(crate) use party::MAX_CONNECTIONS;
pub(crate) use server::{LimitServer, MEMORY};

/// How the bare loop moves blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// Over sockets.
    Streams,
    /// The process where they land reads them out of the other's memory, the client's of which is
    /// this. Both are on one host.
    Memory(Foreign),
}

#[cfg(test)]
mod tests;
