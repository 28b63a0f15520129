//! Memory reached over TCP: the TCP transport of kvx.
//!
//! Not the protocol: what is sent next, where arriving bytes may land and what became of them is
//! the business of the [`LaneHost`](kvx_core::transport::LaneHost). This crate knows frames,
//! sockets, threads and registered memory.
//!
//! # How it works
//! [`TcpTransport`] owns a fixed pool of I/O threads, each asleep in its own epoll until a socket
//! or a [`Lane::wake`](kvx_core::transport::Lane::wake) has something for it: no timers, no
//! polling. A lane is non-blocking and belongs to one thread; its halves are behind locks that
//! nobody waits for, so that a thread that posts can send from where it stands
//! ([`Lane::drive`](kvx_core::transport::Lane::drive)), and one that waits receive
//! ([`Lane::attend`](kvx_core::transport::Lane::attend)).
//!
//! Payload moves between socket and registered memory by vectored system calls alone: there is no
//! copy of it in this process, and no load or store, so that memory which was unmapped under us
//! is an EFAULT and not a fault. Every such call is made under leases on all gates concerned, and
//! a scatter only before the frame's expiry: once a gate is closed and drained, or the expiry is
//! past, nothing more lands.
//!
//! Reading order: [`TcpTransport`], the I/O thread, the lane, its sending and receiving halves,
//! the places that system calls fill, the system calls.
#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("kvx-tcp is written for 64-bit Linux");

mod attend;
mod counters;
mod doorbell;
mod half;
mod io_thread;
mod lane;
mod options;
mod places;
mod receive;
mod send;
mod sys;
mod transport;
mod watch;

pub use counters::{Counters, Traffic};
pub use options::TcpOptions;
pub use transport::TcpTransport;
