//! The receiving half of a lane: listens on the socket until both sides reach each other's memory,
//! then takes messages from the other side's ring, asks the host where their payload may land, and
//! copies it: by loads and stores if both ends of it are shared memory, else by system calls. Not who may write where.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use kvx_core::error::{LaneError, Refusal, Violation};
use kvx_core::wire::{FrameHeader, FrameKind};
use kvx_io::{Arrival, Incoming, LaneState, ReceiveHalf, Received, Sight};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use zerocopy::FromBytes;

use crate::copy::copy;
use crate::message::{Kind, Message};
use crate::pools::{Mapped, Pools};
use crate::setup::{
    Attached, BELL, Channel, FINE, GREETING, Greeting, READY, REFUSED, RingSight, SOURCE_GONE,
    unreachable,
};
use crate::sys;

/// Bytes that are copied to see which side's memory is missing, a call.
const PROBE: usize = 4096;

/// Where the reason is, which a peer's word is not taken for.
const ITS_LOG: &str = "; its log says why, and kvx doctor there what to do";

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// `None` once the lane has ended.
    channel: Option<Arc<Channel>>,
    setup: Setup,
    /// The first words that were not read yet: all before are dealt with.
    at: u64,
    /// Words of the message at hand.
    words: u64,
    stage: Stage,
    message: Message,
    /// What the other side lets this one map.
    pools: Pools,
    /// The payload at hand is copied by loads and stores.
    is_mapped: bool,
    incoming: Incoming,
}

/// How far the setting up is.
#[derive(Debug)]
enum Setup {
    /// So much of the greeting is here.
    Greeting([u8; GREETING], usize),
    /// The other side has not answered the challenge yet.
    Answer(Greeting),
    /// This side reaches the other; whether the other does is to be said.
    Verdict(Box<Attached>),
    /// It does not, for this reason, if the other side is still there to say so, too: one whose
    /// connection was cut has nothing to be reached any more, and would have tomorrow.
    Refused(LaneError),
    /// Both do.
    Done,
}

/// What is due next.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// A message.
    Message,
    /// Staging memory for its payload.
    Staging(FrameHeader),
    /// Its payload.
    Payload(FrameHeader),
    /// The staging memory's way into the regions.
    Committing(FrameHeader),
}

/// What a step came to.
enum Step {
    /// As many bytes were copied, or something else has changed.
    Took(usize),
    /// There is nothing, or memory is not ready.
    Wait,
}

impl Receiver {
    pub(crate) fn new(channel: Arc<Channel>, mapped: Arc<Mapped>) -> Self {
        Self {
            channel: Some(channel),
            setup: Setup::Greeting([0; GREETING], 0),
            at: 0,
            words: 0,
            stage: Stage::Message,
            message: Message::default(),
            pools: Pools::new(mapped),
            is_mapped: false,
            incoming: Incoming::default(),
        }
    }
}

