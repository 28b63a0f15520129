//! The peer's READs: its requests, checked as they come, and the answers that wait for their turn.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::error::Refusal;
use crate::id::TransferId;
use crate::proto::budget::Budget;
use crate::proto::inbound::{TRANSFER_COST, place_span};
use crate::proto::turns::{Turn, Turns};
use crate::region::{Rights, Slots};
use crate::time::Time;
use crate::transport::{AnswerFrame, Landing};
use crate::wire::{FrameFlags, FrameHeader, FrameKind, READ_CREDIT, WireSpan};

/// What one span of a READ request costs.
const SPAN_COST: u64 = 16;

/// The answers that one peer waits for.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Those to each READ in order of arrival; never an empty list.
    reads: BTreeMap<TransferId, Waiting>,
    /// The READs in `reads`, each once.
    turns: Turns,
    /// Spans of all answers.
    spans: u32,
}

#[derive(Debug)]
struct Waiting {
    answers: VecDeque<Answer>,
    turn: Turn,
}

/// An answer to one request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) frame: AnswerFrame,
    /// The request's: at or after it nothing is read for it.
    expiry: Time,
}

/// What comes of the request whose turn it is.
#[derive(Debug)]
pub(crate) enum Next {
    /// It is answered.
    Answer(Answer),
    /// Its time is over: the reader must ask for these runs again, if it still wants them.
    Late(TransferId, Range<u32>),
    /// A region was deregistered: the whole READ cannot be answered.
    Failed(TransferId, Refusal),
}

impl Answers {
    /// Takes a request in.
    pub(crate) fn request(
        &mut self,
        now: Time,
        header: &FrameHeader,
        table: &[WireSpan],
        slots: &Slots,
        budget: &mut Budget,
    ) -> Result<(), Refusal> {
        if now >= header.expiry {
            return Err(Refusal::Expired);
        }
        // Requests of a cancelled READ may cross its `Cancel`, hence twice the credit.
        if self.spans.saturating_add(header.runs) > 2 * READ_CREDIT {
            return Err(Refusal::Busy);
        }
        let mut landing = Landing::default();
        let mut payload_len = 0u32;
        for span in table {
            place_span(span, Rights::REMOTE_READ, true, slots, &mut landing)?;
            payload_len = payload_len.checked_add(span.len).ok_or(Refusal::OutOfBounds)?;
        }
        let frame = AnswerFrame {
            header: FrameHeader {
                kind: FrameKind::ReadData,
                flags: FrameFlags::empty(),
                payload_len,
                grant: None,
                expiry: Time::ZERO,
                ..*header
            },
            regions: landing.regions,
            spans: landing.spans,
        };
        let answer = Answer { frame, expiry: header.expiry };
        budget.charge(answer.cost()).map_err(|_| Refusal::Busy)?;
        self.enqueue(answer, VecDeque::push_back);
        Ok(())
    }

    /// The next answer to go out. It is paid for until [`Self::landed`], for it may be lost.
    pub(crate) fn next(&mut self, now: Time, budget: &mut Budget) -> Option<Next> {
        let transfer = self.turns.next()?;
        let waiting = self.reads.get_mut(&transfer)?;
        let answer = waiting.answers.pop_front()?;
        if waiting.answers.is_empty() {
            self.reads.remove(&transfer);
        } else {
            waiting.turn = self.turns.join(transfer);
        }
        self.spans -= answer.frame.header.runs;
        if !answer.frame.regions.iter().all(|region| region.gate.is_open()) {
            self.landed(&answer, budget);
            self.forget(transfer, budget);
            return Some(Next::Failed(transfer, Refusal::RegionClosed));
        }
        if now < answer.expiry {
            return Some(Next::Answer(answer));
        }
        self.landed(&answer, budget);
        Some(Next::Late(transfer, answer.runs()))
    }

    /// An answer that was lost with its lane goes out again, first of its READ.
    pub(crate) fn again(&mut self, answer: Answer) {
        self.enqueue(answer, VecDeque::push_front);
    }

    /// An answer is with the reader, or nobody wants it any more.
    pub(crate) fn landed(&mut self, answer: &Answer, budget: &mut Budget) {
        budget.release(answer.cost());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// The reader wants no more answers to this READ.
    pub(crate) fn forget(&mut self, transfer: TransferId, budget: &mut Budget) {
        let Some(waiting) = self.reads.remove(&transfer) else { return };
        self.turns.leave(waiting.turn);
        for answer in &waiting.answers {
            self.spans -= answer.frame.header.runs;
            self.landed(answer, budget);
        }
    }

    /// The peer is gone.
    pub(crate) fn forget_all(&mut self, budget: &mut Budget) {
        while let Some((&transfer, _)) = self.reads.first_key_value() {
            self.forget(transfer, budget);
        }
    }

    /// What is kept for READs that have not ended.
    pub(crate) fn residue(&self) -> [(&'static str, u64); 3] {
        [
            ("READs to be answered", self.reads.len() as u64),
            ("turns of READs to be answered", self.turns.len() as u64),
            ("spans of answers to READs", u64::from(self.spans)),
        ]
    }

    fn enqueue(&mut self, answer: Answer, put: impl FnOnce(&mut VecDeque<Answer>, Answer)) {
        let transfer = answer.frame.header.transfer;
        self.spans += answer.frame.header.runs;
        let waiting = self.reads.entry(transfer).or_insert_with(|| Waiting {
            answers: VecDeque::new(),
            turn: self.turns.join(transfer),
        });
        put(&mut waiting.answers, answer);
    }
}

impl Answer {
    fn runs(&self) -> Range<u32> {
        let FrameHeader { first_run, runs, .. } = self.frame.header;
        first_run..first_run + runs
    }

    fn cost(&self) -> u64 {
        TRANSFER_COST + u64::from(self.frame.header.runs) * SPAN_COST
    }
}
