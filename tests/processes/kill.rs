//! SIGKILL at any point of a transfer.

use std::thread;

use kvx_workers::content::POISON;
use kvx_workers::line::Failure;
use kvx_workers::over_each_transport;
use kvx_workers::random::{Random, from_env};
use kvx_workers::service::MOMENTS;
use kvx_workers::session::{Session, prefill};
use kvx_workers::worker::Worker;

/// Pairs of survivors that work at the same time.
const PAIRS: u64 = 4;
/// Microseconds between two layers of a prefill.
const PACE: u64 = 2000;
/// The deadline of a transfer whose other side will be killed, in milliseconds.
const SHORT: u64 = 400;

over_each_transport! {
    a_process_killed_at_any_point_costs_the_other_one_error_and_a_third_nothing,
}

/// `KVX_KILL_POINTS` (200, 40) and `KVX_KILL_SEED` vary it; a failure names both for that one point.
fn a_process_killed_at_any_point_costs_the_other_one_error_and_a_third_nothing(over: &str) {
    let seed = from_env("KVX_KILL_SEED", 1);
    // What the transports do alike, TCP shows.
    let points = from_env("KVX_KILL_POINTS", if over == "transports=tcp" { 200 } else { 40 });
    let first = from_env("KVX_KILL_FIRST", 0);
    let failed: u64 = thread::scope(|scope| {
        let pairs: Vec<_> = (0..PAIRS)
            .map(|number| {
                scope.spawn(move || {
                    let mut pair = Pair::new(number, over);
                    let own = (first..first + points).filter(|point| point % PAIRS == number);
                    own.map(|point| u64::from(pair.lose_one(seed, point))).sum::<u64>()
                })
            })
            .collect();
        pairs.into_iter().map(|pair| pair.join().unwrap()).sum()
    });
    // The last moments come after everything has landed.
    assert!(failed >= points / 2, "only {failed} of {points} transfers failed");
}

/// A prefill and a decode process that survive every point.
struct Pair {
    number: u64,
    /// Of every engine.
    options: String,
    prefill: Worker,
    decode: Worker,
    room: u64,
}

impl Pair {
    fn new(number: u64, over: &str) -> Self {
        let options = format!("{over} deadline=2000");
        let prefill = prefill(&format!("prefill-{number}"), number, &options);
        let mut decode = Worker::start(&format!("decode-{number}"), &options);
        decode.must("pool name=kv");
        Self { number, options, prefill, decode, room: number << 32 }
    }

    /// Kills the other side of one transfer. Whether the transfer failed.
    fn lose_one(&mut self, seed: u64, point: u64) -> bool {
        let again = format!("KVX_KILL_SEED={seed} KVX_KILL_FIRST={point} KVX_KILL_POINTS=1");
        let _told = OnPanic(again);
        let mut random = Random::new(seed ^ point << 32);
        // Half of them come back under a name that was known and died.
        let name = match random.below(2) {
            0 => format!("victim-{seed}-{point}"),
            _ => format!("victim-of-{}", self.number),
        };
        let fate = Fate { at: random.below(MOMENTS), after: random.below(2) * random.below(PACE) };
        let failed = if random.below(2) == 0 {
            self.lose_prefill(&name, point, &fate, &mut random)
        } else {
            self.lose_decode(&name, &fate, &mut random)
        };
        self.serve(&mut random);
        failed
    }

    fn lose_prefill(&mut self, name: &str, seed: u64, fate: &Fate, random: &mut Random) -> bool {
        let mut victim = prefill(name, seed, &self.options);
        let session = self.session(seed, random);
        victim.tell(&format!("{} {}", session.send(PACE, SHORT), fate.fields()));
        self.decode.must(&format!("fill name=kv byte={POISON}"));
        self.decode.must(&session.receive(&victim, "kv", SHORT));
        let outcome = self.decode.ask("join job=it");
        victim.wait_gone();
        match outcome {
            Ok(received) => session.expect_received(&received, &mut self.decode, "kv"),
            Err(failure) if failure.operation == "Connect" => {
                let known = [victim.id.as_str(), &victim.address.to_string()];
                assert!(failure.peer.as_deref().is_some_and(|peer| known.contains(&peer)));
                assert!(failure.is_one_of(&["Deadline", "PeerLost", "Io{"]), "{failure:?}");
                return true;
            }
            Err(failure) => {
                expect(&failure, "Receive", &victim);
                return true;
            }
        }
        false
    }

    fn lose_decode(&mut self, name: &str, fate: &Fate, random: &mut Random) -> bool {
        let mut victim = Worker::start(name, &self.options);
        victim.must("pool name=kv");
        let session = self.session(self.number, random);
        self.prefill.must(&session.send(PACE, SHORT));
        victim.tell(&format!("{} {}", session.receive(&self.prefill, "kv", SHORT), fate.fields()));
        let outcome = self.prefill.ask("join job=it");
        victim.wait_gone();
        match outcome {
            Ok(sent) => session.expect_sent(&sent),
            // Killed before it was heard of, or on a busy machine heard of too late.
            Err(failure) if failure.peer.is_none() => {
                assert_eq!(failure.operation, "Send");
                assert!(failure.is_one_of(&["Deadline"]), "{failure:?}");
                return true;
            }
            Err(failure) => {
                expect(&failure, "Send", &victim);
                return true;
            }
        }
        false
    }

    /// The survivors go on.
    fn serve(&mut self, random: &mut Random) {
        self.session(self.number, random).carry_out(&mut self.prefill, &mut self.decode, "kv");
    }

    fn session(&mut self, seed: u64, random: &mut Random) -> Session {
        self.room += 1;
        Session::new(self.room, seed, random)
    }
}

/// Names the peer, what was attempted, and what a killed process looks like: it says nothing any
/// more, or had given up itself the moment before.
fn expect(failure: &Failure, operation: &str, victim: &Worker) {
    assert_eq!(failure.operation, operation, "{failure:?}");
    assert_eq!(failure.peer.as_deref(), Some(victim.id.as_str()), "{failure:?}");
    assert!(failure.is_one_of(&["Deadline", "PeerLost", "Aborted"]), "{failure:?}");
}

/// When the victim dies.
struct Fate {
    /// The number of the moment.
    at: u64,
    /// Microseconds after it.
    after: u64,
}

impl Fate {
    fn fields(&self) -> String {
        format!("die_at={} die_after={}", self.at, self.after)
    }
}

/// Says how to repeat what panicked.
struct OnPanic(String);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("repeat with {}", self.0);
        }
    }
}
