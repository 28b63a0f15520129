//! What the victim answered. Whether its memory is whole and its neighbours are served, the
//! attacker cannot see: tests look at the victim itself.

use std::collections::BTreeMap;
use std::fmt;

use kvx_core::error::Refusal;

/// What came of an attack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many times it was done.
    pub rounds: u64,
    /// Frames, messages and connections that it was made of.
    pub blows: u64,
    /// The victim's answers, by kind.
    pub answers: BTreeMap<Answer, u64>,
    /// Answers that PROTOCOL.md does not allow, in words; the first few. Empty: all was well.
    pub surprises: Vec<String>,
    /// What the attack would have needed to know and did not; it was not done then.
    pub lacks: Option<&'static str>,
}

/// What the victim did with what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// A frame was refused, with this code.
    Refused(u16),
    /// A handshake was answered with this Reject.
    Rejected(&'static str),
    /// The control connection was ended, and the peer relation with it.
    ControlEnded,
    /// The lane was ended; the control connection goes on.
    LaneEnded,
    /// A connection in its handshake was ended without a word.
    HungUp,
    /// What was sent was taken in, as it may be.
    Accepted,
    /// Nothing came of it: the connection goes on and the victim answers heartbeats.
    Ignored,
}

/// Surprises that are kept in words.
const MAX_SURPRISES: usize = 16;

impl Outcome {
    /// Whether the attack was done, and every answer was one that PROTOCOL.md allows.
    pub fn is_as_specified(&self) -> bool {
        self.lacks.is_none() && self.surprises.is_empty()
    }

    pub(crate) fn count(&mut self, answer: Answer) {
        *self.answers.entry(answer).or_default() += 1;
    }

    pub(crate) fn surprise(&mut self, surprise: String) {
        if self.surprises.len() < MAX_SURPRISES {
            self.surprises.push(surprise);
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lacks) = self.lacks {
            return write!(f, "not done: needs {lacks}");
        }
        write!(f, "{} blows in {} rounds:", self.blows, self.rounds)?;
        for (answer, count) in &self.answers {
            write!(f, " {answer} x{count}")?;
        }
        for surprise in &self.surprises {
            write!(f, "\n    SURPRISE: {surprise}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => match Refusal::from_code(*code) {
                Some(refusal) => write!(f, "refused({refusal:?})"),
                None => write!(f, "refused({code})"),
            },
            Self::Rejected(reason) => write!(f, "rejected({reason})"),
            Self::ControlEnded => f.write_str("control-ended"),
            Self::LaneEnded => f.write_str("lane-ended"),
            Self::HungUp => f.write_str("hung-up"),
            Self::Accepted => f.write_str("accepted"),
            Self::Ignored => f.write_str("ignored"),
        }
    }
}
