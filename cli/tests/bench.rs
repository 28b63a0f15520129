//! `kvx bench` as a person runs it: its rows, its exit status, and what is left behind.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like the test itself"
)]

mod command;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions};

use command::{kvx, outcome};

/// `kvx bench` with these arguments.
fn bench(arguments: &[&str]) -> Command {
    kvx("bench", arguments)
}

/// The rows of a benchmark that succeeds.
fn rows(command: &mut Command) -> Vec<String> {
    let (code, json, stderr) = outcome(command);
    assert_eq!(code, 0, "{stderr}");
    json.lines().map(str::to_owned).collect()
}

/// The value of a field in a row of JSON.
fn text<'a>(row: &'a str, field: &str) -> &'a str {
    let (_, rest) = row.split_once(&format!("\"{field}\":")).unwrap_or_else(|| panic!("{row}"));
    rest.split([',', '}']).next().unwrap().trim_matches('"')
}

fn number(row: &str, field: &str) -> f64 {
    text(row, field).parse().unwrap_or_else(|_| panic!("{field} is no number: {row}"))
}

/// Asserts that the row's figures fit each other.
fn check_figures(row: &str) {
    assert!(row.starts_with('{') && row.ends_with('}'), "{row}");
    assert_eq!(number(row, "bytes"), number(row, "blocks") * number(row, "block_bytes"), "{row}");
    assert!((1.0..=number(row, "blocks")).contains(&number(row, "runs")), "{row}");
    assert!(number(row, "lanes") >= 1.0 && number(row, "rounds_checked") >= 1.0, "{row}");
    let close = |field: &str, expected: f64| {
        let ratio = number(row, field) / expected;
        assert!((0.999..1.001).contains(&ratio), "{field} should be {expected}: {row}");
    };
    let bytes = number(row, "bytes");
    close("gbps", bytes / number(row, "p50_us") / 1e3);
    close("limit_gbps", bytes / number(row, "limit_p50_us") / 1e3);
    close("ratio", number(row, "gbps") / number(row, "limit_gbps"));
    assert!(number(row, "p50_us") <= number(row, "p99_us"), "{row}");
    assert!(number(row, "limit_p50_us") <= number(row, "limit_p99_us"), "{row}");
    assert!(number(row, "post_p50_us") <= number(row, "p50_us"), "{row}");
    assert!([1.0, 2.0, 3.0, 4.0].contains(&number(row, "limit_threads")), "{row}");
    assert_eq!(text(row, "limit_refused"), "null", "{row}");
    for field in ["memcpy_gbps", "memcpy_threads", "cpu_s_per_gib", "avg_us", "prep_us"] {
        assert!(number(row, field) > 0.0, "{field}: {row}");
    }
    assert!(number(row, "spread") >= 0.0 && number(row, "limit_spread") >= 0.0, "{row}");
}

/// Both operations of a workload, with so many pools, blocks and bytes of a block.
fn check_workload(name: &str, [pools, blocks, block_bytes]: [u64; 3]) {
    let few = ["local", "--json", "--reps=1", "--warmup=0", "--transport=tcp", "--workload", name];
    let rows = rows(&mut bench(&few));
    assert_eq!(rows.iter().map(|row| text(row, "op")).collect::<Vec<_>>(), ["write", "read"]);
    for row in &rows {
        check_figures(row);
        assert_eq!((text(row, "workload"), text(row, "transport")), (name, "tcp"));
        assert_eq!((text(row, "memory"), text(row, "limit")), ("engine", "tcp"));
        let sizes = ["pools", "blocks", "block_bytes", "reps"].map(|field| text(row, field));
        let expected = [pools, pools * blocks, block_bytes, 1].map(|number| number.to_string());
        assert_eq!(sizes, expected.each_ref().map(String::as_str));
    }
}

