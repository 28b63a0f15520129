//! Senders and Receivers of a worker.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kvx::error::Result;
use kvx::{Engine, Peer, Receiver, Room, SessionKey};
use rustix::process::{Signal, getpid, kill_process};

use super::Service;
use crate::content::{BLOCK_TOKENS, LAYERS, Pool};
use crate::line::Line;

impl Service {
    /// `send job= pool= room= blocks= pace= us deadline= ms [die_at= die_after= us]`: a Sender
    /// that writes layer by layer.
    pub(super) fn send(&mut self, command: &Line) -> String {
        let (engine, pool) = (self.engine().clone(), self.pool_of(command));
        let job = command.clone();
        let thread = thread::spawn(move || {
            let mut fate = Fate::new(&job);
            let outcome = send(&engine, &pool, &job, &mut fate);
            fate.fulfil();
            outcome
        });
        self.jobs.insert(command.get("job").to_owned(), thread);
        "ok".to_owned()
    }

    /// `receive job= address= pool= room= blocks= deadline= ms [die_at= die_after= us]`: connects
    /// to a sender and receives.
    pub(super) fn receive(&mut self, command: &Line) -> String {
        let (engine, pool) = (self.engine().clone(), self.pool_of(command));
        let job = command.clone();
        let thread = thread::spawn(move || {
            let mut fate = Fate::new(&job);
            let outcome = receive(&engine, &pool, &job, &mut fate);
            fate.fulfil();
            outcome
        });
        self.jobs.insert(command.get("job").to_owned(), thread);
        "ok".to_owned()
    }

    /// `grant session= peer= pool= room= blocks= deadline= ms`: a Receiver that is kept.
    pub(super) fn grant(&mut self, command: &Line) -> Result<String> {
        let (peer, pool) = (&self.peers[command.get("peer")], self.pool_of(command));
        let receiver = grant(peer, &pool, command)?;
        self.receivers.insert(command.get("session").to_owned(), receiver);
        Ok("ok".to_owned())
    }

    /// `abort session=`: the session's outcome.
    pub(super) fn abort(&mut self, command: &Line) -> Result<String> {
        let receiver = self.receivers.remove(command.get("session")).unwrap();
        let done = receiver.done();
        receiver.abort("the test says so");
        done.wait()?;
        Ok("ok".to_owned())
    }

    /// `await session= [layer=]`: waits for a layer, or for the end.
    pub(super) fn wait_for_session(&self, command: &Line) -> Result<String> {
        let receiver = &self.receivers[command.get("session")];
        match command.find_number("layer") {
            Some(layer) => receiver.layer(layer).wait()?,
            None => drop(receiver.wait()?),
        }
        Ok("ok".to_owned())
    }

    /// `join job=`: the job's outcome.
    pub(super) fn join(&mut self, command: &Line) -> Result<String> {
        self.jobs.remove(command.get("job")).unwrap().join().unwrap()
    }

    fn pool_of(&self, command: &Line) -> Arc<Pool> {
        Arc::clone(&self.pools[command.get("pool")])
    }
}

fn send(engine: &Engine, pool: &Pool, job: &Line, fate: &mut Fate) -> Result<String> {
    let (blocks, pace) = (job.numbers("blocks"), Duration::from_micros(job.number("pace")));
    fate.moment();
    let sender = engine.sender(session(job), &pool.kv, job.millis("deadline"))?;
    fate.moment();
    let granted = sender.granted().wait()?;
    fate.moment();
    let mut writes = Vec::new();
    for layer in granted.layers {
        thread::sleep(pace);
        writes.push(sender.write(layer..layer + 1, &blocks)?);
        fate.moment();
    }
    let done = sender.finish(payload(job));
    fate.moment();
    let outcome = done.wait();
    // Each write has its own end, whatever the session's.
    let landed = writes.iter().map(|write| write.wait()).filter(Result::is_ok).count();
    let sent = outcome?;
    assert_eq!(landed, writes.len());
    Ok(format!("ok bytes={}", sent.bytes))
}

fn receive(engine: &Engine, pool: &Pool, job: &Line, fate: &mut Fate) -> Result<String> {
    fate.moment();
    let peer = engine.connect(job.get("address")).wait()?;
    fate.moment();
    let receiver = grant(&peer, pool, job)?;
    fate.moment();
    for layer in receiver.layers() {
        receiver.layer(layer).wait()?;
        fate.moment();
    }
    let received = receiver.wait()?;
    Ok(format!("ok payload-is-right={}", received.payload == payload(job)))
}

fn grant(peer: &Peer, pool: &Pool, job: &Line) -> Result<Receiver> {
    let blocks: Vec<u32> = job.numbers("blocks");
    let tokens = blocks.len() as u32 * BLOCK_TOKENS;
    peer.receiver(session(job), &pool.kv, tokens, &blocks, job.millis("deadline"))
}

fn session(job: &Line) -> SessionKey {
    let attempt = job.find_number("attempt").unwrap_or(0);
    SessionKey { room: Room(job.number("room")), attempt, sender_rank: 0, receiver_rank: 0 }
}

fn payload(job: &Line) -> String {
    format!("the first token of room {}", job.get("room"))
}

/// Moments of a session, on either side, at which a process may be told to die.
pub const MOMENTS: u64 = LAYERS as u64 + 4;

/// When this process kills itself.
struct Fate {
    /// The moment, and how long after it.
    end: Option<(u64, Duration)>,
    next: u64,
}

impl Fate {
    fn new(job: &Line) -> Self {
        let after = Duration::from_micros(job.find_number("die_after").unwrap_or(0));
        Self { end: job.find_number("die_at").map(|at| (at, after)), next: 0 }
    }

    /// The next moment has come.
    fn moment(&mut self) {
        let now = self.next;
        self.next += 1;
        match self.end {
            Some((at, after)) if at == now && after.is_zero() => die(),
            Some((at, after)) if at == now => {
                thread::spawn(move || {
                    thread::sleep(after);
                    die();
                });
            }
            _ => {}
        }
    }

    /// The session has ended, perhaps before the moment came.
    fn fulfil(&self) {
        if let Some((_, after)) = self.end {
            thread::sleep(after);
            die();
        }
    }
}

fn die() {
    kill_process(getpid(), Signal::KILL).unwrap();
}
