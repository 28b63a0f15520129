//! The neighbour that will be stopped: two engines that move bytes without a pause, one into the
//! served engine's memory and one out of it. Whenever it is stopped, it is in the middle of both.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use kvx::{Config, Engine, PostOptions, TransferOp};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::super::Problem;
use super::super::client::Client;
use super::super::measure::prepare;
use super::super::memory::{Memory, Owner};
use super::super::shape::{Order, Shape, Side};
use super::BEGUN;

/// What a transfer moves.
const SHAPE: Shape =
    Shape { pools: 16, blocks: 64, block_bytes: 16 << 10, order: Order::Scattered };

const SEED: u64 = 2;

/// Each by an engine of its own.
const OPS: [TransferOp; 2] = [TransferOp::Write, TransferOp::Read];

/// Moves bytes until it is killed. A stopped process would outlive its parent for ever.
pub(super) fn run(config: Config, peer: SocketAddr) -> Result<(), Problem> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let (tell, heard) = channel();
    for op in OPS {
        let (config, tell) = (config.clone(), tell.clone());
        thread::spawn(move || {
            let Err(why) = move_on(config, peer, op, &tell);
            // Who listened has heard another's failure.
            let _ = tell.send(Err(why));
        });
    }
    drop(tell);
    let mut moving = 0;
    for news in heard {
        news?;
        moving += 1;
        if moving == OPS.len() {
            writeln!(io::stdout(), "{BEGUN}")?;
        }
    }
    Err("a thread died".into())
}

/// Moves the same blocks over and over. Tells once when it does.
fn move_on(
    config: Config,
    peer: SocketAddr,
    op: TransferOp,
    tell: &Sender<Result<(), Problem>>,
) -> Result<Infallible, Problem> {
    let mut client = Client::connect(Engine::new(config)?, &peer.to_string())?;
    let memory = Memory::new(client.engine(), Owner::Engine, SHAPE, Side::Initiator, op, SEED)?;
    let ready = client.set_up(op, SHAPE, SEED, Owner::Engine, None)?;
    let (prepared, _) = prepare(op, &SHAPE, &memory, &ready, SEED)?;
    prepared.post(PostOptions::new())?.wait()?;
    let mut before = prepared.post(PostOptions::new())?;
    // Nobody but this process's own main thread listens, as long as there is one.
    let _ = tell.send(Ok(()));
    loop {
        // The next one is under way before the last one is done.
        let next = prepared.post(PostOptions::new())?;
        before.wait()?;
        before = next;
    }
}
