//! The hostile neighbour: one attack after another, each for a moment, at a bounded rate, until it is
//! told to end. What the attacks are is the affair of `kvx-hostile`.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kvx_hostile::{Limits, Target, attack, run as strike};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::super::Problem;
use super::BEGUN;
use crate::clock;

/// What is done in turn: floods of all kinds, frames and messages that are refused, and connections
/// by the dozen. None needs more than the auth key.
const ATTACKS: [&str; 20] = [
    "heartbeat-flood",
    "bad-headers",
    "refusal-flood",
    "wrong-proofs",
    "cancel-flood",
    "bad-tables",
    "grant-churn",
    "forged-slots",
    "unread-answers",
    "out-of-sequence",
    "reconnect-flood",
    "false-acks",
    "room-flood",
    "forged-lanes",
    "peer-flood",
    "control-garbage",
    "half-messages",
    "lane-garbage",
    "guessed-keys",
    "absurd-messages",
];

/// How long each lasts, roughly: it ends when what it waits for has come.
const TURN: Duration = Duration::from_millis(200);

/// What the hostile peer did, in its own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Attacks that it played, of those in the list one after another.
    pub(super) attacks: usize,
    /// Frames, messages and connections.
    pub(super) blows: u64,
    /// Answers that PROTOCOL.md does not allow.
    pub(super) surprises: u64,
    /// CPU time of its process.
    pub(super) cpu: Duration,
}

/// Attacks until standard input ends, then tells what it did. So many attacks were `played` before.
pub(super) fn run(peer: SocketAddr, rate: u32, played: usize) -> Result<(), Problem> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let path = std::env::var_os("KVX_AUTH_KEY_FILE").ok_or("KVX_AUTH_KEY_FILE is not set")?;
    let target = Target::new(peer, std::fs::read(path)?);
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        told.store(true, Ordering::Relaxed);
    });
    writeln!(io::stdout(), "{BEGUN}")?;
    let limits = Limits::lasting(TURN).per_second(rate);
    let mut report = Report::default();
    for (seed, name) in (1..).zip(ATTACKS.iter().cycle()).skip(played) {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let attack = attack(name).ok_or_else(|| format!("no attack is called {name}"))?;
        let outcome = strike(attack, &target, seed, limits);
        if let Some(lacks) = outcome.lacks {
            return Err(format!("{name}: needs {lacks}").into());
        }
        report.attacks += 1;
        report.blows += outcome.blows;
        report.surprises += outcome.surprises.len() as u64;
        for surprise in &outcome.surprises {
            crate::complain(format_args!("{name}: {surprise}"));
        }
    }
    report.cpu = clock::process_cpu();
    writeln!(io::stdout(), "{report}")?;
    Ok(())
}

/// How many attacks were really played, each counted once, by peers that went on where those before
/// had ended.
pub(super) fn distinct(played: usize) -> usize {
    played.min(ATTACKS.len())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attacks, blows, surprises, cpu } = self;
        write!(f, "{attacks} {blows} {surprises} {}", cpu.as_secs_f64())
    }
}

impl FromStr for Report {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not_one = || format!("{text:?} is no report of a hostile peer");
        let words: Vec<&str> = text.split(' ').collect();
        let [attacks, blows, surprises, cpu] = words[..] else { return Err(not_one()) };
        let cpu = cpu.parse().ok().and_then(|cpu| Duration::try_from_secs_f64(cpu).ok());
        Ok(Self {
            attacks: attacks.parse().map_err(|_| not_one())?,
            blows: blows.parse().map_err(|_| not_one())?,
            surprises: surprises.parse().map_err(|_| not_one())?,
            cpu: cpu.ok_or_else(not_one)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_is_one_that_exists() {
        assert!(ATTACKS.iter().all(|name| attack(name).is_some()));
    }

    #[test]
    fn what_the_hostile_peer_reports_is_understood() {
        let report =
            Report { attacks: 2, blows: 7, surprises: 1, cpu: Duration::from_millis(1500) };
        assert_eq!(report.to_string().parse(), Ok(report));
        for text in ["", "1 2 3", "1 2 3 -4", "1 2 3 4 5", "a 2 3 4"] {
            assert!(text.parse::<Report>().is_err(), "{text}");
        }
    }
}
