//! Many runs on all cores: which there are, when there are enough, and what is said when one
//! fails.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use kvx_core::testing::{Report, Scenario, Trace, simulate};

/// Runs that CI needs: what they do is told by their seeds, so that every kind of fault fires often
/// enough on every machine.
const RUNS: u64 = 2700;
/// How long CI goes on with further seeds when it is done with those, in seconds since the start.
const SECONDS: u64 = 45;
/// Engines of a large run at least.
const LARGE: usize = 200;
/// Every so many runs there is a large one.
const LARGE_EVERY: u64 = 1000;
/// Between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// A run that takes longer hangs.
const HANGS: Duration = Duration::from_secs(600);

/// Which runs there are.
pub(crate) struct Campaign {
    first_seed: u64,
    engines: Option<usize>,
    /// Whether there are large runs, of which the first is one.
    has_large: bool,
    /// Runs in any case.
    least: u64,
    /// Beyond those, more until then.
    time: Duration,
    jobs: usize,
}

/// What all runs came to.
#[derive(Default)]
pub(crate) struct Total {
    pub(crate) runs: u64,
    pub(crate) report: Report,
    /// Wall time, and that of the run with the most engines, with its report.
    pub(crate) wall: Duration,
    pub(crate) largest: (Duration, Report),
}

enum Told {
    Begun(usize, Scenario),
    Done(usize, Duration, Box<Report>),
    Failed(Scenario),
}

impl Campaign {
    /// As the environment says.
    pub(crate) fn from_environment() -> Self {
        let setting = |name: &str| {
            let value = std::env::var(name).ok();
            value.map(|value| value.parse::<u64>().unwrap_or_else(|_| panic!("{name}={value}")))
        };
        let (seed, runs) = (setting("KVX_SIM_SEED"), setting("KVX_SIM_RUNS"));
        let seconds = setting("KVX_SIM_SECONDS");
        let engines = setting("KVX_SIM_ENGINES").map(|engines| engines as usize);
        let chosen = seed.is_some() || engines.is_some();
        let cores = thread::available_parallelism().map_or(1, |count| count.get());
        Self {
            first_seed: seed.unwrap_or(0),
            engines,
            has_large: engines.is_none() && runs.is_none() && (seed.is_none() || seconds.is_some()),
            least: runs.unwrap_or(if chosen { 1 } else { RUNS }),
            time: match (seconds, chosen || runs.is_some()) {
                (Some(seconds), _) => Duration::from_secs(seconds),
                (None, true) => Duration::ZERO,
                (None, false) => Duration::from_secs(SECONDS),
            },
            jobs: setting("KVX_SIM_JOBS").map_or(cores, |jobs| jobs as usize).max(1),
        }
    }

    /// Whether it has all the runs that CI needs.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_large && self.least >= RUNS
    }

    /// Runs them all. The first that fails is run again, with a trace, and ends it.
    pub(crate) fn run(&self) -> Total {
        let begun = Instant::now();
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let outcome = thread::scope(|scope| {
            for job in 0..self.jobs {
                let (next, stop, tell) = (&next, &stop, tell.clone());
                scope.spawn(move || self.work(job, begun, next, stop, &tell));
            }
            drop(tell);
            let outcome = self.follow(begun, &told);
            stop.store(true, Ordering::Relaxed);
            outcome
        });
        match outcome {
            Ok(mut total) => {
                total.wall = begun.elapsed();
                total
            }
            Err(scenario) => show(scenario),
        }
    }

    /// The run of this number; `None`: there are enough.
    fn scenario(&self, number: u64, begun: Instant) -> Option<Scenario> {
        if number >= self.least && begun.elapsed() >= self.time {
            return None;
        }
        let large = self.has_large && number.is_multiple_of(LARGE_EVERY);
        let engines = large.then(|| LARGE + (number / LARGE_EVERY * 50 % 150) as usize);
        Some(Scenario { seed: self.first_seed + number, engines: engines.or(self.engines) })
    }

    fn work(
        &self,
        job: usize,
        begun: Instant,
        next: &AtomicU64,
        stop: &AtomicBool,
        tell: &Sender<Told>,
    ) {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = self.scenario(number, begun) else { return };
            let _ = tell.send(Told::Begun(job, scenario));
            let start = Instant::now();
            let ended = match panic::catch_unwind(|| simulate(scenario, None)) {
                Ok(report) => Told::Done(job, start.elapsed(), Box::new(report)),
                Err(_) => Told::Failed(scenario),
            };
            let _ = tell.send(ended);
        }
    }

    /// Adds up what the workers tell, and says now and then how far they are.
    fn follow(&self, begun: Instant, told: &Receiver<Told>) -> Result<Total, Scenario> {
        let mut total = Total::default();
        let mut running: BTreeMap<usize, (Instant, Scenario)> = BTreeMap::new();
        let mut said = Instant::now();
        loop {
            match told.recv_timeout(PROGRESS) {
                Ok(Told::Begun(job, scenario)) => {
                    running.insert(job, (Instant::now(), scenario));
                }
                Ok(Told::Done(job, wall, report)) => {
                    running.remove(&job);
                    total.runs += 1;
                    if report.engines > total.largest.1.engines {
                        total.largest = (wall, (*report).clone());
                    }
                    total.report.merge(*report);
                }
                Ok(Told::Failed(scenario)) => return Err(scenario),
                Err(RecvTimeoutError::Disconnected) => return Ok(total),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let hangs = running.values().find(|(since, _)| since.elapsed() > HANGS);
            if let Some((_, scenario)) = hangs {
                println!("{} hangs", replay(*scenario));
                // The worker would be waited for, for ever.
                std::process::exit(1);
            }
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                let Total { runs, report, .. } = &total;
                println!(
                    "{:5} s: {runs} runs, {} engines, {} transfers, {} faults",
                    begun.elapsed().as_secs(),
                    report.engines,
                    report.transfers,
                    report.faults.values().sum::<u64>()
                );
            }
        }
    }
}

/// Runs a seed that failed again, with a trace, whose last lines are shown.
fn show(scenario: Scenario) -> ! {
    let trace = Trace::default();
    let again = panic::catch_unwind(AssertUnwindSafe(|| simulate(scenario, Some(&trace))));
    trace.lines().iter().for_each(|line| println!("{line}"));
    println!("a promise is broken; this runs it again:\n    {}", replay(scenario));
    match again {
        Ok(_) => panic!("{scenario} failed once and then not: a run is not reproducible"),
        Err(cause) => panic::resume_unwind(cause),
    }
}

fn replay(scenario: Scenario) -> String {
    format!("{scenario} cargo test -p kvx-core --test simulation promises_hold -- --nocapture")
}
