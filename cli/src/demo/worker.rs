//! A process of the demo, seen from within: how it hears from its parent and answers. What it does
//! is in [`super::prefill`] and [`super::decode`].

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};

use clap::Args;
use kvx::{Config, Engine};

use super::messages::{Order, Report};
use super::options::Options;
use super::role::Role;
use super::{decode, prefill};

/// What ends a process early.
pub(super) type Problem = Box<dyn Error + Send + Sync>;

/// Which process of a demo this is.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArguments {
    role: Role,
    #[command(flatten)]
    options: Options,
}

/// Does the work of one process, and says at the end that it is done or why not.
pub(crate) fn work(arguments: &WorkerArguments) -> ExitCode {
    let WorkerArguments { role, options } = arguments;
    let mut parent = Parent::new();
    let outcome = match *role {
        Role::Prefill { instance, rank } => prefill::run(&mut parent, options, instance, rank),
        Role::Decode { rank } => decode::run(&mut parent, options, rank),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tell(&Report::Failed(why.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// The engine of this process.
pub(super) fn engine(options: &Options, role: Role) -> Result<Engine, Problem> {
    let config: Config = options.config()?.name(role.to_string());
    Ok(Engine::new(config)?)
}

/// Tells the parent. One that cannot be told is dead, and then this process ends by its standard
/// input.
pub(super) fn tell(report: &Report) {
    let _ = writeln!(io::stdout(), "{report}");
}

/// The parent's orders.
#[derive(Debug)]
pub(super) struct Parent {
    orders: Receiver<Order>,
    /// Orders that came before they were asked for.
    early: Vec<Order>,
    /// Whether the end of the orders is the end of the work, and not of the parent.
    done: Arc<AtomicBool>,
}

impl Parent {
    fn new() -> Self {
        let (sender, orders) = mpsc::channel();
        let done = Arc::new(AtomicBool::new(false));
        let end_is_fine = Arc::clone(&done);
        std::thread::spawn(move || {
            let lines = io::stdin().lines().map_while(Result::ok);
            let orders = lines.map_while(|line| line.parse::<Order>().ok());
            for order in orders {
                // Nobody listens to orders any more; the end of them is still of interest.
                let _ = sender.send(order);
            }
            if !end_is_fine.load(Ordering::Acquire) {
                // The parent is dead, or gave up and is about to kill this process.
                std::process::exit(1);
            }
        });
        Self { orders, early: Vec::new(), done }
    }

    /// Waits until the parent knows where this instance's directory is.
    pub(super) fn directory(&mut self, of: u32) -> Result<SocketAddr, Problem> {
        self.wait_for(|order| match order {
            Order::Directory { instance, address } if *instance == of => Some(*address),
            _ => None,
        })
    }

    /// Waits until everyone is ready.
    pub(super) fn go(&mut self) -> Result<(), Problem> {
        self.wait_for(|order| (*order == Order::Go).then_some(()))
    }

    /// Says that nothing more will come, and waits until the parent needs this process no more:
    /// until then its engine answers others.
    pub(super) fn done(&mut self) {
        self.done.store(true, Ordering::Release);
        tell(&Report::Done);
        while self.orders.recv().is_ok() {}
    }

    fn wait_for<T>(&mut self, wanted: impl Fn(&Order) -> Option<T>) -> Result<T, Problem> {
        if let Some(found) = self.early.iter().find_map(&wanted) {
            return Ok(found);
        }
        loop {
            let order = self.orders.recv().map_err(|_| "the parent ended early")?;
            if let Some(found) = wanted(&order) {
                return Ok(found);
            }
            self.early.push(order);
        }
    }
}
