//! The worker's side: carries out commands on one engine, one after the other. Sessions run in
//! threads of their own, so that a worker is never deaf.

mod another;
mod memory;
mod scarcity;
mod sessions;
mod traffic;
mod transfers;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use kvx::error::Result;
use kvx::{Config, Engine, Peer, Receiver, Transfer};
use kvx_tcp::{TcpOptions, TcpTransport};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::content::Pool;
use crate::line::{Failure, Line, hex, hex_of, unhex};
use crate::worker::{self, MARK};

pub use sessions::MOMENTS;

use memory::Memory;

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
    sealed: Vec<memory::Sealed>,
    hoard: Vec<OwnedFd>,
    traffic: Option<traffic::Traffic>,
}

/// In a worker process: carries out commands until there are no more, and ends the process.
/// Elsewhere it does nothing.
pub fn serve() {
    if worker::is_worker() {
        run();
    }
}

fn run() -> ! {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    // Whichever thread it is: no panic is survived.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
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
            "another" => self.build_another(command),
            "shutdown" => Ok(self.shut_down()),
            "pool" => Ok(self.pool(command)),
            "alloc" => self.allocate(command),
            "free" => Ok(self.free(command)),
            "vanish" => Ok(self.vanish(command)),
            "fill" => Ok(self.fill(command)),
            "check" => Ok(self.check(command)),
            "check-outside" => Ok(self.check_outside(command)),
            "check-no" => Ok(self.check_no(command)),
            "watch" => Ok(self.watch(command)),
            "seal" => Ok(self.seal(command)),
            "check-sealed" => Ok(self.check_sealed(command)),
            "hoard" => Ok(self.hoard(command)),
            "unhoard" => Ok(self.unhoard()),
            "pid" => Ok(format!("ok pid={}", std::process::id())),
            "keep" => Ok(another::keep()),
            "exec" => another::exec(),
            "host" => Ok(self.host(command)),
            "visit" => Ok(self.visit(command)),
            "traffic" => Ok(self.traffic()),
            "pause" => Ok(self.pause(command)),
            "leave" => Ok(self.leave()),
            "publish" => self.publish(command),
            "deregister" => self.deregister(command),
            "blob" => self.blob(command),
            "add" => self.add(command),
            "connect" => self.connect(command),
            "dial" => Ok(self.dial(command)),
            "list" => Ok(self.list(command)),
            "meet" => Ok(self.meet(command)),
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
            "notify-long" => self.notify_long(command),
            "prepare" => self.prepare(command),
            "notes" => Ok(self.notes(command)),
            other => panic!("no command {other}"),
        }
    }

    /// `engine name= [transports=shm,tcp] [deadline= ms] [bind=] [advertise=] [lanes=]
    /// [peer_timeout= ms] [metadata_auth=]`. `peer_timeout` is TCP's, and brings its own transport.
    fn build(&mut self, command: &Line) -> Result<String> {
        let mut config = Config::default().name(command.get("name"));
        config = config.deadline(command.millis("deadline").unwrap_or(Duration::from_secs(20)));
        if let Some(transports) = command.find("transports") {
            config = config.transports(transports.split(',').map(|kind| kind.parse().unwrap()));
        }
        if let Some(bind) = command.find_number("bind") {
            config = config.bind(bind);
        }
        if let Some(address) = command.find("advertise") {
            config = config.advertise([address.parse().unwrap()]);
        }
        if let Some(metadata_auth) = command.find_number("metadata_auth") {
            config = config.metadata_auth(metadata_auth);
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

    /// `shutdown`: the engine leaves in good order, and all it had is let go. Another may be built.
    fn shut_down(&mut self) -> String {
        self.engine().shutdown();
        *self = Self::default();
        "ok".to_owned()
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
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

    /// `dial address=`: connects to whoever is there, without waiting for the outcome.
    fn dial(&self, command: &Line) -> String {
        let connecting = self.engine().connect(command.get("address"));
        std::thread::spawn(move || connecting.wait().map(drop));
        "ok".to_owned()
    }

    /// `list address=`: connects to whoever is there and asks which regions it publishes, without
    /// waiting for the outcome.
    fn list(&self, command: &Line) -> String {
        let connecting = self.engine().connect(command.get("address"));
        std::thread::spawn(move || {
            connecting.wait().and_then(|peer| peer.published().wait()).map(drop)
        });
        "ok".to_owned()
    }

    /// `meet peer= id=`: a peer that has connected by itself.
    fn meet(&mut self, command: &Line) -> String {
        let id = command.get("id");
        let mut peers = self.engine().peers().into_iter();
        let met = peers.find(|peer| peer.identity().is_some_and(|(known, _)| hex_of(known) == id));
        self.peers.insert(command.get("peer").to_owned(), met.unwrap());
        "ok".to_owned()
    }

    /// `remove peer=`
    fn remove(&mut self, command: &Line) -> String {
        self.peers[command.get("peer")].remove();
        "ok".to_owned()
    }
}
