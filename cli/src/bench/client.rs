//! The run's end of the conversation with the side that serves: questions, answers, and what becomes
//! of a peer that does not answer.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use kvx::error::PeerName;
use kvx::{Engine, Peer, TransferOp};

use super::Problem;
use super::limit::Means;
use super::memory::{Corrupt, Owner};
use super::messages::{Answer, Numbered, Question};
use super::shape::Shape;

/// How often to look whether a peer that is silent is still there.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes a second that even the slowest machine fills or looks at.
const SLOWEST: u64 = 50_000_000;

/// The side that serves, as the run knows it.
#[derive(Debug)]
pub(super) struct Client {
    engine: Engine,
    peer: Peer,
    /// Where it may be reached, in the order in which names resolve.
    ips: Vec<IpAddr>,
    /// Questions asked so far.
    asked: u64,
    /// How long an answer may take from a peer that is alive.
    patience: Duration,
}

/// What the peer has made ready for a row.
#[derive(Debug)]
pub(super) struct Ready {
    /// The peer, with the regions of the row.
    pub(super) peer: Peer,
    /// Where the bare loops may listen.
    pub(super) limit: Vec<SocketAddr>,
}

impl Client {
    /// Connects to `address`, host and port.
    pub(super) fn connect(engine: Engine, address: &str) -> Result<Self, Problem> {
        let peer = engine.connect(address).wait()?;
        let ips = address.to_socket_addrs()?.map(|address| address.ip()).collect();
        Ok(Self { engine, peer, ips, asked: 0, patience: Duration::from_secs(60) })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Lets the peer make memory for a row.
    pub(super) fn set_up(
        &mut self,
        op: TransferOp,
        shape: Shape,
        seed: u64,
        owner: Owner,
        limit: Option<Means>,
    ) -> Result<Ready, Problem> {
        let work = Duration::from_secs(shape.side_bytes() / SLOWEST);
        self.patience = Duration::from_secs(60) + work;
        let question = Question::SetUp { op, shape, seed, owner, limit };
        let Answer::Ready { limit_port, metadata } = self.ask(question)? else {
            return Err(self.riddle());
        };
        let peer = self.engine.add_peer(&metadata)?;
        let len = shape.pool_bytes();
        let fits = peer.regions().iter().all(|region| region.len == len);
        if !fits || peer.regions().len() != shape.pools as usize {
            return Err(self.riddle());
        }
        let limit = limit_port.into_iter();
        let limit = limit.flat_map(|port| self.ips.iter().map(move |ip| (*ip, port).into()));
        Ok(Ready { peer, limit: limit.collect() })
    }

    /// Lets the peer put a round's content into its blocks.
    pub(super) fn fill(&mut self, round: u64) -> Result<(), Problem> {
        match self.ask(Question::Fill { round })? {
            Answer::Done => Ok(()),
            _ => Err(self.riddle()),
        }
    }

    /// Lets the peer change a byte.
    pub(super) fn corrupt(&mut self, which: Corrupt) -> Result<(), Problem> {
        match self.ask(Question::Corrupt(which))? {
            Answer::Done => Ok(()),
            _ => Err(self.riddle()),
        }
    }

    /// Lets the peer look at its memory; what is wrong there.
    pub(super) fn difference(&mut self, round: u64) -> Result<Option<String>, Problem> {
        match self.ask(Question::Check { round })? {
            Answer::Done => Ok(None),
            Answer::Differs(why) => Ok(Some(why)),
            _ => Err(self.riddle()),
        }
    }

    /// CPU time that the peer's process has used.
    pub(super) fn cpu(&mut self) -> Result<Duration, Problem> {
        match self.ask(Question::Cpu)? {
            Answer::Cpu(time) => Ok(time),
            _ => Err(self.riddle()),
        }
    }

    /// How errors call the peer.
    pub(super) fn peer_name(&self) -> PeerName {
        self.peer.name()
    }

    fn ask(&mut self, message: Question) -> Result<Answer, Problem> {
        self.asked += 1;
        let question = Numbered { number: self.asked, message };
        let asked = self.peer.identity().map(|(engine, _)| engine);
        let begin = Instant::now();
        self.peer.notify(question.to_string()).wait()?;
        while begin.elapsed() < self.patience {
            let Some(notification) = self.engine.wait_notification(LOOK) else {
                if !self.peer.is_connected() {
                    // Says who is gone and why, by the engine's deadline.
                    self.peer.ready().wait()?;
                }
                continue;
            };
            // Whoever else may reach this engine was not asked.
            if notification.peer.id() != asked {
                continue;
            }
            let answer = Numbered::parse(&notification.bytes)
                .map_err(|why| format!("{}: {why}", notification.peer))?;
            if answer.number == self.asked {
                return match answer.message {
                    Answer::Failed(why) => Err(format!("{}: {why}", self.peer.name()).into()),
                    answer => Ok(answer),
                };
            }
        }
        let Numbered { message, .. } = question;
        Err(format!("{}: no answer to \"{message}\" in {:?}", self.peer.name(), self.patience)
            .into())
    }

    /// An answer to another question than was asked.
    fn riddle(&self) -> Problem {
        format!("{}: its answer makes no sense; is it of another version?", self.peer.name()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use kvx::Config;

    use super::super::local::loopback;
    use super::*;

    #[test]
    fn only_the_peer_that_was_asked_is_heard() {
        let [own, asked, stranger] = ["own", "asked", "stranger"]
            .map(|name| Engine::new(Config::default().bind(loopback()).name(name)).unwrap());
        let mut client = Client::connect(own.clone(), &asked.local_addr().to_string()).unwrap();
        let intruder = stranger.connect(own.local_addr().to_string()).wait().unwrap();
        intruder.notify("1 cpu 666").wait().unwrap();
        let answers = thread::spawn(move || {
            let question = asked.wait_notification(Duration::from_secs(60)).unwrap();
            assert_eq!(&question.bytes[..], b"1 cpu");
            asked.peers()[0].notify("1 cpu 7").wait().unwrap();
            // Lives until the asker has gone.
            asked
        });
        assert_eq!(client.cpu().unwrap(), Duration::from_nanos(7));
        answers.join().unwrap();
    }
}
