//! A frame on its way in: where its payload lands, and the leases without which nothing does. Not how
//! the bytes come.

use std::task::{Context, Poll};

use kvx_core::error::{Refusal, Violation};
use kvx_core::region::Leases;
use kvx_core::transport::{Access, Admission, Landing, LaneHost};
use kvx_core::wire::{FrameHeader, WireSpan};

use crate::lane::LaneState;
use crate::places::Places;

/// The payload of the frame at hand. Kept by a lane and filled anew for each.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Empty when nothing lands, so that an idle lane keeps no region alive.
    landing: Landing,
    /// Where the bytes land.
    pub places: Places,
}

/// What the host makes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Its payload lands.
    Admitted,
    /// Nothing of it does, and the host knows.
    Discarded,
    /// Nothing of it does, and the host is to hear why.
    Refused(Refusal),
}

impl Incoming {
    /// Asks the host where the payload of this frame lands.
    ///
    /// # Errors
    /// The frame breaks the protocol.
    pub fn arrive(
        &mut self,
        lane: &LaneState,
        header: &FrameHeader,
        table: &[WireSpan],
    ) -> Result<Arrival, Violation> {
        self.clear();
        let landing = &mut self.landing;
        if lane.host().frame_arrived(lane.id(), header, table, landing)? == Admission::Discard {
            self.clear();
            return Ok(Arrival::Discarded);
        }
        let filled = self.places.fill(&landing.regions, &landing.spans, header.payload_len.into());
        Ok(filled.map_or_else(Arrival::Refused, |()| Arrival::Admitted))
    }

    /// Leases on everything that must be open for the payload, in the time that it has.
    ///
    /// # Errors
    /// A region was deregistered, the transfer or its grant fenced, or the time is over.
    pub fn admit(&self, host: &dyn LaneHost) -> Result<Leases<'_>, Refusal> {
        admit(&self.landing, host)
    }

    /// Asks for staging memory; where it is not ready, the lane has a turn when it is. The leases are
    /// held while a provider is asked; a copy of its own that goes on afterwards is its own to guard.
    pub fn poll_stage(&mut self, lane: &LaneState) -> Poll<Result<(), Refusal>> {
        let Self { landing, places } = self;
        under_leases(lane, landing, |cx| places.poll_stage(Access::Scatter, &landing.regions, cx))
    }

    /// All of the payload has come: what was staged moves on, as in [`Self::poll_stage`]. Ready at
    /// once where nothing was.
    pub fn poll_commit(&mut self, lane: &LaneState) -> Poll<Result<(), Refusal>> {
        let Self { landing, places } = self;
        if !places.is_staged() {
            return Poll::Ready(Ok(()));
        }
        under_leases(lane, landing, |cx| places.poll_commit(cx))
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.places.clear();
        self.landing.clear();
    }
}

/// Asks a provider something, under leases that are taken anew each time.
fn under_leases(
    lane: &LaneState,
    landing: &Landing,
    ask: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), Refusal>>,
) -> Poll<Result<(), Refusal>> {
    lane.set_waits_for_memory(true);
    let waker = lane.waker();
    let polled = match admit(landing, lane.host()) {
        Ok(_held) => ask(&mut Context::from_waker(&waker)),
        Err(refusal) => Poll::Ready(Err(refusal)),
    };
    if polled.is_ready() {
        lane.set_waits_for_memory(false);
    }
    polled
}

fn admit<'a>(landing: &'a Landing, host: &dyn LaneHost) -> Result<Leases<'a>, Refusal> {
    let regions = landing.regions.iter().map(|region| &region.gate);
    let gates = landing.gates.iter().map(|gate| &**gate);
    let held = Leases::enter(regions.chain(gates)).map_err(|closed| {
        if closed.index < landing.regions.len() { Refusal::RegionClosed } else { Refusal::Fenced }
    })?;
    // Looked at last: what lies between the look and the call is the copy already in progress.
    if host.now() < landing.expiry { Ok(held) } else { Err(Refusal::Expired) }
}