/// A person's table says which, too.
#[test]
fn without_a_choice_the_first_transport_that_leads_to_the_peer_is_taken() {
    let few = ["local", "--reps=1", "--warmup=0", "--no-limit", "--workload=token"];
    for (allowed, taken) in [(None, "shm"), (Some("tcp,shm"), "tcp")] {
        let allow = |command: &mut Command| {
            if let Some(allowed) = allowed {
                command.env("KVX_TRANSPORTS", allowed);
            }
        };
        let mut json = bench(&[&few[..], &["--json"]].concat());
        allow(&mut json);
        for row in rows(&mut json) {
            assert_eq!(text(&row, "transport"), taken, "{row}");
        }
        let mut table = bench(&few);
        allow(&mut table);
        let (code, table, stderr) = outcome(&mut table);
        assert_eq!(code, 0, "{stderr}");
        assert!(table.lines().skip(1).all(|line| line.ends_with(taken)), "{table}");
    }
}

#[test]
fn large_moves_256_blocks_of_1_mib() {
    check_workload("large", [1, 256, 1 << 20]);
}

#[test]
fn paged_moves_the_blocks_of_qwen3_32b_at_tp_2() {
    check_workload("paged", [128, 64, 16 << 10]);
}

#[test]
fn mla_moves_the_blocks_of_deepseek_v3() {
    check_workload("mla", [61, 64, 73_728]);
}

#[test]
fn token_moves_blocks_of_1_kib() {
    check_workload("token", [128, 512, 1 << 10]);
}

#[test]
fn ping_moves_one_block_of_4_kib() {
    check_workload("ping", [1, 1, 4 << 10]);
}

/// Rows of the transport within a host, all checked.
fn shared_rows(memory: &str, more: &[&str]) -> Vec<String> {
    let few = ["local", "--json", "--transport=shm", "--memory", memory];
    let rows = rows(&mut bench(&[&few[..], more].concat()));
    for row in &rows {
        check_figures(row);
        assert_eq!((text(row, "transport"), text(row, "memory")), ("shm", memory));
    }
    rows
}

#[test]
fn within_a_host_the_limit_is_that_of_the_memory_which_moves() {
    let small = ["--workload=paged,token", "--reps=1", "--warmup=0"];
    for (memory, limit) in [("engine", "memcpy"), ("caller", "process_vm_readv")] {
        let rows = shared_rows(memory, &small);
        let expected =
            [("paged", "write"), ("paged", "read"), ("token", "write"), ("token", "read")];
        assert!(rows.iter().map(|row| (text(row, "workload"), text(row, "op"))).eq(expected));
        assert!(rows.iter().all(|row| text(row, "limit") == limit), "{rows:?}");
        if memory == "engine" {
            rows.iter()
                .for_each(|row| assert_eq!(text(row, "limit_gbps"), text(row, "memcpy_gbps")));
        }
    }
}

#[test]
fn within_a_host_a_ping_is_measured_beside_a_round_trip_over_eventfds() {
    for memory in ["engine", "caller"] {
        let rows = shared_rows(memory, &["--workload=ping", "--reps=200"]);
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| text(row, "limit") == "eventfd"), "{rows:?}");
    }
}

#[test]
fn a_callers_memory_moves_over_any_transport_in_blocks_of_any_size() {
    for transport in ["shm", "tcp"] {
        let odd = ["local", "--json", "--reps=2", "--block-size=777", "--batch=333"];
        let how = ["--memory=caller", "--transport", transport];
        for row in rows(&mut bench(&[&odd[..], &how].concat())) {
            check_figures(&row);
            assert_eq!((text(&row, "memory"), text(&row, "bytes")), ("caller", "258741"));
        }
    }
}

#[test]
fn a_sweep_has_a_row_for_each_size_and_batch() {
    let sweep = ["local", "--json", "--reps=3", "--block-size=512..1KiB", "--batch=1..4"];
    let rows = rows(&mut bench(&[&sweep[..], &["--op=write", "--lanes=1"]].concat()));
    let sizes = rows.iter().map(|row| (number(row, "block_bytes"), number(row, "blocks")));
    let sizes: Vec<_> = sizes.collect();
    let expected = [(512., 1.), (512., 2.), (512., 4.), (1024., 1.), (1024., 2.), (1024., 4.)];
    assert_eq!(sizes, expected);
    for row in &rows {
        check_figures(row);
        assert_eq!((text(row, "workload"), text(row, "lanes")), ("sweep", "1"));
    }
}

