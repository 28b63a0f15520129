//! `cargo xtask serving`: vLLM and SGLang, unmodified, prefill and decode on this machine's CPU, with
//! kvx in the place of NIXL and Mooncake.
//!
//! What is done here is to install, run and count. The servers are started, asked and looked at by
//! `tests/serving/kvx_serving`, in the interpreter that has the serving engine.

mod install;
mod rows;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cargo_test::run_lines;
use crate::report::{Report, Suite};
use crate::test::{target_directory, workspace_root};
use rows::Rows;

pub(crate) const HELP: &str = "\
  serving [SCENARIO...] [--engine kvx|real] [--list]
          Install vLLM and SGLang (14 GB in $XDG_CACHE_HOME/kvx/serving, once), make a tiny model,
          and see that prefill and decode servers with kvx between them answer as one server that
          does both; all scenarios, or those named (8 to 30 minutes for all). `--engine real` plays
          them with NIXL and Mooncake themselves, to tell whose a failure is.
          `--list` shows the scenarios.
";

/// The scenarios, and the environment that each is played in. In this order: each environment has
/// its reference asked once.
const SCENARIOS: [(&str, Environment); 5] = [
    ("vllm-nixl", Environment::Vllm),
    ("vllm-mooncake", Environment::Vllm),
    ("sglang-mooncake", Environment::Sglang),
    ("sglang-mooncake-tp2", Environment::Sglang),
    ("sglang-nixl", Environment::Sglang),
];

/// What one environment may take, in seconds, with all its scenarios. Every wait of its own ends
/// before; this is for what nobody thought of.
const LIMIT_S: &str = "3600";

/// A Python environment with a serving engine in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Environment {
    Vllm,
    Sglang,
}

impl Environment {
    const ALL: [Self; 2] = [Self::Vllm, Self::Sglang];

    /// Of its folder, and of its requirements in `tests/serving/requirements`.
    fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
        }
    }
}

/// Runs the chore.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let wish = match Wish::parse(arguments) {
        Ok(wish) => wish,
        Err(reason) => {
            eprint!("{reason}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if wish.list {
        wish.scenarios.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    for environment in Environment::ALL {
        report.extend(play(environment, &wish));
    }
    print!("{}", report.summary());
    if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    scenarios: Vec<(&'static str, Environment)>,
    /// Whether the engines that kvx replaces are played with, instead of kvx.
    real: bool,
    list: bool,
}

impl Wish {
    fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut wish = Self { scenarios: Vec::new(), real: false, list: false };
        let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
        let mut names = Vec::new();
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--list" => wish.list = true,
                "--engine" => {
                    wish.real = match arguments.next().as_deref() {
                        Some("kvx") => false,
                        Some("real") => true,
                        _ => return Err("--engine takes kvx or real".to_owned()),
                    }
                }
                name if SCENARIOS.iter().any(|(known, _)| *known == name) => {
                    names.push(name.to_owned());
                }
                other => return Err(format!("there is no scenario {other}")),
            }
        }
        let chosen = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
        wish.scenarios.extend(SCENARIOS.iter().filter(|(name, _)| chosen(name)));
        Ok(wish)
    }
}

/// Plays the scenarios of an environment: a suite for each, and one for what goes before.
fn play(environment: Environment, wish: &Wish) -> Vec<Suite> {
    let scenarios = wish.scenarios.iter().filter(|(_, its)| *its == environment);
    let scenarios: Vec<_> = scenarios.map(|(name, _)| *name).collect();
    if scenarios.is_empty() {
        return Vec::new();
    }
    let mut suite = Suite::new(&format!("{}, installed", environment.name()));
    let installed = match prepare(environment, wish.real) {
        Ok(installed) => installed,
        Err(reason) => {
            suite.fail("all scenarios", &reason);
            return vec![suite];
        }
    };
    suite.passed += 1;
    if !wish.real {
        tensors(&mut suite, &installed.python);
    }
    let mut suites = vec![suite];
    suites.extend(drive(&installed, environment, &scenarios, wish.real));
    suites
}

