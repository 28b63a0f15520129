//! Published regions: asked for, and told of to who asks. Who publishes which is the registry's
//! business.

use crate::error::{Cause, Violation};
use crate::proto::listing::Listed;
use crate::proto::peer::{Event, Peer};
use crate::wire::message::{MAX_LISTED_REGIONS, Message};
use crate::wire::metadata::RegionDescription;

impl Peer {
    /// Asks which regions the peer publishes. [`Event::RegionsListed`] tells, under the number that
    /// this returns; whoever asks while an earlier question waits for its turn shares it. The keys
    /// are known here from then on; those of an earlier list that this one does not have are not.
    ///
    /// # Errors
    /// The peer is over, or does not have such questions.
    pub fn list_regions(&mut self) -> Result<u64, Cause> {
        self.check_alive()?;
        let question = self.listings.want()?;
        self.ask_for_regions();
        Ok(question)
    }

    /// A handshake has told whether both sides have such questions.
    pub(super) fn agree_on_lists(&mut self, agreed: bool) {
        let refused = self.listings.agree(agreed);
        self.regions_listed(refused);
        self.ask_for_regions();
    }

    fn ask_for_regions(&mut self) {
        if self.listings.ask() {
            self.stream.send(Message::ListRegions);
        }
    }

    /// The peer asks.
    pub(super) fn tell_regions(&mut self) -> Result<(), Violation> {
        self.listings.check(self.stream.acknowledged())?;
        let published = self.registry.published();
        let mut rest = &published[..];
        let mut more = true;
        while more {
            let part;
            (part, rest) = rest.split_at(rest.len().min(MAX_LISTED_REGIONS));
            more = !rest.is_empty();
            let regions = part.iter().map(|region| region.describe()).collect();
            let sequence = self.stream.send(Message::RegionsListed { more, regions });
            self.listings.answered(sequence);
        }
        Ok(())
    }

    /// The peer answers.
    pub(super) fn hear_regions(
        &mut self,
        more: bool,
        part: Vec<RegionDescription>,
    ) -> Result<(), Violation> {
        let heard = self.listings.hear(more, part, &mut self.budget)?;
        let Some((question, regions)) = heard else { return Ok(()) };
        self.remote.listed(&regions)?;
        self.regions_listed([(question, Ok(regions))]);
        self.ask_for_regions();
        Ok(())
    }

    pub(super) fn regions_listed(&mut self, listed: impl IntoIterator<Item = Listed>) {
        let event = |(question, regions)| Event::RegionsListed { question, regions };
        self.events.extend(listed.into_iter().map(event));
    }
}
