//! `kvx-hostile`: attacks an engine and says what it answered. For deployments of one's own.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kvx_hostile::{Attack, Limits, Target, attack, attacks, run};

/// Breaks kvx's rules at an engine, and says what it answered.
///
/// It attacks as an insider, who holds the auth key, or metadata that lets its holders in. Whether the engine still serves its other
/// peers, and what it costs it, is to be looked at there: run `kvx bench` beside it.
#[derive(Debug, Parser)]
#[command(name = "kvx-hostile", version)]
struct Options {
    /// Lists the attacks and what must hold, and ends.
    #[arg(long)]
    list: bool,

    /// The engine to attack.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "list")]
    peer: Option<String>,

    /// The file that holds the deployment's auth key.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["list", "metadata"])]
    auth_key_file: Option<PathBuf>,

    /// A metadata blob of the engine, with the regions that it gives away; and perhaps with the
    /// secret that lets its holders in.
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,

    /// The attack, or `all`.
    #[arg(long, value_name = "NAME", default_value = "all")]
    attack: String,

    /// Decides what is random in the attacks.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Repeats each attack for so long; once, if not given.
    #[arg(long)]
    seconds: Option<f64>,

    /// Frames, messages or connections a second at most.
    #[arg(long)]
    rate: Option<u32>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for attack in attacks() {
            println!("{:24} {}\n{:24} must hold: {}", attack.name, attack.what, "", attack.must);
        }
        return ExitCode::SUCCESS;
    }
    match strike(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kvx-hostile: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what the options say. Whether every answer was as PROTOCOL.md says.
fn strike(options: &Options) -> Result<bool, String> {
    let target = target(options)?;
    let chosen: Vec<&Attack> = match options.attack.as_str() {
        "all" => attacks().collect(),
        name => vec![attack(name).ok_or(format!("no attack is called {name}; see --list"))?],
    };
    let mut limits = match options.seconds {
        Some(seconds) => {
            let time = Duration::try_from_secs_f64(seconds);
            Limits::lasting(time.map_err(|error| format!("--seconds {seconds}: {error}"))?)
        }
        None => Limits::once(),
    };
    if let Some(rate) = options.rate {
        limits = limits.per_second(rate);
    }
    let mut well = true;
    for attack in chosen {
        let outcome = run(attack, &target, options.seed, limits);
        println!("{:24} {outcome}", attack.name);
        well &= outcome.surprises.is_empty();
    }
    Ok(well)
}

fn target(options: &Options) -> Result<Target, String> {
    let peer = options.peer.as_deref().unwrap_or_default();
    let resolved = peer.to_socket_addrs().map_err(|error| format!("{peer}: {error}"))?;
    let addresses: Vec<SocketAddr> = resolved.collect();
    let address = addresses.first().ok_or(format!("{peer} has no address"))?;
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let key = options.auth_key_file.as_ref().map(read).transpose()?.unwrap_or_default();
    // As engines read it: without the line's end.
    let key = key.trim_ascii_end().to_vec();
    let target = Target::new(*address, key);
    match options.metadata.as_ref().map(read).transpose()? {
        Some(blob) => target.with_metadata(&blob).map_err(|error| format!("metadata: {error}")),
        None => Ok(target),
    }
}
