//! A lane that the victim has let in.

use std::time::{Duration, Instant};

use kvx_core::id::{Association, LaneId};
use kvx_core::proto::{LaneDialer, LaneKey};
use kvx_core::transport::TransportKind;
use kvx_core::wire::{FRAME_HEADER_LEN, FrameHeader, FrameKind};

use super::stream::PATIENCE;
use super::{Control, Gone, Result, Rings, Stream};
use crate::forge::Frame;
use crate::outcome::Answer;
use crate::random;
use crate::target::Target;

/// A lane to the victim.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) stream: Stream,
    /// Where its frames are, if they are not on the stream.
    rings: Option<Rings>,
    pub(crate) id: LaneId,
    /// Frames sent, ACKs not counted.
    pub(crate) sent: u64,
    /// What the victim's last ACK said.
    dealt_with: u64,
    refused: u64,
}

/// What the dialer of a lane says: its name, and for whom it speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) engine: kvx_core::id::EngineId,
    pub(crate) associations: (Association, Association),
    pub(crate) lane: LaneId,
    pub(crate) transport: u8,
}

impl Claim {
    /// The next lane of a control connection, as it should be claimed.
    pub(crate) fn next(control: &mut Control) -> Result<Self> {
        Ok(Self {
            engine: control.me.engine,
            associations: control.associations()?,
            lane: control.next_lane(),
            transport: TransportKind::Tcp.code(),
        })
    }
}

impl Lane {
    /// Opens the next lane, rightly.
    pub(crate) fn open(target: &Target, control: &mut Control) -> Result<Self> {
        let claim = Claim { transport: target.transport.code(), ..Claim::next(control)? };
        let (mut stream, _, key) = Self::claim_for_key(target, control, &claim)?;
        let rings = match target.transport {
            TransportKind::Shm => Some(Rings::meet(&mut stream, &key)?),
            _ => None,
        };
        Ok(Self::over(stream, rings, claim.lane))
    }

    /// A lane that is open.
    pub(crate) fn over(stream: Stream, rings: Option<Rings>, id: LaneId) -> Self {
        Self { stream, rings, id, sent: 0, dealt_with: 0, refused: 0 }
    }

    /// The rings of a lane that has some.
    pub(crate) fn rings(&mut self) -> Result<&mut Rings> {
        self.rings.as_mut().ok_or(Gone::Lacks("lanes over shm"))
    }

    /// Opens a lane under a claim, with a proof that is right for it. Also returns the LaneHello
    /// and the LaneProof.
    pub(crate) fn claim(
        target: &Target,
        control: &Control,
        claim: &Claim,
    ) -> Result<(Stream, [Vec<u8>; 2])> {
        let (stream, said, _) = Self::claim_for_key(target, control, claim)?;
        Ok((stream, said))
    }

    /// The same, with the lane's key.
    pub(crate) fn claim_for_key(
        target: &Target,
        control: &Control,
        claim: &Claim,
    ) -> Result<(Stream, [Vec<u8>; 2], LaneKey)> {
        let mut stream = Stream::connect(target.address)?;
        let Claim { engine, associations, lane, transport } = *claim;
        let nonce = random::unique()?;
        let (dialer, hello) =
            LaneDialer::new(engine, associations, lane, transport, &control.secret, nonce)?;
        stream.send(&hello)?;
        let (_, challenge) = stream.handshake()?;
        let (proof, key) = dialer.handle_challenge(&challenge)?;
        stream.send(&proof)?;
        Ok((stream, [hello, proof], key))
    }

    /// Sends a frame as it stands.
    pub(crate) fn send(&mut self, frame: &Frame) -> Result<()> {
        self.sent += u64::from(frame.kind != FrameKind::Ack.code());
        match &mut self.rings {
            Some(rings) => rings.send(&mut self.stream, frame),
            None => self.stream.send(&frame.bytes()),
        }
    }

    /// The next frame of the victim with its payload, if one comes in time.
    pub(crate) fn next(&mut self, wait: Duration) -> Result<Option<(FrameHeader, Vec<u8>)>> {
        if let Some(rings) = &mut self.rings {
            let frame = rings.next(&mut self.stream, wait)?;
            return Ok(frame.inspect(|(header, _)| self.count(header)));
        }
        let Some(bytes) = self.stream.look::<FRAME_HEADER_LEN>(wait)? else { return Ok(None) };
        let header = FrameHeader::decode(&bytes)?;
        let len = FRAME_HEADER_LEN + header.table_len() + header.payload_len as usize;
        let Some(mut bytes) = self.stream.take(len, PATIENCE)? else {
            return Err(Gone::Silent("the rest of a frame"));
        };
        self.count(&header);
        Ok(Some((header, bytes.split_off(FRAME_HEADER_LEN + header.table_len()))))
    }

    fn count(&mut self, header: &FrameHeader) {
        if header.kind == FrameKind::Ack {
            (self.dealt_with, self.refused) = (header.processed, header.refused);
        }
    }

    /// Takes in what the victim has sent, without waiting for more.
    pub(crate) fn drain(&mut self) -> Result<()> {
        while self.next(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    /// What became of the frame sent last, once the victim has dealt with all that were sent.
    pub(crate) fn verdict(&mut self, control: &mut Control) -> Result<Answer> {
        let until = Instant::now() + PATIENCE;
        while self.dealt_with < self.sent {
            let left = until.saturating_duration_since(Instant::now());
            match self.next(left) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Answer::Ignored),
                Err(Gone::Ended) => return Self::ended(control),
                Err(other) => return Err(other),
            }
        }
        let told = match control.refusals(self.id, self.refused) {
            Ok(told) => told.filter(|told| told.frame + 1 == self.sent),
            Err(Gone::Ended) => return Ok(Answer::ControlEnded),
            Err(other) => return Err(other),
        };
        Ok(told.map_or(Answer::Accepted, |told| Answer::Refused(told.refusal.code())))
    }

    /// Waits for the lane's end: whether it comes, and whether the control connection's does.
    pub(crate) fn end(&mut self, control: &mut Control) -> Result<Answer> {
        if self.stream.ends(PATIENCE) { Self::ended(control) } else { Ok(Answer::Ignored) }
    }

    fn ended(control: &mut Control) -> Result<Answer> {
        Ok(match control.verdict()? {
            Answer::ControlEnded => Answer::ControlEnded,
            _ => Answer::LaneEnded,
        })
    }
}
