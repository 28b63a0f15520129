//! The C interface of kvx: the public API of the Rust library, function by function, for programs
//! in C and for whatever speaks C.
//!
//! # What every function keeps to
//! - It returns a [`kvx_status`](status::kvx_status); results go through pointers, which are
//!   written only on success. What went wrong, [`kvx_error_message`](status::kvx_error_message)
//!   tells, in words that name the operation, the peer and the cause. That one and
//!   [`kvx_version`](status::kvx_version) return text.
//! - Handles are numbers that are never used twice: one that was released, or was made up, or
//!   stands for something else is `KVX_UNKNOWN_HANDLE`, never a crash.
//! - What a pointer argument refers to is copied before the function returns.
//! - Any thread may call any function at any time. In a forked child each is `KVX_FORKED`.
//! - No panic crosses: it is `KVX_PANICKED`.
#![allow(non_camel_case_types, reason = "names of C")]

pub mod directory;
pub mod engine;
mod event;
mod handle;
mod log;
pub mod memory;
pub mod notification;
pub mod operation;
pub mod peer;
mod raw;
pub mod session;
pub mod status;
pub mod transfer;
