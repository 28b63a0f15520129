//! The receiving half of a lane: listens on the socket until both sides reach each other's memory,
//! then takes messages from the other side's ring, asks the host where their payload may land, and
//! copies it. Not who may write where.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use kvx_core::error::{LaneError, Refusal, Violation};
use kvx_core::transport::{Access, Admission, Landing};
use kvx_core::wire::{FrameHeader, FrameKind};
use kvx_io::{LaneState, Places, ReceiveHalf, Received, admit};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use zerocopy::FromBytes;

use crate::message::Message;
use crate::setup::{
    Attached, BELL, Channel, FINE, GREETING, Greeting, READY, REFUSED, SOURCE_GONE, unreachable,
};
use crate::sys;

/// Bytes that are copied to see which side's memory is missing, a call.
const PROBE: usize = 4096;

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
    /// Where the frame lands; empty when none does, so that an idle lane keeps no region alive.
    landing: Landing,
    places: Places,
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
    /// There is nothing, or memory is not ready: the bell follows.
    Wait,
}

impl Receiver {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self {
            channel: Some(channel),
            setup: Setup::Greeting([0; GREETING], 0),
            at: 0,
            words: 0,
            stage: Stage::Message,
            message: Message::default(),
            landing: Landing::default(),
            places: Places::default(),
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
            (Setup::Greeting(greeting, have), _) => {
                greeting[*have] = byte;
                *have += 1;
                if *have == GREETING {
                    let greeting = Greeting::read_from_bytes(&greeting[..])
                        .map_err(|_| unreachable("no greeting"))?;
                    tell(channel, channel.answer(&greeting), READY)?;
                    self.setup = Setup::Answer(greeting);
                }
                Ok(())
            }
            (Setup::Answer(greeting), READY) => {
                let attached = tell(channel, channel.reach(greeting), FINE)?;
                self.setup = Setup::Verdict(Box::new(attached));
                Ok(())
            }
            (Setup::Verdict(_), FINE) => {
                if let Setup::Verdict(attached) = std::mem::replace(&mut self.setup, Setup::Done) {
                    channel.attach(*attached);
                }
                Ok(())
            }
            (Setup::Answer(_) | Setup::Verdict(_), REFUSED) => {
                Err(unreachable("the other side does not reach this one's memory"))
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
            Stage::Message => {
                if !self.take(channel, attached)? {
                    return Ok(Step::Wait);
                }
                *frames = true;
                self.arrive(lane, channel, attached)?;
                Ok(Step::Took(0))
            }
            Stage::Staging(header) => Ok(self.stage_memory(lane, channel, attached, header)),
            Stage::Payload(header) if self.places.left() > 0 => {
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
            Stage::Payload(_) => self.places.left() > 0,
            Stage::Staging(_) | Stage::Committing(_) => false,
        }
    }

    /// Takes the next message out of the ring. `false` if there is none, and the bell will ring.
    fn take(&mut self, channel: &Channel, attached: &Attached) -> Result<bool, LaneError> {
        let theirs = &attached.theirs;
        if theirs.readable(self.at)? == 0 {
            channel.own.mark_asleep();
            if theirs.readable(self.at)? == 0 {
                return Ok(false);
            }
        }
        let mut length = [0];
        theirs.read(self.at, &mut length);
        let [words] = length;
        let room = self.message.room(words)?;
        if theirs.readable(self.at)? < words {
            return Err(odd("a message that was not written").into());
        }
        theirs.read(self.at, room);
        self.words = words;
        Ok(true)
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
        self.landing.clear();
        let table = &self.message.table;
        let admission = lane.host().frame_arrived(lane.id(), &header, table, &mut self.landing)?;
        if admission == Admission::Discard {
            self.leave(Stage::Message);
            self.pass(channel, attached);
            return Ok(());
        }
        let (regions, spans) = (&self.landing.regions, &self.landing.spans);
        match self.places.fill(regions, spans, header.payload_len.into()) {
            Err(refusal) => self.refuse(lane, channel, attached, header, refusal),
            Ok(()) if self.places.is_staged() => self.stage = Stage::Staging(header),
            Ok(()) => self.stage = Stage::Payload(header),
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
        lane.set_waits_for_memory(true);
        let waker = lane.waker();
        let mut cx = Context::from_waker(&waker);
        let polled = match admit(&self.landing, lane.host()) {
            Ok(_held) => self.places.poll_stage(Access::Scatter, &self.landing.regions, &mut cx),
            Err(refusal) => Poll::Ready(Err(refusal)),
        };
        let Poll::Ready(polled) = polled else {
            return Step::Wait;
        };
        lane.set_waits_for_memory(false);
        match polled {
            Ok(()) => self.stage = Stage::Payload(header),
            Err(refusal) => self.refuse(lane, channel, attached, header, refusal),
        }
        Step::Took(0)
    }

    /// One call out of the other side's memory into registered memory.
    fn copy(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        header: FrameHeader,
        limit: usize,
    ) -> Result<Step, LaneError> {
        let (places, sources) = (self.places.rest(), self.message.sources.rest());
        let copying = channel.own.copying();
        if attached.theirs.is_withdrawn() {
            return Err(LaneError::SourceGone);
        }
        let pulled = admit(&self.landing, lane.host())
            .map(|held| sys::pull(attached.pid, &held, places, sources, limit, attached.token));
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
                self.places.advance(bytes as u64);
                self.message.sources.advance(bytes as u64);
                Ok(Step::Took(bytes))
            }
        }
    }

    /// After a copy that failed: whether all that it was to read is there.
    fn is_source_there(&self, attached: &Attached) -> Result<bool, LaneError> {
        let mut buffer = [0; PROBE];
        for source in self.message.sources.rest() {
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

    /// All of the payload has been copied. What was staged moves on, under leases that are taken
    /// anew each time the provider is asked; a copy of its own that goes on in between is its own
    /// to guard.
    fn commit(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
        header: FrameHeader,
    ) -> Step {
        if self.places.is_staged() {
            lane.set_waits_for_memory(true);
            let waker = lane.waker();
            let mut cx = Context::from_waker(&waker);
            let polled = match admit(&self.landing, lane.host()) {
                Ok(_held) => self.places.poll_commit(&mut cx),
                Err(refusal) => Poll::Ready(Err(refusal)),
            };
            let Poll::Ready(polled) = polled else {
                return Step::Wait;
            };
            lane.set_waits_for_memory(false);
            if let Err(refusal) = polled {
                self.refuse(lane, channel, attached, header, refusal);
                return Step::Took(0);
            }
        }
        self.leave(Stage::Message);
        self.pass(channel, attached);
        lane.host().frame_finished(lane.id(), &header, Ok(()));
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
        self.leave(Stage::Message);
        self.pass(channel, attached);
        lane.host().frame_finished(lane.id(), &header, Err(refusal));
    }

    /// The message at hand is dealt with: its room, and what it named, are the other side's again.
    fn pass(&mut self, channel: &Channel, attached: &Attached) {
        self.at += self.words;
        channel.own.release(self.at);
        channel.ring_if_full(attached);
    }

    /// Lets go of the frame's memory.
    fn leave(&mut self, next: Stage) {
        self.stage = next;
        self.places.clear();
        self.landing.clear();
        self.message.sources.clear();
    }
}

/// Says that something went well, or else that the lane is refused.
fn tell<T>(channel: &Channel, done: Result<T, LaneError>, well: u8) -> Result<T, LaneError> {
    let said = if done.is_ok() { well } else { REFUSED };
    channel.say(&[said]).map_err(Arc::new)?;
    done
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
