//! An engine's event descriptor: readable once an operation has ended or a notification has come.

use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

use crate::status::{Failure, kvx_status};

/// Where an engine's news are told; nowhere, until somebody asks for the descriptor.
#[derive(Debug, Default)]
pub(crate) struct Event {
    descriptor: OnceLock<OwnedFd>,
}

impl Event {
    /// The descriptor, made when it is first asked for.
    pub(crate) fn descriptor(&self) -> Result<i32, Failure> {
        if self.descriptor.get().is_none() {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            let made = made.map_err(|error| {
                Failure::new(kvx_status::KVX_IO, format!("event descriptor: {error}"))
            })?;
            // Another thread may have been faster: then this one is closed again.
            let _ = self.descriptor.set(made);
        }
        Ok(self.descriptor.get().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// There is news.
    pub(crate) fn ring(&self) {
        if let Some(descriptor) = self.descriptor.get() {
            // A full counter is readable already.
            let _ = rustix::io::write(descriptor, &1u64.to_ne_bytes());
        }
    }

    /// Rings when the engine's next notification is there; at once, if one is.
    pub(crate) fn ring_at_notification(self: &Arc<Self>, engine: &::engine::Engine) {
        if self.descriptor.get().is_none() {
            return;
        }
        let waker = Waker::from(Arc::clone(self));
        let notified = pin!(engine.notified());
        if notified.poll(&mut Context::from_waker(&waker)).is_ready() {
            self.ring();
        }
    }
}

impl Wake for Event {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}
