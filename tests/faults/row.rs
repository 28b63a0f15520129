//! A row of the suite: a fault, what must hold, and what was seen.

use std::fmt;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use kvx_workers::vitals::Vitals;

use crate::stage::{PATIENCE, Served, Stage, seed};

/// What goes wrong, and what the victim may have lost or gained by it once it is over. Beyond what
/// is said here a row's victim is alive (a panic or abort ends it), its sealed memory is as it was,
/// its neighbour was served without an error and with every byte right, and is served still.
pub(crate) struct Row {
    /// What goes wrong.
    pub(crate) fault: &'static str,
    /// What must hold, in the words of ARCHITECTURE's promises.
    pub(crate) holds: &'static str,
    /// What differs from the rule.
    pub(crate) allows: Allows,
}

/// Exceptions of a row.
#[derive(Clone, Debug)]
pub(crate) struct Allows {
    /// The neighbour's operations may fail while the fault lasts, by their deadline and with an
    /// error: the fault is its own too.
    pub(crate) errors: bool,
    /// Memory that may stay in use. Allocators keep what they were once given.
    pub(crate) resident_kib: u64,
    /// Descriptors and threads that may stay.
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// Memory that the fault was allowed to write: name, first byte and end, canaries counted.
    pub(crate) written: Option<(&'static str, u64, u64)>,
}

impl Default for Allows {
    fn default() -> Self {
        Self { errors: false, resident_kib: 16 << 10, descriptors: 0, threads: 0, written: None }
    }
}

impl Row {
    /// A row without exceptions.
    pub(crate) fn new(fault: &'static str, holds: &'static str) -> Self {
        Self { fault, holds, allows: Allows::default() }
    }

    pub(crate) fn allows(mut self, set: impl FnOnce(&mut Allows)) -> Self {
        set(&mut self.allows);
        self
    }

    /// Plays the row: `inject` makes the fault happen, takes it back, and says how often it did.
    /// While it lasts, [`Stage::wait_served`] shows that the neighbour is served.
    pub(crate) fn play(self, stage: &mut Stage, inject: impl FnOnce(&mut Stage) -> u64) {
        let (vitals, served) = (stage.vitals_at_rest(), stage.served());
        let _told = OnPanic(self.fault);
        let faults = inject(stage);
        assert!(faults > 0, "{}: nothing happened", self.fault);
        let meanwhile = stage.served();
        let was_served = self.allows.errors || meanwhile.rounds > served.rounds;
        assert!(was_served, "{}: the neighbour was not served meanwhile", self.fault);
        stage.wait_served(1);
        let after = stage.served();
        if !self.allows.errors {
            let failed = after.errors - served.errors;
            assert_eq!(failed, 0, "{}: {}", self.fault, stage.last_error());
        }
        let sealed = stage.victim.must(&match self.allows.written {
            Some((name, from, to)) => format!("check-sealed except={name} from={from} to={to}"),
            None => "check-sealed".to_owned(),
        });
        assert_eq!(sealed.verb, "ok", "{}: {sealed:?}", self.fault);
        let seen = Seen {
            row: &self,
            faults,
            served: Served {
                rounds: meanwhile.rounds - served.rounds,
                bytes: meanwhile.bytes - served.bytes,
                errors: after.errors - served.errors,
            },
            before: vitals,
            after: self.settled(stage, vitals),
        };
        // Not by a macro: the harness would keep the line of a test that passes to itself.
        let mut log = std::io::stderr().lock();
        writeln!(log, "{seen}").unwrap();
    }

    /// What the victim holds once it has let go of what the fault left: connections end when the
    /// engine comes to it.
    fn settled(&self, stage: &Stage, before: Vitals) -> Vitals {
        let begin = Instant::now();
        loop {
            let now = stage.vitals();
            let excess = [
                ("descriptors", now.descriptors, before.descriptors + self.allows.descriptors),
                ("threads", now.threads, before.threads + self.allows.threads),
                // Each lane has two rings, and the descriptors of a socket and one of them.
                ("rings", now.rings, before.rings + self.allows.descriptors),
                ("KiB", now.resident_kib, before.resident_kib + self.allows.resident_kib),
            ];
            let Some((what, has, limit)) = excess.into_iter().find(|(_, has, limit)| has > limit)
            else {
                return now;
            };
            assert!(begin.elapsed() < PATIENCE, "{}: {has} {what}, not {limit}", self.fault);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What a row's line says.
struct Seen<'a> {
    row: &'a Row,
    faults: u64,
    /// The neighbour, while the fault lasted.
    served: Served,
    before: Vitals,
    after: Vitals,
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, faults, served, before, after } = self;
        let change = |after: u64, before: u64| after as i64 - before as i64;
        write!(
            f,
            "fault | {:<54} | {:<56} | {faults:>5} x | neighbour {:>4} rounds {:>8.1} MiB {:>2} errors | \
             victim {:+6} KiB {:+} descriptors {:+} threads",
            row.fault,
            row.holds,
            served.rounds,
            served.bytes as f64 / f64::from(1 << 20),
            served.errors,
            change(after.resident_kib, before.resident_kib),
            change(after.descriptors, before.descriptors),
            change(after.threads, before.threads),
        )
    }
}

/// Names the row that panicked.
struct OnPanic(&'static str);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let seed = seed();
            eprintln!("fault | {} | FAILED; repeat with KVX_FAULT_SEED={seed}", self.0);
        }
    }
}
