//! The protocol between two engines, without I/O: bytes, frames and the time come in, bytes,
//! frames and events go out.
//!
//! One [`Peer`] stands for one remote engine, over any number of connections and lanes. It reads
//! no clock, opens no socket and starts no thread; whoever drives it (the engine, or the
//! simulation in [`crate::testing`]) does, in this order:
//!
//! 1. A handshake ([`Dialer`], [`Listener`]) verifies a connection; [`Peer::handle_connected`]
//!    takes it.
//! 2. Bytes from the control connection go to [`Peer::handle_message`]; lanes call
//!    [`Peer::handle_frame`], [`Peer::handle_frame_finished`] and [`Peer::handle_ack`].
//! 3. The user's wishes: [`Peer::post`], [`Peer::cancel`], [`Peer::notify`], [`Peer::grant`], ...
//! 4. After any of these: [`Peer::poll_event`] until `None`, [`Peer::poll_message`] until `None`
//!    while connected, and, where [`Peer::has_frames`], lanes call [`Peer::next_frame`].
//! 5. [`Peer::handle_timeout`] when [`Peer::next_timeout`] has come, or when the waker that the
//!    peer was made with was called.
//!
//! Memory is never touched here. What may be touched is said in leases ([`crate::region::Gate`])
//! that lanes hold while they do.

mod answers;
mod auth;
mod book;
mod budget;
mod clock;
mod deadlines;
mod grants;
mod handshake;
mod id_set;
mod inbound;
mod lanes;
mod listing;
mod notify;
mod outbound;
mod peer;
mod remote;
mod rooms;
mod stream;
mod turns;

pub use auth::{Auth, AuthKey, Bearer, LaneKey, SessionSecret};
pub use book::{Incoming, Known, Proof, Verdict, admit, keeps};
pub use clock::ClockSample;
pub use deadlines::Deadlines;
pub use grants::{GrantPlan, GrantReceived};
pub use handshake::{
    Dialer, Established, LaneDialer, LaneListener, Listener, ListenerReply, LocalIdentity,
};
pub use notify::Delivery;
pub use outbound::{Deadline, Target, TransferOp, TransferReport};
pub use peer::{Event, Peer, PeerConfig, Post};
pub use rooms::{Claim, Rooms};
