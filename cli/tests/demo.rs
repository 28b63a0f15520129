//! `kvx demo` as a person runs it: its exit status, what it prints, and what is left behind.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test itself")]

mod command;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions};

use command::{kvx, outcome};

/// `kvx demo` with these arguments.
fn demo(arguments: &[&str]) -> Command {
    kvx("demo", arguments)
}

/// The values of a field in JSON, in order.
fn values<'a>(json: &'a str, field: &str) -> Vec<&'a str> {
    let name = format!("\"{field}\":");
    let rests = json.split(&name).skip(1);
    rests.map(|rest| rest.split([',', '}']).next().unwrap().trim_matches('"')).collect()
}

/// The digests of a small demo, prefill's and decode's.
fn digests(arguments: &[&str]) -> Vec<String> {
    let small = [&["--json", "--tokens=21", "--pace=0"], arguments].concat();
    let (code, json, stderr) = outcome(&mut demo(&small));
    assert_eq!(code, 0, "{stderr}");
    let decode = values(&json, "decode_digest");
    assert_eq!(values(&json, "prefill_digest"), decode);
    assert!(values(&json, "equal").iter().all(|equal| *equal == "true"), "{json}");
    assert_eq!(values(&json, "bytes_touched_outside"), ["0"]);
    decode.into_iter().map(str::to_owned).collect()
}

/// All distinct, and each of 256 bits.
fn are_distinct(digests: &[String]) -> bool {
    let mut sorted = digests.to_vec();
    sorted.sort();
    sorted.dedup();
    sorted.len() == digests.len() && sorted.iter().all(|digest| digest.len() == 64)
}

#[test]
fn the_cache_of_every_model_arrives_whole() {
    for (model, bytes) in [
        ("qwen3-32b", 64 * 2 * 4 * 128 * 2 * 50),
        ("llama-3.1-70b", 80 * 2 * 4 * 128 * 2 * 50),
        ("deepseek-v3", 61 * 576 * 2 * 50),
    ] {
        let (code, table, stderr) = outcome(&mut demo(&["--model", model, "--tokens", "50"]));
        assert_eq!(code, 0, "{stderr}");
        let equal = ["prefill-0-0 → decode-0", "prefill-0-1 → decode-1", "total"]
            .map(|row| table.lines().any(|line| line.starts_with(row) && line.contains("  equal")));
        assert_eq!(equal, [true; 3], "{table}");
        assert!(table.ends_with("no byte outside of the granted blocks was touched.\n"), "{table}");
        let (_, json, _) = outcome(&mut demo(&["--model", model, "--tokens=50", "--json"]));
        let (pair, all) = (bytes.to_string(), (2 * bytes).to_string());
        assert_eq!(values(&json, "bytes"), [pair.as_str(), &pair, &all], "{json}");
    }
}

#[test]
fn two_prefill_instances_send_prompts_of_their_own() {
    let digests = digests(&["--prefill=2"]);
    assert_eq!(digests.len(), 4);
    assert!(are_distinct(&digests), "{digests:?}");
}

#[test]
fn content_follows_from_the_seed_and_not_from_how_it_moves() {
    let first = digests(&["--seed=7"]);
    assert!(are_distinct(&first), "{first:?}");
    assert_eq!(first, digests(&["--seed=7", "--lanes=1", "--transport=tcp"]));
    assert_eq!(first, digests(&["--seed=7", "--lanes=1", "--transport=shm"]));
    assert!(are_distinct(&[first, digests(&["--seed=8"])].concat()));
}

#[test]
fn the_transport_is_told() {
    let small = ["--tokens=21", "--pace=0"];
    for (transport, expected) in [(None, "shm"), (Some("--transport=tcp"), "tcp")] {
        let options: Vec<_> = small.into_iter().chain(transport).collect();
        let (_, table, stderr) = outcome(&mut demo(&options));
        assert!(table.contains(&format!("The transport was {expected}. ")), "{table}{stderr}");
        let (_, json, _) = outcome(&mut demo(&[&options[..], &["--json"]].concat()));
        assert_eq!(values(&json, "transport"), [expected; 2], "{json}");
    }
}

#[test]
fn ranks_beyond_the_heads_and_blocks_of_any_size_work() {
    assert_eq!(digests(&["--tp=16", "--block-tokens=1"]).len(), 16);
    assert_eq!(digests(&["--tp=1", "--block-tokens=64"]).len(), 1);
    assert_eq!(digests(&["--tp=3", "--model=deepseek-v3", "--block-tokens=5"]).len(), 3);
}

