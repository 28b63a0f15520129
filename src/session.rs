//! Sessions: one KV cache on its way from a Sender to a Receiver, layer by layer.
//!
//! A session is known by its [`SessionKey`]. The receiver grants blocks of its pool, the sender
//! writes them as prefill finishes layers, and ends with a small payload. Either side may abort.

mod receiver;
mod sender;
mod timers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kvx_core::error::{Cause, Error, Operation as Doing, Result};
use kvx_core::id::{GrantId, SessionKey};
use kvx_core::layout::Layout;
use kvx_core::proto::{Claim, GrantReceived, Rooms};
use kvx_core::region::Region as CoreRegion;
use kvx_core::time::Time;

use crate::clock;
use crate::engine::Shared;
use crate::peer::Link;
use crate::region::Region;

pub(crate) use receiver::ReceiverState;
pub use receiver::{Received, Receiver};
pub(crate) use sender::SenderState;
pub use sender::{Granted, Sender, Sent};
pub(crate) use timers::{Timed, Timer, Timers};

/// Grants that may wait for their Sender, over all peers.
const MAX_EARLY: usize = 65_536;

/// How many times the engine's deadline an early grant is kept: its receiver, who has a deadline
/// of its own, gives up first.
const EARLY_PATIENCE: u32 = 30;

/// The KV pool of a worker rank: its layout, and the regions it lies in. Made once, used for every
/// session.
#[derive(Clone, Debug)]
pub struct KvPool {
    layout: Arc<Layout>,
    regions: Arc<[Arc<CoreRegion>]>,
}

impl KvPool {
    /// A pool that lies in these regions, which the layout's pools name by position.
    ///
    /// # Errors
    /// A layout that makes no sense or does not fit into the regions.
    pub fn new(layout: Layout, regions: &[&Region]) -> Result<Self> {
        let regions: Arc<[_]> = regions.iter().map(|region| Arc::clone(region.core())).collect();
        let lens: Vec<u64> = regions.iter().map(|region| region.len()).collect();
        layout
            .validate(&lens)
            .map_err(|invalid| Error::new(Doing::Layout, Cause::Invalid(invalid)))?;
        Ok(Self { layout: Arc::new(layout), regions })
    }

    /// How the pool lies in memory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn regions(&self) -> &Arc<[Arc<CoreRegion>]> {
        &self.regions
    }
}

/// The Senders of an engine, and the grants that wait for one.
#[derive(Debug)]
pub(crate) struct Sessions {
    meeting: Mutex<Meeting>,
    /// Of Senders, of Receivers, and of the early grants.
    timers: Arc<Timers>,
}

#[derive(Debug)]
struct Meeting {
    rooms: Rooms<EarlyGrant, Arc<SenderState>>,
    /// Runs while grants wait.
    timer: Option<Timer>,
}

/// A grant and the peer that gave it.
#[derive(Debug)]
pub(crate) struct EarlyGrant {
    pub(crate) link: Weak<Link>,
    pub(crate) grant: GrantReceived,
}

impl Sessions {
    pub(crate) fn new(deadline: Duration) -> Self {
        let patience = deadline.saturating_mul(EARLY_PATIENCE);
        let meeting = Meeting { rooms: Rooms::new(MAX_EARLY, patience), timer: None };
        Self { meeting: Mutex::new(meeting), timers: Arc::default() }
    }

    pub(crate) fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    /// A Sender appears. `false`: another has its session.
    pub(crate) fn claim(&self, sender: &Arc<SenderState>) -> bool {
        let claim = self.meeting().rooms.claim(sender.session(), Arc::clone(sender));
        match claim {
            Claim::Granted(early) => {
                // A receiver that died meanwhile withdrew its grant; the Sender goes on waiting.
                if let Some(link) = early.link.upgrade() {
                    sender.granted(&link, early.grant);
                }
                true
            }
            Claim::Waiting => true,
            Claim::Taken => false,
        }
    }

    /// A grant comes from a peer.
    pub(crate) fn granted(&self, shared: &Arc<Shared>, link: &Link, grant: GrantReceived) {
        let Some(link) = link.arc() else { return };
        let session = grant.session;
        let id = grant.grant;
        let early = EarlyGrant { link: Arc::downgrade(&link), grant };
        let placed = self.meeting().rooms.grant(clock::now(), session, early);
        match placed {
            Ok(Some((sender, early))) => {
                if !sender.granted(&link, early.grant) {
                    let reason = "the session has a receiver already";
                    link.with(|core| core.protocol.abort_session(session, id, reason));
                }
            }
            Ok(None) => self.keep_time(shared),
            Err((resource, _)) => {
                let reason = format!("busy: {resource}");
                link.with(|core| core.protocol.abort_session(session, id, &reason));
            }
        }
    }

    /// A receiver took its early grant back, or died.
    pub(crate) fn withdrawn(&self, link: &Link, session: &SessionKey, grant: GrantId) {
        let mut meeting = self.meeting();
        // Another grant of the same session stays: this one was refused for its sake.
        let is_this = |early: &EarlyGrant| {
            std::ptr::eq(early.link.as_ptr(), link) && early.grant.grant == grant
        };
        if meeting.rooms.early(session).is_some_and(is_this) {
            meeting.rooms.withdraw(session);
        }
    }

    /// A Sender ends. Its session may be another's by then.
    pub(crate) fn leave(&self, sender: &SenderState) {
        let (session, mut meeting) = (sender.session(), self.meeting());
        let rooms = &mut meeting.rooms;
        if rooms.sender(&session).is_some_and(|known| std::ptr::eq(&*known, sender)) {
            rooms.leave(&session);
        }
    }

    /// The engine has ended: so do the Senders that no peer's end reaches.
    pub(crate) fn shut_down(&self) {
        let senders = self.meeting().rooms.take_senders();
        senders.iter().for_each(|sender| sender.shut_down());
    }

    /// Looks after the early grants while there are any.
    fn keep_time(&self, shared: &Arc<Shared>) {
        let mut meeting = self.meeting();
        let next = meeting.rooms.next_timeout();
        if next < Time::NEVER && meeting.timer.is_none() {
            let engine: Weak<Shared> = Arc::downgrade(shared);
            meeting.timer = Some(self.timers.start(&shared.runtime, next, engine));
        }
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Early grants have waited long enough.
impl Timed for Shared {
    fn look(self: Arc<Self>, now: Time) -> Option<Time> {
        let (late, next) = {
            let mut meeting = self.sessions.meeting();
            let late = meeting.rooms.handle_timeout(now);
            let next = Some(meeting.rooms.next_timeout()).filter(|next| *next < Time::NEVER);
            if next.is_none() {
                meeting.timer = None;
            }
            (late, next)
        };
        for (session, early) in late {
            if let Some(link) = early.link.upgrade() {
                let (grant, reason) = (early.grant.grant, "no sender came");
                link.with(|core| core.protocol.abort_session(session, grant, reason));
            }
        }
        next
    }
}
