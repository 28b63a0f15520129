//! A peer that speaks kvx's protocol and breaks its rules: for tests, for benchmarks, and for
//! operators who want to see what their own deployment bears. Not a peer that moves anything.
//!
//! It holds the auth key, or the victim's metadata where that lets in, for the strongest attacker is
//! an insider: its handshakes are kvx-core's own, and what follows is forged byte by byte ([`forge`]). [`attacks`] lists what it can do;
//! [`run`] does it and says what the victim answered. Whether the victim's memory is whole and its
//! neighbours are served shows at the victim, not here.
//!
//! ```no_run
//! use std::time::Duration;
//! use kvx_hostile::{Limits, Target, attack, run};
//!
//! let target = Target::new("127.0.0.1:8998".parse()?, b"the deployment's auth key".to_vec());
//! let flood = attack("heartbeat-flood").ok_or("no such attack")?;
//! let outcome = run(flood, &target, 1, Limits::lasting(Duration::from_secs(10)).per_second(500));
//! assert!(outcome.is_as_specified(), "{outcome}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod attacks;
mod clock;
mod connection;
pub mod forge;
mod limits;
mod outcome;
mod random;
mod scene;
mod target;

use connection::Gone;
use limits::Pace;
use scene::Scene;

pub use limits::Limits;
pub use outcome::{Answer, Outcome};
pub use target::{Ask, Other, Target, User};

/// One way to break the rules.
#[derive(Clone, Copy)]
pub struct Attack {
    /// How it is called.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
    /// What must hold, besides what always must: the victim lives, memory that was not given away
    /// is untouched, and its other peers are served.
    pub must: &'static str,
    run: fn(&mut Scene<'_>) -> connection::Result<()>,
}

impl std::fmt::Debug for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attack").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every attack, in the order of what it abuses.
pub fn attacks() -> impl Iterator<Item = &'static Attack> {
    attacks::ALL.iter().copied().flatten()
}

/// The attack of this name.
pub fn attack(name: &str) -> Option<&'static Attack> {
    attacks().find(|attack| attack.name == name)
}

/// Does an attack, once or until its time is over, and says what came of it. The seed decides
/// what is random in it. Blocks; ends soon after its time, whatever the victim does.
pub fn run(attack: &Attack, target: &Target, seed: u64, limits: Limits) -> Outcome {
    let mut scene = Scene::new(target, seed, Pace::new(limits));
    loop {
        scene.outcome.rounds += 1;
        match (attack.run)(&mut scene) {
            Ok(()) => {}
            Err(Gone::Lacks(what)) => {
                scene.outcome.lacks = Some(what);
                break;
            }
            Err(gone) => {
                let round = scene.outcome.rounds;
                scene.outcome.surprise(format!("round {round} broke off: {gone}"));
                break;
            }
        }
        if !scene.pace.goes_on() {
            break;
        }
    }
    scene.outcome.blows = scene.pace.blows();
    scene.outcome
}