#[test]
fn blocks_of_any_size_arrive_whole() {
    let odd = ["--block-size=777..1554", "--batch=333", "--seed=9"];
    let rows = rows(&mut bench(&[&["local", "--json", "--reps=2"], &odd[..]].concat()));
    assert_eq!(
        rows.iter().map(|row| text(row, "bytes")).collect::<Vec<_>>(),
        ["258741", "258741", "517482", "517482"]
    );
}

#[test]
fn without_json_there_is_a_table() {
    let small = ["local", "--workload=ping", "--reps=5", "--op=read"];
    let table = rows(&mut bench(&small));
    assert_eq!(table.len(), 2);
    for head in ["Block Size (B)", "Batch Size", "B/W (GB/Sec)", "P99 Lat. (us)", "Limit", "Ratio"]
    {
        assert!(table[0].contains(head), "{}", table[0]);
    }
    let cells: Vec<_> = table[1].split_whitespace().collect();
    assert_eq!(cells[..6], ["ping", "read", "engine", "eventfd", "4096", "1"]);
    let [figures @ .., transport] = &cells[6..] else { panic!("{cells:?}") };
    assert_eq!(*transport, "shm");
    assert!(figures.iter().all(|cell| cell.parse::<f64>().is_ok()), "{cells:?}");
    assert_eq!(table[0].len(), table[1].len());
}

#[test]
fn without_the_limit_its_figures_are_null() {
    let small = ["local", "--workload=ping", "--reps=5", "--op=write", "--json", "--no-limit"];
    let [row] = &rows(&mut bench(&small))[..] else { panic!("one row") };
    let figures = ["limit_gbps", "ratio", "limit_p50_us", "limit_p99_us", "memcpy_gbps"];
    for field in figures.into_iter().chain(["limit", "limit_threads", "memcpy_threads"]) {
        assert_eq!(text(row, field), "null");
    }
    assert!(number(row, "gbps") > 0.0);
}

#[test]
fn bad_options_exit_with_2_and_say_what_is_allowed() {
    let cases: [(&[&str], &[&str]); 18] = [
        (&["local", "--memory=nobody"], &["--memory", "engine", "caller"]),
        (&[], &["serve", "run", "local"]),
        (&["fly"], &["fly"]),
        (&["run"], &["--peer"]),
        (&["local", "--workload=huge"], &["large", "paged", "mla", "token", "ping", "all"]),
        (&["local", "--op=move"], &["write, read, both"]),
        (&["local", "--transport=pigeon"], &["--transport", "tcp"]),
        (&["local", "--lanes=0"], &["--lanes", "1 to 64"]),
        (&["local", "--reps=0"], &["--reps"]),
        (&["local", "--block-size=0"], &["--block-size", "512..16MiB"]),
        (&["local", "--block-size=2K..1K"], &["--block-size", "512..16MiB"]),
        (&["local", "--batch=1..2000000"], &["--batch", "1 to 1048576"]),
        (&["local", "--batch=2", "--workload=ping"], &["--workload", "--batch"]),
        (&["local", "--block-size=1024G", "--batch=1048576"], &["--block-size", "bytes"]),
        (&["local", "--block-size=1024G"], &["memory", "--block-size"]),
        (&["local", "--block-size=1GiB", "--batch=16"], &["bare loops", "--no-limit"]),
        (&["serve", "--bind=nowhere"], &["--bind", "IP:PORT"]),
        (&["serve", "--peer=127.0.0.1:1"], &["--peer"]),
    ];
    for (arguments, expected) in cases {
        let (code, stdout, stderr) = outcome(&mut bench(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for text in expected {
            assert!(stderr.contains(text), "{arguments:?}: {stderr}");
        }
    }
    for arguments in [&["local"][..], &["serve"], &["run", "--peer=127.0.0.1:1"]] {
        let (code, _, stderr) = outcome(bench(arguments).env("KVX_LANES", "x"));
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        assert!(stderr.contains("KVX_LANES=\"x\""), "{stderr}");
    }
}

#[test]
fn a_byte_that_differs_is_noticed_on_either_side() {
    let kinds = [["tcp", "engine"], ["shm", "engine"], ["shm", "caller"]];
    let places = [("inside", "not the content"), ("outside", "outside of the blocks")];
    for ([transport, memory], op) in
        kinds.into_iter().flat_map(|kind| [(kind, "--op=write"), (kind, "--op=read")])
    {
        for (corrupt, why) in places {
            let small = ["local", "--workload=ping", "--reps=2", "--json", op];
            let mut command = bench(&small);
            command.args(["--corrupt", corrupt, "--transport", transport, "--memory", memory]);
            let (code, stdout, stderr) = outcome(&mut command);
            assert_eq!((code, stdout.as_str()), (1, ""), "{command:?}: {stderr}");
            assert!(stderr.starts_with("error: ping: ") && stderr.contains(why), "{stderr}");
        }
    }
}

/// A process that is killed when the test ends.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Waits for its end; its exit status and standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that serves, and where.
fn serve() -> (Running, String) {
    let mut serve = Running::start(bench(&["serve"]));
    let line = serve.line();
    let address = line.trim_end().strip_prefix("listening on ").unwrap();
    let address = address.to_owned();
    (serve, address)
}

#[test]
fn one_process_serves_many_runs() {
    let (mut serve, address) = serve();
    let small = ["run", "--json", "--workload=ping", "--reps=20", "--peer", &address];
    for _ in 0..2 {
        let rows = rows(&mut bench(&small));
        assert_eq!(rows.len(), 2);
        rows.iter().for_each(|row| check_figures(row));
    }
    let mut both = [0, 1].map(|_| Running::start(bench(&small)));
    for run in &mut both {
        let (code, stderr) = run.end();
        assert_eq!(code, Some(0), "{stderr}");
    }
    assert!(serve.child.try_wait().unwrap().is_none(), "it serves on");
}

#[test]
fn a_peer_that_is_not_there_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peer = nobody.to_string();
    let mut run = bench(&["run", "--workload=ping", "--peer", &peer]);
    let (code, stdout, stderr) = outcome(run.env("KVX_DEADLINE", "1"));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(&peer), "{stderr}");
}

