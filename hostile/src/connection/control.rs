//! A control connection that the victim trusts: it numbers messages rightly unless told not to.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvx_core::error::Refusal;
use kvx_core::id::{Association, LaneId, Slot};
use kvx_core::proto::{Dialer, Established, SessionSecret};
use kvx_core::wire::message::{MESSAGE_HEADER_LEN, Message, MessageHeader, OpenRegion};
use kvx_core::wire::metadata::RegionDescription;

use super::stream::PATIENCE;
use super::{Gone, Me, Result, Stream};
use crate::outcome::Answer;
use crate::target::Target;
use crate::{clock, forge, random};

/// Messages that are kept for later.
const MAX_INBOX: usize = 65_536;

/// An authenticated control connection.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) stream: Stream,
    pub(crate) me: Me,
    pub(crate) secret: SessionSecret,
    /// The attacker's association and the victim's, once its Resume has come.
    pub(crate) own: Association,
    pub(crate) theirs: Option<Association>,
    /// The number of the last message in sequence, each way.
    pub(crate) said: u64,
    pub(crate) heard: u64,
    /// Whether the victim is told what was heard.
    pub(crate) acknowledges: bool,
    /// Counts lanes.
    lanes: u32,
    /// Messages that came while another was looked for.
    inbox: VecDeque<Message>,
    refused: HashMap<LaneId, Refusals>,
    /// What was said in the handshake here, byte by byte.
    pub(crate) recording: Recording,
}

/// What the dialer said in a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) hello: Vec<u8>,
    pub(crate) confirm: Vec<u8>,
}

/// What the victim told of refused frames of one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusals {
    pub(crate) count: u64,
    /// The last one.
    pub(crate) frame: u64,
    pub(crate) refusal: Refusal,
}

impl Control {
    /// Dials and shakes hands, rightly. Nothing is said beyond.
    pub(crate) fn dial(target: &Target, me: Me) -> Result<Self> {
        Self::dial_marked(target, me, |dialer| dialer)
    }

    /// The same by a dialer that tells itself from others that hold the victim's metadata.
    pub(crate) fn dial_marked(
        target: &Target,
        me: Me,
        mark: impl FnOnce(Dialer) -> Dialer,
    ) -> Result<Self> {
        let mut stream = Stream::connect(target.address)?;
        let nonce = random::unique()?;
        let (dialer, hello) = Dialer::new(&me.identity(), &target.auth, None, nonce, clock::now())?;
        stream.send(&hello)?;
        let (bytes, message) = stream.handshake()?;
        let (established, confirm) = mark(dialer).handle_welcome(clock::now(), &bytes, message)?;
        stream.send(&confirm)?;
        let recording = Recording { hello, confirm };
        Self::over(stream, me, &established, recording)
    }

    /// On a connection that has shaken hands.
    pub(crate) fn over(
        stream: Stream,
        me: Me,
        established: &Established,
        recording: Recording,
    ) -> Result<Self> {
        Ok(Self {
            stream,
            me,
            secret: established.secret.clone(),
            own: Association(u64::from_le_bytes(random::unique()?) | 1),
            theirs: None,
            said: 0,
            heard: 0,
            acknowledges: true,
            lanes: 0,
            inbox: VecDeque::new(),
            refused: HashMap::new(),
            recording,
        })
    }

    /// Says Resume, and waits for the victim's.
    pub(crate) fn resume(&mut self, known: Option<Association>) -> Result<()> {
        self.send(&Message::Resume { own: self.own, peer: known })?;
        while self.theirs.is_none() {
            let message = self.next(PATIENCE)?.ok_or(Gone::Silent("Resume"))?;
            self.inbox.push_back(message);
        }
        Ok(())
    }

    /// Says a message as it should be said.
    pub(crate) fn send(&mut self, message: &Message) -> Result<()> {
        let bytes = self.encode(message)?;
        self.stream.send(&bytes)
    }