/// What the scenarios of an environment are played with.
struct Installed {
    python: PathBuf,
    model: PathBuf,
}

/// Installs what is not there yet.
fn prepare(environment: Environment, real: bool) -> Result<Installed, String> {
    let python = install::environment(environment.name())?;
    if real {
        install::libraries_of_mooncake()?;
    } else {
        install::kvx(&python)?;
    }
    let model = install::model(&python)?;
    Ok(Installed { python, model })
}

/// PyTorch is here, which the package's own tests do without.
fn tensors(suite: &mut Suite, python: &Path) {
    const TEST: &str = "examples/python/tensors.py";
    println!("\n== serving: {TEST}");
    let mut example = Command::new(python);
    match example.arg(workspace_root().join(TEST)).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => suite.passed += 1,
        Ok(status) => suite.fail(TEST, &status.to_string()),
        Err(error) => suite.fail(TEST, &format!("does not start: {error}")),
    }
}

/// Runs the program that plays them, and counts what it prints.
fn drive(
    installed: &Installed,
    environment: Environment,
    scenarios: &[&str],
    real: bool,
) -> Vec<Suite> {
    let logs = target_directory().join("serving/logs");
    println!("\n== serving: {} (logs: {})", scenarios.join(", "), logs.display());
    let mut rows = Rows::new(environment.name());
    let command = driver(installed, scenarios, real, &logs);
    let status = run_lines(command, |line| rows.line(line));
    let ended = match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("the program that plays it ended with {status}")),
        Err(error) => Some(format!("the program that plays it does not start: {error}")),
    };
    rows.finish(ended)
}

fn driver(installed: &Installed, scenarios: &[&str], real: bool, logs: &Path) -> Command {
    let (tests, examples) = (workspace_root().join("tests/serving"), examples());
    // Should this program be killed, that one is too, and in its namespace all processes with it.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .args(namespaces())
        // In the foreground, so that Ctrl-C reaches the program.
        .args(["timeout", "--foreground", "--kill-after=120", LIMIT_S])
        .arg(&installed.python)
        .args(["-m", "kvx_serving"])
        .args(scenarios)
        .args(["--engine", if real { "real" } else { "kvx" }])
        .arg("--examples")
        .arg(&examples)
        .arg("--model")
        .arg(&installed.model)
        .arg("--logs")
        .arg(logs)
        .env("PYTHONPATH", std::env::join_paths([tests, examples]).unwrap_or_default())
        .stdin(Stdio::null());
    command
}

/// The command that gives another command processes and a network of its own, where that is
/// allowed: to root, or to every user. Empty where it is not.
fn namespaces() -> &'static [&'static str] {
    const AS_ROOT: &[&str] =
        &["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    const AS_USER: &[&str] =
        &["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let works = |command: &[&str]| {
        let mut test = Command::new(command[0]);
        test.args(&command[1..]).arg("true").stdin(Stdio::null()).stderr(Stdio::null());
        test.status().is_ok_and(|status| status.success())
    };
    [AS_ROOT, AS_USER].into_iter().find(|command| works(command)).unwrap_or_else(|| {
        println!("no namespaces: servers share the network and the processes of this machine");
        &[]
    })
}

/// The scripts that start servers, which are examples too.
fn examples() -> PathBuf {
    workspace_root().join("examples/serving")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Wish, String> {
        let arguments: Vec<_> = arguments.split_whitespace().map(OsString::from).collect();
        Wish::parse(&arguments)
    }

    #[test]
    fn without_names_all_scenarios_are_played_with_kvx() {
        let all = Wish { scenarios: SCENARIOS.to_vec(), real: false, list: false };
        assert_eq!(parse(""), Ok(all));
    }

    #[test]
    fn named_scenarios_are_played_in_the_order_of_the_list() {
        let two = vec![("vllm-nixl", Environment::Vllm), ("sglang-nixl", Environment::Sglang)];
        let wish = Wish { scenarios: two, real: true, list: false };
        assert_eq!(parse("sglang-nixl --engine real vllm-nixl"), Ok(wish));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for arguments in ["--engine", "--engine other", "vllm", "--speed"] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }
}