#[test]
fn bad_options_exit_with_2_and_say_what_is_allowed() {
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--model=gpt"], &["--model", "qwen3-32b, llama-3.1-70b, deepseek-v3"]),
        (&["--transport=pigeon"], &["--transport", "tcp"]),
        (&["--tokens=0"], &["--tokens", "at least 1"]),
        (&["--tokens=many"], &["--tokens", "at least 1"]),
        (&["--tp=0"], &["--tp", "1..=64"]),
        (&["--tp=3"], &["--tp 3", "1, 2, 4, 8 or a multiple of 8"]),
        (&["--tp=65"], &["--tp", "1..=64"]),
        (&["--prefill=0"], &["--prefill", "1..=16"]),
        (&["--pace=-1"], &["--pace", "0 to 2000"]),
        (&["--lanes=65"], &["--lanes", "1 to 64"]),
        (&["--tokens=4000000000"], &["memory", "--tokens"]),
        (&["--speed=1"], &["--speed", "--help"]),
    ];
    for (arguments, expected) in cases {
        let (code, stdout, stderr) = outcome(&mut demo(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for text in expected {
            assert!(stderr.contains(text), "{arguments:?}: {stderr}");
        }
    }
}

#[test]
fn the_environment_is_heard_and_its_mistakes_are_named() {
    let (code, _, stderr) = outcome(demo(&["--tokens=16"]).env("KVX_LANES", "x"));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("KVX_LANES=\"x\""), "{stderr}");
    let (code, _, stderr) = outcome(demo(&["--tokens=16"]).env("KVX_LOG", "a=b=c"));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("KVX_LOG"), "{stderr}");
    let (code, _, stderr) = outcome(demo(&["--tokens=16", "--pace=0"]).env("KVX_LANE", "1"));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stderr.matches("KVX_LANE ").count(), 1, "{stderr}");
}

#[test]
fn a_byte_that_differs_is_noticed() {
    let (code, table, _) = outcome(&mut demo(&["--tokens=16", "--pace=0", "--corrupt=inside"]));
    assert_eq!(code, 1, "{table}");
    let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(row("prefill-0-0").contains("NOT EQUAL"), "{table}");
    assert!(row("prefill-0-1").contains("  equal"), "{table}");
    assert!(row("total").contains("NOT EQUAL"), "{table}");
    assert!(table.contains("DIGESTS DIFFER"), "{table}");
}

#[test]
fn a_byte_outside_of_the_granted_blocks_is_noticed() {
    let (code, table, _) = outcome(&mut demo(&["--tokens=16", "--pace=0", "--corrupt=outside"]));
    assert_eq!(code, 1, "{table}");
    assert!(table.contains("Bytes touched outside: 1."), "{table}");
}

/// A demo that would take long, whose layers have begun to arrive.
struct Running {
    demo: Child,
    stderr: BufReader<ChildStderr>,
    /// Roles and process ids.
    processes: Vec<(String, u32)>,
}

impl Running {
    #[expect(clippy::zombie_processes, reason = "a test that panics here ends its process")]
    fn start() -> Self {
        let mut command = demo(&["--tokens=16", "--pace=100", "--prefill=2"]);
        let mut demo = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(demo.stderr.take().unwrap());
        let mut processes = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended before layers arrived");
            if let Some(list) = line.strip_prefix("processes: ") {
                let pair = |item: &str| {
                    let (role, id) = item.trim().split_once(' ').unwrap();
                    (role.to_owned(), id.parse().unwrap())
                };
                processes = list.split(',').map(pair).collect();
            }
            if line.contains("layers have arrived") {
                return Self { demo, stderr, processes };
            }
        }
    }

    fn kill(&self, role: &str) {
        let (_, id) = self.processes.iter().find(|(name, _)| name == role).unwrap();
        kill(*id);
    }
}

fn kill(id: u32) {
    rustix::process::kill_process(pid(id), Signal::KILL).unwrap();
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id as i32).unwrap()
}

/// Whether the process runs. One that waits to be reaped has no command line any more.
fn lives(id: u32) -> bool {
    let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("demo-worker")
}

#[test]
fn a_killed_process_ends_the_demo_with_peer_operation_and_cause_and_no_orphan() {
    for (role, operation) in [
        ("decode-1", "receive KV cache, peer prefill-0-1 and prefill-1-1"),
        ("prefill-1-0", "send KV cache, peer decode-0"),
    ] {
        let mut running = Running::start();
        assert_eq!(running.processes.len(), 6);
        assert!(running.processes.iter().all(|(_, id)| lives(*id)));
        running.kill(role);
        let status = running.demo.wait().unwrap();
        assert!(running.processes.iter().all(|(_, id)| !lives(*id)));
        assert_eq!(status.code(), Some(1));
        let mut stderr = String::new();
        running.stderr.read_to_string(&mut stderr).unwrap();
        let error = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.starts_with(&format!("error: {role} (process ")), "{stderr}");
        assert!(error.contains(operation) && error.contains("SIGKILL"), "{stderr}");
    }
}

#[test]
fn the_processes_give_up_when_the_demo_is_killed() {
    // Orphans are handed to this process, which so learns how they ended.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut running = Running::start();
    kill(running.demo.id());
    running.demo.wait().unwrap();
    for (role, id) in &running.processes {
        let ended = rustix::process::waitpid(Some(pid(*id)), WaitOptions::empty()).unwrap();
        assert_eq!(ended.unwrap().1.exit_status(), Some(1), "{role}");
    }
}

#[test]
fn a_process_that_fails_says_why() {
    let mut command = demo(&["--tokens=16"]);
    let (code, stdout, stderr) = outcome(command.env("KVX_AUTH_KEY_FILE", "/nowhere/auth.key"));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    let error = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("build engine") && error.contains("/nowhere/auth.key"), "{stderr}");
}
