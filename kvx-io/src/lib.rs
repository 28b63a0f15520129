//! Lanes over sockets, and the threads that serve them: what transports share whose lanes hear of
//! their peer by a socket.
//!
//! Not what travels on a lane: a transport gives its two halves, [`SendHalf`] and [`ReceiveHalf`].
//!
//! # How it works
//! A [`Pool`] is a fixed number of I/O threads, each asleep in its own epoll until a socket or a
//! [`Lane::wake`](kvx_core::transport::Lane::wake) has something for it: no timers, no polling, but for
//! a moment after arrivals that can be seen ([`Sight`]). A
//! lane is non-blocking and belongs to one thread; its halves are behind locks that nobody waits
//! for, so that a thread that posts can send from where it stands
//! ([`Lane::drive`](kvx_core::transport::Lane::drive)), and one that waits receive
//! ([`Lane::attend`](kvx_core::transport::Lane::attend)).
//!
//! Reading order: [`Pool`], the I/O thread, the lane, its halves' locks, the places that the
//! payload of a frame comes from and goes to.
#![forbid(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("kvx-io is written for 64-bit Linux");

mod attend;
mod counters;
mod doorbell;
mod half;
mod incoming;
mod io_thread;
mod lane;
mod outgoing;
mod places;
mod pool;
mod sight;
mod watch;

pub use counters::{Counters, Meter, Traffic};
pub use incoming::{Arrival, Incoming};
pub use lane::{LaneState, ReceiveHalf, Received, SendHalf, Sent};
pub use outgoing::Outgoing;
pub use places::Places;
pub use pool::{MAX_IO_THREADS, Pool, default_io_threads};
pub use sight::Sight;
