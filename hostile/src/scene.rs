//! What an attack works with: the target, its randomness, its pace, and the book of answers.

use kvx_core::error::Refusal;
use kvx_core::id::TransferId;
use kvx_core::region::Rights;
use kvx_core::time::Time;
use kvx_core::transport::TransportKind;
use kvx_core::wire::metadata::RegionDescription;
use std::time::Duration;

use crate::clock;
use crate::connection::{Control, Gone, Lane, Me, Result, reason};
use crate::forge::Frame;
use crate::limits::Pace;
use crate::outcome::{Answer, Outcome};
use crate::random::Random;
use crate::target::{Ask, Target};

/// One run of an attack.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) target: &'a Target,
    pub(crate) random: Random,
    pub(crate) pace: Pace,
    pub(crate) outcome: Outcome,
    transfers: u64,
}

/// How far ahead frames expire unless an attack says otherwise.
const LIFETIME: Duration = Duration::from_secs(30);

impl<'a> Scene<'a> {
    pub(crate) fn new(target: &'a Target, seed: u64, pace: Pace) -> Self {
        let random = Random::new(seed);
        Self { target, random, pace, outcome: Outcome::default(), transfers: 0 }
    }

    /// A control connection of somebody new, on which both sides have said Resume.
    pub(crate) fn enter(&mut self) -> Result<Control> {
        self.enter_as(self.somebody()?)
    }

    /// Somebody new, who offers the transport that lanes are opened over, and TCP.
    pub(crate) fn somebody(&self) -> Result<Me> {
        let mut me = Me::new()?;
        if self.target.transport != TransportKind::Tcp {
            me.transports.push(self.target.transport);
        }
        Ok(me)
    }

    /// A control connection under this name.
    pub(crate) fn enter_as(&mut self, me: Me) -> Result<Control> {
        let mut control = Control::dial(self.target, me)?;
        control.resume(None)?;
        Ok(control)
    }

    /// The same with a lane.
    pub(crate) fn enter_with_lane(&mut self) -> Result<(Control, Lane)> {
        let mut control = self.enter()?;
        let lane = Lane::open(self.target, &mut control)?;
        Ok((control, lane))
    }

    /// A transfer that was not used in this run.
    pub(crate) fn transfer(&mut self) -> TransferId {
        self.transfers += 1;
        TransferId(self.transfers)
    }

    /// The same for a READ.
    pub(crate) fn read(&mut self) -> TransferId {
        TransferId(self.transfer().0 | 1 << 63)
    }

    /// An expiry that lies ahead.
    pub(crate) fn later(&self) -> Time {
        clock::now() + LIFETIME
    }

    /// A region given away that allows at least this.
    pub(crate) fn region(&self, rights: Rights) -> Result<&'a RegionDescription> {
        let lacks = "the metadata of a region with the right that is abused";
        self.target.shown_allowing(rights).ok_or(Gone::Lacks(lacks))
    }

    /// A region given away that allows exactly this.
    pub(crate) fn region_with_only(&self, rights: Rights) -> Result<&'a RegionDescription> {
        let lacks = "the metadata of a region without the right that is abused";
        self.target.shown_with(rights).ok_or(Gone::Lacks(lacks))
    }

    /// Has the victim's user do something.
    pub(crate) fn ask(&self, ask: Ask) -> Result<()> {
        let lacks = "a user of the victim who does what is asked";
        let user = self.target.user.as_ref().ok_or(Gone::Lacks(lacks))?;
        user(ask);
        Ok(())
    }

    /// Sends a frame and expects one of these answers.
    pub(crate) fn strike(
        &mut self,
        what: &str,
        (control, lane): (&mut Control, &mut Lane),
        frame: &Frame,
        allowed: &[Answer],
    ) -> Result<Answer> {
        self.pace.blow();
        let sent = lane.send(frame);
        let answer = match sent {
            Ok(()) => lane.verdict(control)?,
            Err(Gone::Ended | Gone::Full) => lane.end(control)?,
            Err(other) => return Err(other),
        };
        self.judge(what, answer, allowed);
        Ok(answer)
    }

    /// Sends a frame on a lane of its own, which it may cost.
    pub(crate) fn strike_alone(
        &mut self,
        what: &str,
        control: &mut Control,
        frame: &Frame,
        allowed: &[Answer],
    ) -> Result<()> {
        let mut lane = Lane::open(self.target, control)?;
        self.strike(what, (control, &mut lane), frame, allowed).map(drop)
    }

    /// Says bytes on a fresh control connection and expects one of these answers.
    pub(crate) fn say_alone(
        &mut self,
        what: &str,
        speak: impl FnOnce(&mut Control) -> Result<()>,
        allowed: &[Answer],
    ) -> Result<()> {
        let mut control = self.enter()?;
        self.pace.blow();
        let answer = match speak(&mut control) {
            Ok(()) => control.verdict()?,
            Err(Gone::Ended) => Answer::ControlEnded,
            Err(Gone::Full) if control.stream.ends(Duration::from_secs(5)) => Answer::ControlEnded,
            Err(other) => return Err(other),
        };
        self.judge(what, answer, allowed);
        Ok(())
    }

    /// Judges how a handshake ended.
    pub(crate) fn judge_handshake<T>(
        &mut self,
        what: &str,
        outcome: Result<T>,
        allowed: &[Answer],
    ) -> Result<Option<T>> {
        self.pace.blow();
        let (answer, value) = match outcome {
            Ok(value) => (Answer::Accepted, Some(value)),
            Err(Gone::Rejected(error)) => (Answer::Rejected(reason(&error)), None),
            Err(Gone::Ended) => (Answer::HungUp, None),
            Err(other) => return Err(other),
        };
        self.judge(what, answer, allowed);
        Ok(value)
    }

    /// Books an answer, and says so where it is none of the allowed.
    pub(crate) fn judge(&mut self, what: &str, answer: Answer, allowed: &[Answer]) {
        self.outcome.count(answer);
        if !allowed.contains(&answer) {
            self.outcome.surprise(format!("{what}: {answer}"));
        }
    }
}

/// The answer to a frame that is refused so.
pub(crate) const fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal.code())
}
