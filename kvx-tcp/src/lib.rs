//! Memory reached over TCP: the TCP transport of kvx.
//!
//! Not the protocol: what is sent next, where arriving bytes may land and what became of them is
//! the business of the [`LaneHost`](kvx_core::transport::LaneHost). This crate knows frames,
//! sockets, threads and registered memory.
//!
//! # How it works
//! The threads, and how lanes share them, are those of [`kvx_io`].
//!
//! Payload moves between socket and registered memory by vectored system calls alone: there is no
//! copy of it in this process, and no load or store, so that memory which was unmapped under us
//! is an EFAULT and not a fault. Every such call is made under leases on all gates concerned, and
//! a scatter only before the frame's expiry: once a gate is closed and drained, or the expiry is
//! past, nothing more lands.
//!
//! Reading order: [`TcpTransport`], a lane's sending and receiving halves, the system calls.
#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("kvx-tcp is written for 64-bit Linux");

mod options;
mod receive;
mod send;
mod sys;
mod transport;

pub use kvx_io::{Counters, Traffic};
pub use options::TcpOptions;
pub use transport::TcpTransport;
