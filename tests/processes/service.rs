//! The worker's side: carries out commands on one engine, one after the other. Sessions run in
//! threads of their own, so that a worker is never deaf.

mod sessions;
mod transfers;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvx::error::Result;
use kvx::{Buffer, Config, Engine, Peer, Receiver, Region, Rights, Transfer};
use kvx_tcp::{TcpOptions, TcpTransport};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::content::{self, POISON, Pool};
use crate::line::{Failure, Line, hex, hex_of, unhex};
use crate::worker::MARK;

pub use sessions::MOMENTS;

/// Everything that commands name.
#[derive(Default)]
struct Service {
    engine: Option<Engine>,
    memory: HashMap<String, Memory>,
    pools: HashMap<String, Arc<Pool>>,
    peers: HashMap<String, Peer>,
    transfers: HashMap<String, Transfer>,
    receivers: HashMap<String, Receiver>,
    jobs: HashMap<String, JoinHandle<Result<String>>>,
}

/// A buffer, and the region over it until it is deregistered.
struct Memory {
    buffer: Buffer,
    region: Option<Region>,
}

/// Carries out commands until there are no more, and ends the process.
pub fn run() -> ! {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    if std::env::var_os("KVX_TEST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_writer(std::io::stderr)
            .init();
    }
    let mut service = Service::default();
    for command in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
        let answer = match service.carry_out(&Line::parse(&command)) {
            Ok(answer) => answer,
            Err(error) => Failure::new(&error).to_line(),
        };
        // The harness may have left a line unfinished.
        let mut output = std::io::stdout().lock();
        if writeln!(output, "\n{MARK}{answer}").and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    std::process::exit(0);
}

impl Service {
    fn carry_out(&mut self, command: &Line) -> Result<String> {
        match command.verb.as_str() {
            "engine" => self.build(command),
            "pool" => Ok(self.pool(command)),
            "alloc" => self.allocate(command),
            "fill" => Ok(self.fill(command)),
            "check" => Ok(self.check(command)),
            "check-outside" => Ok(self.check_outside(command)),
            "check-no" => Ok(self.check_no(command)),
            "watch" => Ok(self.watch(command)),
            "deregister" => self.deregister(command),
            "blob" => self.blob(command),
            "add" => self.add(command),
            "connect" => self.connect(command),
            "remove" => Ok(self.remove(command)),
            "send" => Ok(self.send(command)),
            "receive" => Ok(self.receive(command)),
            "grant" => self.grant(command),
            "abort" => self.abort(command),
            "await" => self.wait_for_session(command),
            "join" => self.join(command),
            "post" => self.post(command),
            "poll" => self.poll(command),
            "wait" => self.wait(command),
            "cancel" => Ok(self.cancel(command)),
            "notify" => self.notify(command),
            "notes" => Ok(self.notes(command)),
            other => panic!("no command {other}"),
        }
    }

