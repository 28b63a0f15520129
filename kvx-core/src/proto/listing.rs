//! Lists of published regions, both ways: what of its questions a peer may ask now, and what of ours
//! is answered (PROTOCOL 4.4). It does not know the registry, nor what becomes of the keys.

use crate::error::{Cause, Resource, Violation};
use crate::proto::budget::Budget;
use crate::wire::WireError;
use crate::wire::metadata::{MAX_REGIONS, RegionDescription};

/// Questions and answers of one peer. Either side asks once at a time.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    /// Whether both sides have such questions; `None`: they have not met.
    agreed: Option<bool>,
    /// The number of our last question.
    last: u64,
    /// The one that is with the peer.
    asked: Option<Asked>,
    /// The one that follows it, or waits for the first connection.
    wanted: Option<u64>,
    /// The last message of our last answer.
    told: u64,
}

/// A question, and its answer as far as it has come.
#[derive(Debug)]
struct Asked {
    question: u64,
    regions: Vec<RegionDescription>,
}

/// What a question came to.
pub(crate) type Listed = (u64, Result<Vec<RegionDescription>, Cause>);

const UNSUPPORTED: Cause = Cause::Unsupported("published regions, of which the peer knows nothing");

impl Listings {
    /// A handshake has told whether both sides have such questions. Returns one that has waited for
    /// it in vain.
    pub(crate) fn agree(&mut self, agreed: bool) -> Option<Listed> {
        self.agreed = Some(agreed);
        let wanted = if agreed { None } else { self.wanted.take() };
        wanted.map(|question| (question, Err(UNSUPPORTED)))
    }

    /// The user asks. Its question's number: that of another's where that one has not left yet.
    pub(crate) fn want(&mut self) -> Result<u64, Cause> {
        if self.agreed == Some(false) {
            return Err(UNSUPPORTED);
        }
        if let Some(question) = self.wanted {
            return Ok(question);
        }
        self.last += 1;
        self.wanted = Some(self.last);
        Ok(self.last)
    }

    /// Whether the peer is to be asked now: it then counts as asked.
    pub(crate) fn ask(&mut self) -> bool {
        if self.asked.is_some() || self.agreed != Some(true) {
            return false;
        }
        let Some(question) = self.wanted.take() else { return false };
        self.asked = Some(Asked { question, regions: Vec::new() });
        true
    }

    /// A part of the peer's answer has come. Returns the whole, if this was the last.
    pub(crate) fn hear(
        &mut self,
        more: bool,
        part: Vec<RegionDescription>,
        budget: &mut Budget,
    ) -> Result<Option<(u64, Vec<RegionDescription>)>, Violation> {
        let Some(asked) = &mut self.asked else {
            let why = "nobody has asked";
            return Err(Violation::Unexpected { message: "RegionsListed", why });
        };
        if asked.regions.len() + part.len() > MAX_REGIONS {
            return Err(Violation::Overrun(Resource::Regions));
        }
        budget.charge(cost(&part))?;
        let memory = WireError::Memory { what: "listed regions", bytes: size_of_val(&part[..]) };
        if asked.regions.try_reserve(part.len()).is_err() {
            budget.release(cost(&part));
            return Err(memory.into());
        }
        asked.regions.extend(part);
        if more {
            return Ok(None);
        }
        let whole = self.asked.take();
        Ok(whole.map(|Asked { question, regions }| {
            budget.release(cost(&regions));
            (question, regions)
        }))
    }

    /// Whether the peer may ask: it has dealt with the whole of the last answer, of which
    /// `acknowledged` tells. One answer at most is therefore kept for it.
    pub(crate) fn check(&self, acknowledged: u64) -> Result<(), Violation> {
        let why = match self.agreed {
            Some(true) if self.told <= acknowledged => return Ok(()),
            Some(true) => "the last answer is not acknowledged",
            _ => "it was not agreed on",
        };
        Err(Violation::Unexpected { message: "ListRegions", why })
    }

    /// The peer was answered: the answer's last message has this number.
    pub(crate) fn answered(&mut self, sequence: u64) {
        self.told = sequence;
    }

    /// Questions that are not answered.
    pub(crate) fn open(&self) -> u64 {
        u64::from(self.asked.is_some()) + u64::from(self.wanted.is_some())
    }

    /// The peer is gone, or begins anew.
    pub(crate) fn fail_all(&mut self, cause: &Cause, budget: &mut Budget) -> Vec<Listed> {
        self.told = 0;
        let asked = self.asked.take().map(|asked| {
            budget.release(cost(&asked.regions));
            asked.question
        });
        let open = asked.into_iter().chain(self.wanted.take());
        open.map(|question| (question, Err(cause.clone()))).collect()
    }
}

fn cost(regions: &[RegionDescription]) -> u64 {
    size_of_val(regions) as u64
}
