//! Memory of another process on the same host: the shared-memory transport of kvx.
//!
//! Not the protocol: what is sent next, where arriving bytes may land and what became of them is
//! the business of the [`LaneHost`](kvx_core::transport::LaneHost). This crate knows frames, rings,
//! and how one process reads another's memory.
//!
//! # How it works
//! A lane begins on a socket. Over it both sides say which process they are, see that they share a
//! kernel and a pid namespace, map each other's ring and read the answer to a challenge out of each
//! other's memory (`setup`). If any of that is refused, the lane ends with
//! [`LaneError::Unreachable`](kvx_core::error::LaneError), and the engine takes another transport.
//!
//! From then on frames travel in the rings (`ring`): header and table as on every transport, and
//! in the place of the payload the addresses at which it lies. The side where it lands copies it,
//! by process_vm_readv(2), under leases on all gates concerned. A byte on the socket wakes the other
//! side when it sleeps; a socket and not an eventfd, on which a hostile peer could make a write
//! block.
//!
//! # Pools
//! Memory that the other side's engine has allocated to be shared, sealed memfds, is mapped, once a
//! transport, to be read (`pools`). Where the bytes go to memory of the same kind, they are copied by
//! loads and stores (`copy`), which no unmapping can make fault; else by the system call, as all other
//! memory is.
//!
//! # What is not believed
//! Everything in the other side's ring is taken for hostile: it is mapped to be read only, every
//! word is copied before it is looked at, and positions are checked against what is possible.
//!
//! # What is read while it changes
//! The owner of memory that the other side reads may deregister it at any time, and waits for
//! nobody but its own threads. Its sending half holds leases on what it has sent, is told when a gate
//! closes, marks its ring as withdrawn and lets go (`send`). Who copies looks for that mark after
//! the copy, before it says that a frame has landed (`receive`).
//!
//! The process of a pid may end, and another be given its number; or it may run another program.
//! So every call that copies ends with that answer, the token, out of the same address space: where that is not
//! what it was, nothing of the call counts.
#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("kvx-shm is written for 64-bit Linux");

mod copy;
mod host;
mod message;
mod options;
mod pools;
mod receive;
mod ring;
#[cfg(test)]
#[path = "../../kvx-io/tests/support/mod.rs"]
#[allow(unsafe_code, unreachable_pub)]
mod scripted;
mod send;
mod setup;
mod shared;
mod sys;
#[doc(hidden)]
pub mod testing;
mod transport;
mod yama;

pub use options::ShmOptions;
pub use transport::ShmTransport;
