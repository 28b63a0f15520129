//! Two lanes, each with its host.

use std::sync::Arc;

use kvx_core::region::Region;
use kvx_core::transport::{Lane, OutFrame};
use kvx_core::wire::FrameKind;
use kvx_shm::{ShmOptions, ShmTransport};

use crate::scripted::*;

/// Two transports, and one lane between them.
pub struct Pair {
    pub near: Side,
    pub far: Side,
}

pub struct Side {
    pub host: Arc<Host>,
    pub lane: Arc<dyn Lane>,
    pub transport: Arc<ShmTransport>,
}

impl Pair {
    /// The slots are what each side lets the other reach.
    pub fn new(near: &[&Arc<Region>], far: &[&Arc<Region>]) -> Self {
        let (one, other) = streams();
        let side = |slots: &[&Arc<Region>], stream, dialed| {
            let host = Host::new(slots);
            let transport = ShmTransport::new(ShmOptions::new().io_threads(1)).unwrap();
            let lane = open_side(&transport, stream, dialed, &host);
            Side { host, lane, transport }
        };
        Self { near: side(near, one, true), far: side(far, other, false) }
    }
}

impl Side {
    /// Sends frames.
    pub fn send(&self, frames: impl IntoIterator<Item = OutFrame>) {
        self.host.push(frames);
        self.lane.wake();
    }
}

/// The frames of a WRITE of all of a region to the other side's slot 0, a page a run, so many runs
/// a frame.
pub fn whole(transfer: u64, source: &Arc<Region>, per_frame: usize) -> Vec<OutFrame> {
    let pages = source.memory.len() as usize / PAGE;
    let moves: Vec<Move> = (0..pages).map(|page| (0, page * PAGE, 0, page * PAGE, PAGE)).collect();
    frames(FrameKind::Write, transfer, &plan(&moves), &[Arc::clone(source)], per_frame)
}