    /// `engine name= [deadline= ms] [bind=] [advertise=] [lanes=] [peer_timeout= ms]`
    fn build(&mut self, command: &Line) -> Result<String> {
        let mut config = Config::default().name(command.get("name"));
        config = config.deadline(command.millis("deadline").unwrap_or(Duration::from_secs(20)));
        if let Some(bind) = command.find_number("bind") {
            config = config.bind(bind);
        }
        if let Some(address) = command.find("advertise") {
            config = config.advertise([address.parse().unwrap()]);
        }
        if let Some(lanes) = command.find_number::<NonZeroU16>("lanes") {
            config = config.lanes(lanes);
        }
        let engine = match command.millis("peer_timeout") {
            None => Engine::new(config)?,
            Some(timeout) => {
                let tcp = TcpTransport::new(TcpOptions::new().io_threads(2).peer_timeout(timeout));
                Engine::with_transports(config, vec![tcp.unwrap()])?
            }
        };
        let answer = format!("ok id={} address={}", hex_of(engine.id()), engine.local_addr());
        self.engine = Some(engine);
        Ok(answer)
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// `pool name=`: a KV pool, poisoned. Answers with the addresses and lengths of its regions.
    fn pool(&mut self, command: &Line) -> String {
        let pool = Pool::allocate(self.engine());
        let fill = |buffer: &Buffer| buffer.fill(0, buffer.len(), POISON).unwrap();
        pool.buffers.iter().for_each(fill);
        let addresses: Vec<u64> = pool.buffers.iter().map(Buffer::address).collect();
        let len = pool.buffers[0].len();
        self.pools.insert(command.get("name").to_owned(), Arc::new(pool));
        format!("ok len={len} addresses={}", crate::line::list(&addresses))
    }

    /// `alloc name= len= [rights=none]`: registered memory, poisoned.
    fn allocate(&mut self, command: &Line) -> Result<String> {
        let rights = match command.find("rights") {
            Some("none") => Rights::empty(),
            _ => Rights::REMOTE_READ | Rights::REMOTE_WRITE,
        };
        let (buffer, region) = self.engine().allocate(command.number("len"), rights)?;
        buffer.fill(0, buffer.len(), POISON).unwrap();
        let answer = format!("ok address={}", buffer.address());
        let memory = Memory { buffer, region: Some(region) };
        self.memory.insert(command.get("name").to_owned(), memory);
        Ok(answer)
    }

    /// `fill name= seed=` or `fill name= byte=`, of a pool or of memory.
    fn fill(&self, command: &Line) -> String {
        let name = command.get("name");
        match (command.find_number("seed"), self.pools.get(name)) {
            (Some(seed), Some(pool)) => pool.write(seed),
            (Some(seed), None) => content::write(&self.memory[name].buffer, seed),
            (None, _) => {
                let byte = command.number("byte");
                let fill = |buffer: &Buffer| buffer.fill(0, buffer.len(), byte).unwrap();
                self.buffers(name).iter().for_each(fill);
            }
        }
        "ok".to_owned()
    }

    /// `check name= seed= sources= blocks=` of a pool, `check name= seed= [offset= len=]` of
    /// memory: answers `ok`, or `wrong at=`.
    fn check(&self, command: &Line) -> String {
        let (name, seed) = (command.get("name"), command.number("seed"));
        let wrong = match self.pools.get(name) {
            Some(pool) => {
                let (sources, blocks) = (command.numbers("sources"), command.numbers("blocks"));
                pool.find_wrong(seed, &sources, &blocks)
            }
            None => {
                let buffer = &self.memory[name].buffer;
                let offset = command.find_number("offset").unwrap_or(0);
                let len = command.find_number("len").unwrap_or(buffer.len() - offset);
                content::find_wrong(buffer, seed, offset, len).map(|at| at.to_string())
            }
        };
        wrong.map_or("ok".to_owned(), |at| format!("wrong at={at}"))
    }

    /// `check-outside name= blocks=`, of a pool: answers `ok` if all other blocks hold the poison.
    fn check_outside(&self, command: &Line) -> String {
        let wrong = self.pools[command.get("name")].find_touched(&command.numbers("blocks"));
        wrong.map_or("ok".to_owned(), |at| format!("wrong at={at}"))
    }

    /// `check-no name= seed= byte=`, of memory: answers `ok` if no place holds this byte that would
    /// not by this seed.
    fn check_no(&self, command: &Line) -> String {
        let (seed, byte) = (command.number("seed"), command.number("byte"));
        let wrong = content::find_byte(&self.memory[command.get("name")].buffer, seed, byte);
        wrong.map_or("ok".to_owned(), |at| format!("wrong at={at}"))
    }

    /// `watch name= byte= ms=`: answers `ok` if every byte was this one all the time.
    fn watch(&self, command: &Line) -> String {
        let (buffers, byte) = (self.buffers(command.get("name")), command.number("byte"));
        let (begin, time) = (Instant::now(), command.millis("ms").unwrap());
        loop {
            if let Some(at) = content::find_other(&buffers, byte) {
                return format!("wrong at={at}");
            }
            if begin.elapsed() >= time {
                return "ok".to_owned();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn buffers(&self, name: &str) -> Vec<Buffer> {
        match self.pools.get(name) {
            Some(pool) => pool.buffers.clone(),
            None => vec![self.memory[name].buffer.clone()],
        }
    }

    /// `deregister name=`, of memory or of a pool.
    fn deregister(&mut self, command: &Line) -> Result<String> {
        let name = command.get("name");
        match self.pools.get(name) {
            Some(pool) => pool.deregister()?,
            None => self.memory.get_mut(name).unwrap().region.take().unwrap().deregister()?,
        }
        Ok("ok".to_owned())
    }

    /// `blob names=a,b`: the metadata of the engine with these regions.
    fn blob(&self, command: &Line) -> Result<String> {
        let names = command.get("names").split(',').filter(|name| !name.is_empty());
        let regions = names.map(|name| self.memory[name].region.as_ref().unwrap());
        Ok(format!("ok blob={}", hex(&self.engine().metadata(regions)?)))
    }

    /// `add peer= blob=`
    fn add(&mut self, command: &Line) -> Result<String> {
        let peer = self.engine().add_peer(&unhex(command.get("blob")))?;
        self.peers.insert(command.get("peer").to_owned(), peer);
        Ok("ok".to_owned())
    }

    /// `connect peer= address=`
    fn connect(&mut self, command: &Line) -> Result<String> {
        let peer = self.engine().connect(command.get("address")).wait()?;
        self.peers.insert(command.get("peer").to_owned(), peer);
        Ok("ok".to_owned())
    }

    /// `remove peer=`
    fn remove(&mut self, command: &Line) -> String {
        self.peers[command.get("peer")].remove();
        "ok".to_owned()
    }
}
