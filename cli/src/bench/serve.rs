//! `kvx bench serve`: the side whose memory is read and written, for any number of runs.
//!
//! It knows nothing of what is measured: it makes memory as it is told, fills it, looks at it, and
//! says what CPU time it has used.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use kvx::{Engine, EngineId, Incarnation, Notification, Peer, TransferOp};

use super::Problem;
use super::limit::{LimitServer, Means};
use super::memory::{Memory, Owner};
use super::messages::{Answer, Numbered, Question};
use super::options::Serve;
use super::shape::{Shape, Side};
use crate::clock;

/// How often to look for runs that have ended without a word.
const LOOK: Duration = Duration::from_secs(1);

/// What stands before the address on the one line that is printed.
pub(super) const LISTENING: &str = "listening on ";

/// Serves until the process is ended. Exit status 1: it cannot; 2: the options make no sense.
pub(super) fn run(options: &Serve) -> ExitCode {
    let config = match options.config() {
        Ok(config) => config,
        Err(error) => return super::refuse("serve", &error.to_string()),
    };
    if options.with_parent {
        std::thread::spawn(end_with_parent);
    }
    let engine = match Engine::new(config) {
        Ok(engine) => engine,
        Err(error) => {
            crate::complain(error);
            return ExitCode::FAILURE;
        }
    };
    let mut stdout = io::stdout();
    let told = writeln!(stdout, "{LISTENING}{}", engine.local_addr());
    if let Err(error) = told.and_then(|()| stdout.flush()) {
        crate::complain(format_args!("print the address: {error}"));
        return ExitCode::FAILURE;
    }
    let mut server = Server { engine, runs: HashMap::new() };
    loop {
        server.turn();
    }
}

/// The parent holds the other end of standard input, and says nothing.
fn end_with_parent() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    std::process::exit(0);
}

#[derive(Debug)]
struct Server {
    engine: Engine,
    runs: HashMap<(EngineId, Incarnation), Current>,
}

/// The row that a run measures at present.
#[derive(Debug)]
struct Current {
    memory: Memory,
    /// Serves as long as the row lasts.
    _limit: Option<LimitServer>,
}

impl Server {
    /// Waits for a question and answers it.
    fn turn(&mut self) {
        let notification = self.engine.wait_notification(LOOK);
        let peers = self.engine.peers();
        let lives: Vec<_> = peers.iter().filter_map(Peer::identity).collect();
        self.runs.retain(|life, _| lives.contains(life));
        let Some(Notification { peer, bytes }) = notification else { return };
        let asker = peers.iter().find_map(|asker| {
            let life = asker.identity().filter(|(id, _)| Some(*id) == peer.id())?;
            Some((asker, life))
        });
        // Who is gone already needs no answer.
        let Some((asker, life)) = asker else { return };
        let (number, answer) = match Numbered::parse(&bytes) {
            Ok(Numbered { number, message }) => {
                let answer = self.answer(life, message);
                (number, answer.unwrap_or_else(|why| Answer::Failed(why.to_string())))
            }
            Err(why) => (0, Answer::Failed(why)),
        };
        // Should it not arrive, the asker is gone, or finds out by its own deadline.
        drop(asker.notify(Numbered { number, message: answer }.to_string()));
    }

    fn answer(
        &mut self,
        life: (EngineId, Incarnation),
        question: Question,
    ) -> Result<Answer, Problem> {
        match question {
            Question::SetUp { op, shape, seed, owner, limit } => {
                self.runs.remove(&life);
                self.set_up(life, op, shape, seed, owner, limit)
            }
            Question::Fill { round } => {
                self.current(life)?.memory.fill(round)?;
                Ok(Answer::Done)
            }
            Question::Corrupt(which) => {
                self.current(life)?.memory.corrupt(which)?;
                Ok(Answer::Done)
            }
            Question::Check { round } => {
                let difference = self.current(life)?.memory.difference(round)?;
                Ok(difference.map_or(Answer::Done, Answer::Differs))
            }
            Question::Cpu => Ok(Answer::Cpu(clock::process_cpu())),
        }
    }

    fn set_up(
        &mut self,
        life: (EngineId, Incarnation),
        op: TransferOp,
        shape: Shape,
        seed: u64,
        owner: Owner,
        limit: Option<Means>,
    ) -> Result<Answer, Problem> {
        let memory = Memory::new(&self.engine, owner, shape, Side::Peer, op, seed)?;
        let metadata = self.engine.metadata(memory.regions())?;
        // No earlier than a run that may connect asks for it: the bare loops know no auth key.
        let ip: IpAddr = self.engine.local_addr().ip();
        let limit = limit.map(|means| LimitServer::start(ip, means)).transpose()?;
        let (limit, limit_port) = limit.unzip();
        self.runs.insert(life, Current { memory, _limit: limit });
        Ok(Answer::Ready { limit_port, metadata })
    }

    fn current(&self, life: (EngineId, Incarnation)) -> Result<&Current, &'static str> {
        self.runs.get(&life).ok_or("no memory was set up")
    }
}
