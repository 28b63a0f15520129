//! `kvx doctor` as a person runs it: its exit status, what it finds, and that it says what to do.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like the test itself"
)]

mod command;

use std::net::TcpListener;
use std::process::Command;

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

use command::{kvx, outcome};

/// What the doctor looks at on every machine.
const NAMES: [&str; 29] = [
    "settings",
    "start",
    "shm",
    "tcp",
    "tcp_rmem",
    "tcp_wmem",
    "rmem_max",
    "wmem_max",
    "nofile",
    "memlock",
    "CAP_IPC_LOCK",
    "CAP_SYS_PTRACE",
    "pid namespace",
    "ipc namespace",
    "net namespace",
    "user namespace",
    "boot id",
    "yama",
    "process_vm_readv",
    "pidfd_getfd",
    "shared memory",
    "/dev/shm",
    "memfd",
    "memory",
    "memory limit",
    "THP",
    "huge page pools",
    "affinity",
    "CPU quota",
];

/// `kvx doctor` with these arguments.
fn doctor(arguments: &[&str]) -> Command {
    kvx("doctor", arguments)
}

/// `kvx doctor --json`, started by a shell that does this first.
fn doctor_after(shell: &str) -> Command {
    let direct = doctor(&["--json"]);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{shell}; exec \"$0\" \"$@\""));
    command.arg(direct.get_program()).args(direct.get_args());
    for (name, value) in direct.get_envs() {
        assert_eq!(value, None, "options are taken away");
        command.env_remove(name);
    }
    command
}

/// Exit status and result of `kvx doctor --json`, which says nothing else, looks at everything, and
/// has advice exactly where something is not ok.
fn diagnosis(command: &mut Command) -> (i32, Value) {
    let (code, json, stderr) = outcome(command);
    assert_eq!(stderr, "");
    assert_eq!(json.lines().count(), 1, "{json}");
    let diagnosis: Value = serde_json::from_str(&json).unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    for name in NAMES {
        assert!(findings.iter().any(|finding| finding["name"] == name), "{name}: {json}");
    }
    for finding in findings {
        let advice = finding["advice"].as_str();
        match finding["state"].as_str().unwrap() {
            "ok" => assert_eq!(advice, None, "{finding}"),
            "note" | "warning" | "problem" => assert!(advice.unwrap().ends_with('.'), "{finding}"),
            _ => panic!("{finding}"),
        }
        assert_ne!(finding["found"], "", "{finding}");
    }
    let is_problem = |finding: &&Value| finding["state"] == "problem";
    let problems = findings.iter().filter(is_problem).count();
    assert_eq!(diagnosis["problems"], problems);
    assert_eq!(code, i32::from(problems > 0), "{json}");
    (code, diagnosis)
}

/// State, what was found, and advice of the first finding of this name.
fn finding(diagnosis: &Value, name: &str) -> (String, String, String) {
    let findings = diagnosis["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["name"] == name).unwrap();
    let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("found"), text("advice"))
}