    /// The next number and its message's bytes, to be said once or often.
    pub(crate) fn encode(&mut self, message: &Message) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        message.encode_body(&mut body)?;
        Ok(self.forge(message.kind(), &body))
    }

    /// A message of this body, wrong as it may be, with the next number.
    pub(crate) fn forge(&mut self, kind: u16, body: &[u8]) -> Vec<u8> {
        let sequenced = kind >= kvx_core::wire::message::FIRST_SEQUENCED;
        self.said += u64::from(sequenced);
        let sequence = if sequenced { self.said } else { 0 };
        forge::message(kind, sequence, self.acknowledgement(), body.len() as u32, body)
    }

    /// What is acknowledged at present.
    pub(crate) fn acknowledgement(&self) -> u64 {
        if self.acknowledges { self.heard } else { 0 }
    }

    /// The next message, if one comes in time.
    pub(crate) fn poll(&mut self, wait: Duration) -> Result<Option<Message>> {
        match self.inbox.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.next(wait),
        }
    }

    /// The next message that `wanted` takes; others stay for later.
    pub(crate) fn find<T>(
        &mut self,
        what: &'static str,
        mut wanted: impl FnMut(&Message) -> Option<T>,
    ) -> Result<T> {
        if let Some(index) = self.inbox.iter().position(|message| wanted(message).is_some())
            && let Some(found) = self.inbox.remove(index).as_ref().and_then(&mut wanted)
        {
            return Ok(found);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.next(left)?.ok_or(Gone::Silent(what))?;
            match wanted(&message) {
                Some(found) => return Ok(found),
                None => self.keep(message),
            }
        }
    }

    /// Waits until the victim has dealt with everything that was said before, and is still there.
    pub(crate) fn barrier(&mut self) -> Result<()> {
        let time = clock::now();
        self.send(&Message::Heartbeat { time })?;
        self.find("an answer to a heartbeat", |message| {
            matches!(message, Message::HeartbeatReply { echo, .. } if *echo == time).then_some(())
        })
    }

    /// What became of what was said before: whether the victim goes on, or has hung up.
    pub(crate) fn verdict(&mut self) -> Result<Answer> {
        match self.barrier() {
            Ok(()) => Ok(Answer::Ignored),
            Err(Gone::Ended) => Ok(Answer::ControlEnded),
            // It reads no more and has not hung up yet: then it does.
            Err(Gone::Full) if self.stream.ends(PATIENCE) => Ok(Answer::ControlEnded),
            Err(other) => Err(other),
        }
    }

    /// Leaves in good order, so that the victim need not wait whether it comes back. What it still
    /// has to say is not heard.
    pub(crate) fn leave(mut self) {
        if self.send(&Message::Goodbye).is_ok() {
            self.stream.ends(PATIENCE);
        }
    }

    /// Shows the key of a region, rightly: its slot.
    pub(crate) fn open(&mut self, region: &RegionDescription) -> Result<Slot> {
        let open = OpenRegion { region: region.id, key: region.key.clone() };
        self.send(&Message::OpenRegions(vec![open]))?;
        let slot = self.find("RegionsOpened", |message| match message {
            Message::RegionsOpened(answers) => answers.first().map(|answer| answer.slot),
            _ => None,
        })?;
        slot.map_err(|_| Gone::Lacks("a region that is still registered"))
    }

    /// What the victim has refused on a lane, once it has told so many refusals.
    pub(crate) fn refusals(&mut self, lane: LaneId, count: u64) -> Result<Option<Refusals>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = self.refused.get(&lane).copied();
            if told.map_or(0, |told| told.count) >= count {
                return Ok(told);
            }
            let left = until.saturating_duration_since(Instant::now());
            let message = self.next(left)?.ok_or(Gone::Silent("Refused"))?;
            self.keep(message);
        }
    }

    /// The name of the next lane: the side that dials counts them.
    pub(crate) fn next_lane(&mut self) -> LaneId {
        self.lanes += 1;
        self.lane_named(self.lanes)
    }

    /// The name of lane number `count` of this side.
    pub(crate) fn lane_named(&self, count: u32) -> LaneId {
        let larger = self.theirs.is_some_and(|theirs| self.own > theirs);
        LaneId(count << 1 | u32::from(larger))
    }

    /// Both associations, this side's first.
    pub(crate) fn associations(&self) -> Result<(Association, Association)> {
        Ok((self.own, self.theirs.ok_or(Gone::Silent("Resume"))?))
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Message>> {
        let Some(header) = self.stream.look::<MESSAGE_HEADER_LEN>(wait)? else { return Ok(None) };
        let header = MessageHeader::decode(&header)?;
        let len = MESSAGE_HEADER_LEN + header.body_len as usize;
        let Some(bytes) = self.stream.take(len, wait.max(Duration::from_secs(1)))? else {
            return Ok(None);
        };
        self.heard = self.heard.max(header.sequence);
        let message = Message::decode(header.kind, Bytes::from(bytes).slice(MESSAGE_HEADER_LEN..))?;
        match message {
            Message::Resume { own, .. } => self.theirs = Some(own),
            Message::Refused { lane, frame, refusal, .. } => {
                let count = self.refused.get(&lane).map_or(0, |told| told.count) + 1;
                self.refused.insert(lane, Refusals { count, frame, refusal });
            }
            _ => {}
        }
        Ok(Some(message))
    }

    /// Keeps a message for who looks for it later. Of what a flood brings back not all is kept.
    fn keep(&mut self, message: Message) {
        if self.inbox.len() < MAX_INBOX && !matches!(message, Message::Refused { .. }) {
            self.inbox.push_back(message);
        }
    }
}
