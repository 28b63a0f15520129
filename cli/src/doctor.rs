//! `kvx doctor`: what kvx will do on this machine, and what to change.
//!
//! It looks and tries out; it changes nothing. What a finding says is decided from text that is
//! handed in ([`files`]), so that tests decide it for machines that are not there.

mod cgroup;
mod configuration;
mod cpus;
mod engine;
mod files;
mod finding;
mod huge_pages;
mod limits;
mod machine_memory;
#[cfg(test)]
mod machines;
mod namespaces;
mod numbers;
mod privileges;
mod probe;
mod process_memory;
mod report;
mod shared_memory;
mod status;
mod transports;

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

pub(crate) use probe::{ProbeArguments, probe};

use self::configuration::Configuration;
use self::files::{Files, System};
use self::finding::{Finding, Section, State};
use self::status::Status;

/// Says what kvx will do on this machine, and what to change
///
/// Prints every setting with its source, and findings about the machine. Whatever is not ok comes
/// with what to do about it: a note is worth knowing, with a warning kvx is slower or reaches
/// less, with a problem it does not work.
///
/// Exit status 0: there is no problem; 1: there is one; 2: bad options.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the doctor has found.
#[derive(Debug)]
struct Diagnosis {
    /// The machine and the system on it, as far as they can be told.
    host: String,
    configuration: Configuration,
    sections: Vec<Section>,
}

/// Looks, and tells.
pub(crate) fn run(options: &Options) -> ExitCode {
    let diagnosis = diagnose(&System);
    let text = if options.json { report::json(&diagnosis) } else { report::text(&diagnosis) };
    // A reader that left (`kvx doctor | head`) still gets the exit status.
    let _ = std::io::stdout().write_all(text.as_bytes());
    match diagnosis.count(State::Problem) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn diagnose(files: &dyn Files) -> Diagnosis {
    let configuration = Configuration::from_env();
    let (started, engine) = engine::start(&configuration);
    let lanes = started.as_ref().map(|started| started.lanes);
    let status = Status::read(files);
    let shares_memory = transports::is_allowed("shm", &configuration);
    let mut sections = vec![
        Section::new("Configuration", configuration.findings()),
        Section::new("Engine", vec![engine]),
    ];
    sections.extend(transports::sections(files, &configuration));
    sections.extend([
        Section::new("Limits", limits::findings(files, &status, lanes, shares_memory)),
        Section::new("Privileges", privileges::findings(files, &status)),
        Section::new("Same host", same_host(files, &status)),
        Section::new("Memory", memory(files)),
        Section::new("CPUs", cpus::findings(files, &status, configuration.io_threads())),
    ]);
    Diagnosis { host: host(files), configuration, sections }
}

/// What processes of one host can have in common.
fn same_host(files: &dyn Files, status: &Status) -> Vec<Finding> {
    let mut findings = namespaces::findings(files);
    findings.extend(process_memory::findings(files, status));
    findings.extend(shared_memory::findings(files));
    findings
}

fn memory(files: &dyn Files) -> Vec<Finding> {
    let mut findings = machine_memory::findings(files);
    findings.extend(huge_pages::findings(files));
    findings
}

fn host(files: &dyn Files) -> String {
    let read = |path| files.read(path).map_or("unknown".to_owned(), |text| text.trim().to_owned());
    let name = read("/proc/sys/kernel/hostname");
    let release = read("/proc/sys/kernel/osrelease");
    format!("{name}, Linux {release}, {}", std::env::consts::ARCH)
}

impl Diagnosis {
    /// Findings in this state.
    fn count(&self, state: State) -> usize {
        let findings = self.sections.iter().flat_map(|section| &section.findings);
        findings.filter(|finding| finding.state() == state).count()
    }
}