#[test]
fn a_peer_that_dies_is_named() {
    // While the engine moves bytes, and while it and the bare loops do in turn.
    for warmup in ["--warmup=10000000", "--warmup=0"] {
        let (mut serve, address) = serve();
        let long = ["run", "--workload=ping", "--reps=100000000", warmup, "--peer", &address];
        let mut run = bench(&long);
        run.env("KVX_DEADLINE", "2");
        let mut run = Running::start(run);
        assert!(run.line().starts_with("Workload"));
        serve.child.kill().unwrap();
        let (code, stderr) = run.end();
        assert_eq!(code, Some(1), "{warmup}: {stderr}");
        // Either side of the conversation may find it out; both name the peer.
        let id = serve.child.id().to_string();
        let error = stderr.lines().find(|line| line.starts_with("error: "));
        let error = error.unwrap_or_else(|| panic!("{warmup}: no error: {stderr}"));
        assert!(error.contains(&id) || error.contains(&address), "{warmup}: {stderr}");
    }
}

#[test]
fn the_process_that_serves_ends_with_its_parent() {
    // Orphans are handed to this process, which so learns how they ended.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let long = ["local", "--workload=ping", "--reps=100000000"];
    let mut local = Running::start(bench(&long));
    assert!(local.line().starts_with("Workload"));
    let id = local.child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let [serve] = children.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("one process serves: {children:?}");
    };
    local.child.kill().unwrap();
    local.child.wait().unwrap();
    let serve = Pid::from_raw(serve.parse().unwrap());
    let ended = rustix::process::waitpid(serve, WaitOptions::empty()).unwrap();
    assert_eq!(ended.unwrap().1.exit_status(), Some(0));
}

#[test]
fn the_run_ends_when_the_process_that_serves_it_is_killed() {
    let mut command = bench(&["local", "--workload=ping", "--reps=100000000"]);
    command.env("KVX_DEADLINE", "2");
    let mut local = Running::start(command);
    assert!(local.line().starts_with("Workload"));
    let id = local.child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let serve = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(serve, Signal::KILL).unwrap();
    let (code, stderr) = local.end();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("error: ")), "{stderr}");
}
