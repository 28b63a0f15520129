//! Sessions as the peer state machine sees them: grants given to the peer, whose memory it may
//! write, and grants got from it. Which Sender or Receiver they belong to, the engine knows.

mod given;
mod got;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Cause, Invalid};
use crate::id::Slot;
use crate::layout::Layout;
use crate::plan::spans_of;
use crate::region::{GrantMap, Region};

pub(crate) use given::{GivenGrants, Progress};
pub(crate) use got::GotGrants;
pub use got::GrantReceived;

/// Grants open at once, each way.
const MAX_GRANTS: usize = 16_384;

/// What a receiver lets one sender write, prepared apart from any peer: building the map of
/// allowed bytes takes a while for large prompts.
#[derive(Debug)]
pub struct GrantPlan {
    layout: Layout,
    regions: Vec<Arc<Region>>,
    tokens: u32,
    blocks: Vec<u32>,
    /// The allowed bytes, by the layout's region indices: of a region that comes several times, by
    /// its first one.
    map: GrantMap,
}

impl GrantPlan {
    /// Permission to write `blocks` (which stand for `tokens` tokens) of the pools that `layout`
    /// describes in `regions`.
    ///
    /// # Errors
    /// [`Invalid`] where layout, regions and blocks do not fit together.
    pub fn new(
        layout: Layout,
        regions: Vec<Arc<Region>>,
        tokens: u32,
        blocks: Vec<u32>,
    ) -> Result<Self, Cause> {
        let lens: Vec<u64> = regions.iter().map(|region| region.len()).collect();
        layout.validate(&lens)?;
        if tokens == 0 {
            return Err(Cause::Invalid(Invalid::Empty("the prompt")));
        }
        let needed = u64::from(tokens).div_ceil(u64::from(layout.block_tokens));
        if (blocks.len() as u64) < needed {
            let (left, right) = (blocks.len() as u64, needed);
            let what = "blocks granted against blocks needed for the tokens";
            return Err(Cause::Invalid(Invalid::Mismatch { what, left, right }));
        }
        let layers = layout.first_layer..layout.first_layer + layout.layers;
        let mut first_names = BTreeMap::new();
        let names: Vec<Slot> = regions
            .iter()
            .zip(0..)
            .map(|(region, name)| Slot(*first_names.entry(region.id).or_insert(name)))
            .collect();
        let spans = spans_of(&layout, layers, &blocks)?;
        let spans = spans.map(|span| (names[span.region as usize], span.offset, span.len));
        let map = GrantMap::build(spans)?;
        Ok(Self { layout, regions, tokens, blocks, map })
    }

    /// All layers, counted in the whole model.
    pub fn layers(&self) -> Range<u32> {
        self.layout.first_layer..self.layout.first_layer + self.layout.layers
    }
}
