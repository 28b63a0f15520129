//! What the peer does when time passes.

use std::time::Duration;

use crate::error::Cause;
use crate::proto::peer::{Connection, Event, Peer};
use crate::time::Time;
use crate::wire::message::Message;

/// How old the last look at the peer's clock may be, however busy the connection: what is known of
/// the clock grows worse by a thousandth of its age, and expiries early by as much.
const CLOCK_AGE: Duration = Duration::from_secs(30);

impl Peer {
    /// Does what is due at `now`. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.dead.is_some() {
            return;
        }
        self.lanes.handle_timeout(now);
        for transfer in self.inbound.poll_fenced() {
            self.stream.send(Message::Fenced { transfer });
        }
        let late = self.outbound.handle_timeout(now);
        self.transfers_ended(late);
        self.late_notifications(now);
        match self.connection {
            Connection::Never => {}
            Connection::Down(since) => {
                let after = now.saturating_since(since);
                if after >= self.config.lost {
                    self.kill(Cause::PeerLost { after });
                }
            }
            Connection::Up(_) => {
                self.check_silence(now);
                self.open_lanes(now);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due; [`Time::NEVER`] if nothing is.
    pub fn next_timeout(&self) -> Time {
        self.next_work().min(self.next_look())
    }

    /// The part of [`Self::next_timeout`] that transfers, notifications and lanes wait for.
    pub fn next_work(&self) -> Time {
        if self.dead.is_some() {
            return Time::NEVER;
        }
        let lanes = if self.missing_lanes() > 0 { self.opener.retry_at } else { Time::NEVER };
        lanes
            .min(self.lanes.next_timeout())
            .min(self.outbound.next_timeout())
            .min(self.notify_sender.next_timeout())
    }

    /// The part of it that looks whether the peer is there, for which a moment later will do.
    pub fn next_look(&self) -> Time {
        if self.dead.is_some() {
            return Time::NEVER;
        }
        match self.connection {
            Connection::Never => Time::NEVER,
            Connection::Down(since) => since + self.config.lost,
            Connection::Up(_) => self.next_heartbeat().min(self.next_suspicion()),
        }
    }

    /// Asks a silent peer whether it is there; suspects it when it stays silent.
    fn check_silence(&mut self, now: Time) {
        if now >= self.next_heartbeat() {
            self.ask(now);
        }
        if now >= self.next_suspicion() {
            self.suspect = true;
            self.events.push_back(Event::Suspect(now.saturating_since(self.heard)));
        }
    }

    /// Asks the peer whether it is there, and for its time.
    pub(super) fn ask(&mut self, now: Time) {
        self.heartbeat_sent = Some(now);
        self.stream.send(Message::Heartbeat { time: now });
    }

    fn next_heartbeat(&self) -> Time {
        // While one is unanswered another is sent only after as long again.
        let sent = self.heartbeat_sent.unwrap_or(Time::ZERO);
        // The side that dialed asks first, and is heard by asking: were both as patient, both would
        // ask at the same time, and each answer come too late to spare the other question.
        let heartbeat = self.config.heartbeat;
        let patience = if self.opener.dialing { heartbeat } else { heartbeat + heartbeat / 4 };
        let silence = sent.max(self.heard) + patience;
        let clock = sent.max(self.clock.sampled()) + CLOCK_AGE;
        silence.min(clock)
    }

    fn next_suspicion(&self) -> Time {
        if self.suspect { Time::NEVER } else { self.heard + self.config.suspect }
    }

    fn late_notifications(&mut self, now: Time) {
        let cause = Cause::Deadline { after: self.notification_patience(), total: true };
        let settled = self.notify_sender.handle_timeout(now, &mut self.stream, &cause);
        self.settle_notifications(settled);
    }

    pub(super) fn notification_patience(&self) -> Duration {
        self.config.deadline.total.unwrap_or(self.config.deadline.progress)
    }
}