/// Value and source of a setting.
fn setting(diagnosis: &Value, name: &str) -> (String, String) {
    let settings = diagnosis["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["name"] == name).unwrap();
    let text = |field: &str| setting[field].as_str().unwrap().to_owned();
    (text("value"), text("source"))
}

#[test]
fn a_person_reads_every_setting_and_what_to_do_about_what_is_not_ok() {
    let (code, text, stderr) = outcome(doctor(&[]).env("KVX_LANES", "3"));
    assert_eq!((code, stderr.as_str()), (0, ""), "{text}");
    let set = text.lines().filter(|line| line.starts_with("  KVX_"));
    assert_eq!(set.count(), kvx::Config::default().settings().len(), "{text}");
    let lanes = text.lines().find(|line| line.starts_with("  KVX_LANES")).unwrap();
    assert_eq!(lanes.split_whitespace().collect::<Vec<_>>(), ["KVX_LANES", "environment", "3"]);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let advice = text.lines().filter(|line| line.trim_start().starts_with("-> ")).count();
    let state = |line: &&str| {
        ["note ", "warning ", "problem "].iter().any(|state| line.trim_start().starts_with(state))
    };
    assert_eq!(text.lines().filter(state).count(), advice, "{text}");
    assert!(text.lines().last().unwrap().starts_with("No problem; "), "{text}");
}

#[test]
fn the_machine_that_runs_the_tests_runs_kvx() {
    let (code, diagnosis) = diagnosis(doctor(&["--json"]).env("KVX_DEADLINE", "3"));
    assert_eq!(code, 0, "{diagnosis}");
    let options = kvx::Config::default().settings();
    let shown = diagnosis["settings"].as_array().unwrap().iter();
    assert!(
        shown
            .map(|set| set["variable"].as_str().unwrap())
            .eq(options.iter().map(|set| set.variable))
    );
    assert_eq!(setting(&diagnosis, "deadline"), ("3".to_owned(), "environment".to_owned()));
    assert_eq!(setting(&diagnosis, "bind"), ("127.0.0.1:0".to_owned(), "default".to_owned()));
    assert_eq!(finding(&diagnosis, "memfd").0, "ok");
    assert!(finding(&diagnosis, "start").1.contains("an engine starts on 127.0.0.1:"));
    // Tried out, whatever the outcome.
    let (_, reading, _) = finding(&diagnosis, "process_vm_readv");
    assert!(reading.starts_with("works") || reading.starts_with("refused: "), "{reading}");
    let (_, taking, _) = finding(&diagnosis, "pidfd_getfd");
    assert!(taking.starts_with("works") || taking.starts_with("refused"), "{taking}");
    let works = reading.starts_with("works") && taking.starts_with("works");
    assert_eq!(finding(&diagnosis, "shared memory").0 == "ok", works, "{diagnosis}");
}

#[test]
fn an_invalid_variable_is_a_problem_and_the_rest_is_still_told() {
    let mut command = doctor(&["--json"]);
    command.env("KVX_LANES", "x").env("KVX_BIND", "nowhere").env("KVX_DEADLINE", "3");
    let (code, diagnosis) = diagnosis(&mut command);
    assert_eq!((code, diagnosis["problems"].as_u64()), (1, Some(3)));
    let text = diagnosis["findings"].to_string();
    for expected in ["KVX_LANES=\\\"x\\\": expected", "KVX_BIND=\\\"nowhere\\\": expected"] {
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(setting(&diagnosis, "lanes"), ("\"x\"".to_owned(), "invalid".to_owned()));
    assert_eq!(setting(&diagnosis, "deadline"), ("3".to_owned(), "environment".to_owned()));
    assert!(finding(&diagnosis, "start").1.starts_with("not tried"));
    for (name, value) in [("KVX_LOG", "kvx=loudly"), ("KVX_NOTIFICATION_WINDOW", "2G")] {
        let (code, text, stderr) = outcome(doctor(&[]).env(name, value));
        assert_eq!((code, stderr.as_str()), (1, ""), "{text}");
        assert!(text.contains("  problem  settings "), "{text}");
        assert!(text.lines().last().unwrap().starts_with("2 problems; "), "{text}");
    }
}

#[test]
fn an_unknown_variable_is_named_and_no_secret_is_shown() {
    let secret = "correct horse battery staple";
    let path = std::env::temp_dir().join(format!("kvx-doctor-key-{}", std::process::id()));
    std::fs::write(&path, secret).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).unwrap();
    for arguments in [&["--json"][..], &[]] {
        let mut command = doctor(arguments);
        command.env("KVX_AUTH_KEY_FILE", &path).env("KVX_AUTH_KEY", secret).env("KVX_BNID", secret);
        let (code, text, stderr) = outcome(&mut command);
        assert_eq!((code, stderr.as_str()), (0, ""), "{text}");
        assert!(text.contains("KVX_AUTH_KEY is not an option of this version"), "{text}");
        assert!(text.contains("did you mean KVX_BIND?"), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(!text.contains(secret) && !text.contains("horse"), "{text}");
    }
    let mut command = doctor(&["--json"]);
    let (_, diagnosis) = diagnosis(command.env("KVX_BNID", "1"));
    assert_eq!(diagnosis["unknown_variables"], serde_json::json!(["KVX_BNID"]));
    assert_eq!(finding(&diagnosis, "unknown variable").0, "warning");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_port_that_is_taken_is_a_problem_that_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, diagnosis) = diagnosis(doctor(&["--json"]).env("KVX_BIND", &address));
    assert_eq!(code, 1);
    let (state, found, advice) = finding(&diagnosis, "start");
    assert_eq!(state, "problem");
    assert!(found.contains(&format!("bind {address}")), "{found}");
    assert!(advice.contains("KVX_BIND"), "{advice}");
}

#[test]
fn low_limits_are_told_with_how_to_raise_them() {
    // The capability makes one of the limits void; the thread's children shall not have it. Who may
    // not take it away does not have it.
    let limited = std::thread::spawn(|| {
        let _ = remove_capability_from_bounding_set(CapabilitySet::IPC_LOCK);
        diagnosis(&mut doctor_after("ulimit -S -n 200; ulimit -l 64"))
    });
    let (code, diagnosis) = limited.join().unwrap();
    assert_eq!(code, 0, "{diagnosis}");
    let (state, found, advice) = finding(&diagnosis, "nofile");
    assert_eq!(state, "warning");
    assert!(found.starts_with("200 open files"), "{found}");
    assert!(advice.contains("ulimit -n "), "{advice}");
    let (state, found, advice) = finding(&diagnosis, "memlock");
    assert_eq!(state, "note");
    assert!(found.starts_with("64.0 KiB may be locked"), "{found}");
    assert!(advice.contains("LimitMEMLOCK=infinity"), "{advice}");
}

#[test]
fn without_descriptors_for_an_engine_that_is_the_problem() {
    let (code, diagnosis) = diagnosis(&mut doctor_after("ulimit -n 6"));
    assert_eq!(code, 1);
    let (state, found, advice) = finding(&diagnosis, "start");
    assert_eq!(state, "problem");
    assert!(found.contains("Too many open files"), "{found}");
    assert!(advice.contains("ulimit -n"), "{advice}");
}

#[test]
fn bad_options_exit_with_2() {
    let (code, stdout, stderr) = outcome(&mut doctor(&["--cure"]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("--cure"), "{stderr}");
}