impl ReceiveHalf for Receiver {
    fn turn(
        &mut self,
        lane: &LaneState,
        left: &mut usize,
        received: &mut Received,
    ) -> Result<(), LaneError> {
        let Some(channel) = self.channel.clone() else {
            return Ok(());
        };
        // Whoever rang may have made room: what waits for it has its turn after this.
        received.frames |= self.listen(&channel)?;
        let Some(attached) = channel.attached() else {
            return Ok(());
        };
        while lane.ending().is_none() {
            // What is copied is dealt with first.
            if *left == 0 && self.begins_or_copies() {
                received.more = true;
                break;
            }
            match self.step(lane, &channel, attached, *left, &mut received.frames)? {
                Step::Took(bytes) => *left = left.saturating_sub(bytes),
                Step::Wait => break,
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.channel = None;
        self.setup = Setup::Done;
        self.leave(Stage::Message);
        self.message = Message::default();
        self.pools.clear();
    }

    fn sight(&self) -> Option<Arc<dyn Sight>> {
        self.channel.as_ref().map(|channel| Arc::new(RingSight::of(channel)) as _)
    }
}

impl Receiver {
    /// Hears all that was said on the socket. Whether anything was.
    fn listen(&mut self, channel: &Channel) -> Result<bool, LaneError> {
        let mut heard = [0; 128];
        let mut anything = false;
        loop {
            let bytes = match recv(channel.socket(), &mut heard, RecvFlags::DONTWAIT) {
                // A socket that is closed over unread bells resets.
                Ok((0, _)) | Err(Errno::CONNRESET) => return Err(LaneError::Closed),
                Ok((bytes, _)) => bytes,
                Err(Errno::AGAIN) => return Ok(anything),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Arc::new(io::Error::from(errno)).into()),
            };
            anything = true;
            for byte in heard.iter().take(bytes) {
                self.hear(channel, *byte)?;
            }
        }
    }

    /// Hears a byte of the socket.
    pub(crate) fn hear(&mut self, channel: &Channel, byte: u8) -> Result<(), LaneError> {
        match (&mut self.setup, byte) {
            (Setup::Greeting(_, 0), REFUSED) => {
                Err(unreachable(format!("the other side cannot share memory{ITS_LOG}")))
            }
            (Setup::Greeting(greeting, have), _) => {
                greeting[*have] = byte;
                *have += 1;
                if *have == GREETING {
                    let greeting = Greeting::read_from_bytes(&greeting[..])
                        .map_err(|_| unreachable("no greeting"))?;
                    let answered = channel.answer(&greeting);
                    self.setup = tell(channel, answered.map(|()| Setup::Answer(greeting)), READY);
                }
                Ok(())
            }
            (Setup::Answer(greeting), READY) => {
                let reached = channel.reach(greeting);
                let next = reached.map(|attached| Setup::Verdict(Box::new(attached)));
                self.setup = tell(channel, next, FINE);
                Ok(())
            }
            (Setup::Refused(why), REFUSED) => Err(why.clone()),
            (Setup::Refused(_), READY | FINE) => Ok(()),
            (Setup::Verdict(_), FINE) => {
                if let Setup::Verdict(attached) = std::mem::replace(&mut self.setup, Setup::Done) {
                    channel.attach(*attached);
                }
                Ok(())
            }
            (Setup::Answer(_) | Setup::Verdict(_), REFUSED) => {
                // So that it knows who was there.
                let _ = channel.say(&[REFUSED]);
                Err(unreachable(format!("the other side may not read this one's memory{ITS_LOG}")))
            }
            (Setup::Done, BELL) => Ok(()),
            (Setup::Done, SOURCE_GONE) => Err(LaneError::SourceGone),
            _ => Err(odd("a byte on the socket").into()),
        }
    }

    fn step(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        limit: usize,
        frames: &mut bool,
    ) -> Result<Step, LaneError> {
        match self.stage {
            Stage::Message => match self.take(channel, attached)? {
                None => Ok(Step::Wait),
                Some(Kind::Frame) => {
                    *frames = true;
                    self.arrive(lane, channel, attached)?;
                    Ok(Step::Took(0))
                }
                Some(Kind::Offer) => {
                    self.pools.accept(&self.message.offer()?, attached)?;
                    self.pass(channel, attached);
                    Ok(Step::Took(0))
                }
                Some(Kind::TakeBack) => {
                    self.pools.give_back(self.message.taken_back()?)?;
                    self.pass(channel, attached);
                    Ok(Step::Took(0))
                }
            },
            Stage::Staging(header) => Ok(self.stage_memory(lane, channel, attached, header)),
            Stage::Payload(header) if self.incoming.places.left() > 0 => {
                self.copy(lane, channel, attached, header, limit)
            }
            Stage::Payload(header) => {
                // Said after the copy: what it looked at may have been another's by then.
                if attached.theirs.is_withdrawn() {
                    return Err(LaneError::SourceGone);
                }
                self.stage = Stage::Committing(header);
                Ok(Step::Took(0))
            }
            Stage::Committing(header) => {
                *frames = true;
                Ok(self.commit(lane, channel, attached, header))
            }
        }
    }

    /// Whether the next step takes another message, or copies.
    fn begins_or_copies(&self) -> bool {
        match self.stage {
            Stage::Message => true,
            Stage::Payload(_) => self.incoming.places.left() > 0,
            Stage::Staging(_) | Stage::Committing(_) => false,
        }
    }

    /// Takes the next message out of the ring, if there is one.
    fn take(&mut self, channel: &Channel, attached: &Attached) -> Result<Option<Kind>, LaneError> {
        let theirs = &attached.theirs;
        if theirs.readable(self.at)? == 0 {
            return Ok(None);
        }
        let mut first = [0];
        theirs.read(self.at, &mut first);
        let (kind, len) = Kind::of(first[0])?;
        let words = len as u64;
        if theirs.readable(self.at)? < words {
            return Err(odd("a message that was not written").into());
        }
        theirs.read(self.at, self.message.room(len));
        self.words = words;
        channel.has_taken(self.at + words);
        Ok(Some(kind))
    }

    /// A message is here: the host decides.
    fn arrive(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
    ) -> Result<(), LaneError> {
        lane.received().frame();
        let header = self.message.parse()?;
        if header.kind == FrameKind::Ack {
            self.pass(channel, attached);
            return Ok(lane.host().acknowledged(lane.id(), &header)?);
        }
        match self.incoming.arrive(lane, &header, &self.message.table)? {
            Arrival::Discarded => {
                self.leave(Stage::Message);
                self.pass(channel, attached);
            }
            Arrival::Refused(refusal) => self.refuse(lane, channel, attached, header, refusal),
            Arrival::Admitted if self.incoming.places.is_staged() => {
                self.stage = Stage::Staging(header);
            }
            Arrival::Admitted => {
                let are_mapped = self.message.sources.are_mapped(&self.pools)?;
                self.is_mapped = are_mapped && self.incoming.places.lasts();
                self.stage = Stage::Payload(header);
            }
        }
        Ok(())
    }

    fn stage_memory(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        header: FrameHeader,
    ) -> Step {
        match self.incoming.poll_stage(lane) {
            Poll::Pending => return Step::Wait,
            Poll::Ready(Ok(())) => self.stage = Stage::Payload(header),
            Poll::Ready(Err(refusal)) => self.refuse(lane, channel, attached, header, refusal),
        }
        Step::Took(0)
    }

    /// As much as a turn may, out of the other side's memory into registered memory.
    fn copy(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        header: FrameHeader,
        limit: usize,
    ) -> Result<Step, LaneError> {
        let (places, sources) = (&self.incoming.places, &self.message.sources);
        let copying = channel.own.copying();
        if attached.theirs.is_withdrawn() {
            return Err(LaneError::SourceGone);
        }
        let pulled = self.incoming.admit(lane.host()).map(|held| {
            if self.is_mapped {
                return Ok(copy(&held, places, sources, &self.pools, limit));
            }
            let (places, sources) = (places.rest(), sources.spans());
            sys::pull(attached.pid, &held, places, sources, limit, attached.token)
        });
        drop(copying);
        let pulled = match pulled {
            Ok(pulled) => pulled,
            Err(refusal) => {
                self.refuse(lane, channel, attached, header, refusal);
                return Ok(Step::Took(0));
            }
        };
        match pulled.map_err(other_side_gone)? {
            0 if self.is_source_there(attached)? => {
                self.refuse(lane, channel, attached, header, Refusal::MemoryFault);
                Ok(Step::Took(0))
            }
            0 => {
                // It hears, too, or finds the socket closed.
                let _ = channel.say(&[SOURCE_GONE]);
                Err(LaneError::SourceGone)
            }
            bytes => {
                lane.received().call(bytes);
                self.incoming.places.advance(bytes as u64);
                self.message.sources.advance(bytes as u64);
                Ok(Step::Took(bytes))
            }
        }
    }

    /// After a copy that failed: whether all that it was to read is there.
    fn is_source_there(&self, attached: &Attached) -> Result<bool, LaneError> {
        let mut buffer = [0; PROBE];
        for source in self.message.sources.spans() {
            let mut done = 0;
            while done < source.len {
                let len = (source.len - done).min(PROBE as u64);
                let address = source.address.wrapping_add(done);
                let into = &mut buffer[..len as usize];
                let read = sys::peek(attached.pid, into, address, attached.token);
                if read.map_err(other_side_gone)? == 0 {
                    return Ok(false);
                }
                done += len;
            }
        }
        Ok(true)
    }

    /// All of the payload has been copied.
    fn commit(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        header: FrameHeader,
    ) -> Step {
        match self.incoming.poll_commit(lane) {
            Poll::Pending => return Step::Wait,
            Poll::Ready(done) => self.finish(lane, channel, attached, header, done),
        }
        Step::Took(0)
    }

    /// Nothing more of the frame lands: the host hears at once.
    fn refuse(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        header: FrameHeader,
        refusal: Refusal,
    ) {
        self.finish(lane, channel, attached, header, Err(refusal));
    }

    /// The frame has landed, or has not.
    fn finish(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        header: FrameHeader,
        done: Result<(), Refusal>,
    ) {
        self.leave(Stage::Message);
        self.pass(channel, attached);
        lane.host().frame_finished(lane.id(), &header, done);
    }

    /// The message at hand is dealt with: its room, and what it named, are the other side's again.
    fn pass(&mut self, channel: &Channel, attached: &Attached) {
        self.at += self.words;
        channel.own.release(self.at);
        channel.ring_if_full(attached, self.at);
    }

    /// Lets go of the frame's memory.
    fn leave(&mut self, next: Stage) {
        self.stage = next;
        self.is_mapped = false;
        self.incoming.clear();
        self.message.sources.clear();
    }
}

/// Says that something went well, or else that the lane is refused; and what is due next.
fn tell(channel: &Channel, next: Result<Setup, LaneError>, well: u8) -> Setup {
    let (said, next) = match next {
        Ok(next) => (well, next),
        Err(why) => (REFUSED, Setup::Refused(why)),
    };
    // A socket that is over says so itself, and before that what the other side has said.
    let _ = channel.say(&[said]);
    next
}

/// A process that is gone, or another now, has ended its lanes.
fn other_side_gone(error: io::Error) -> LaneError {
    let gone = error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error());
    if gone { LaneError::Closed } else { Arc::new(error).into() }
}

fn odd(message: &'static str) -> Violation {
    Violation::Unexpected { message, why: "nothing of the kind is due" }
}

#[cfg(test)]
mod tests;
