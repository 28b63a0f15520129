//! `kvx bench idle` and `kvx bench neighbours` in a short form: what they print, and that nothing is
//! left behind. Not their figures, which need a quiet machine and time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like the test itself"
)]

mod command;

use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

use command::{kvx, outcome};

/// `kvx bench` with these arguments.
fn bench(arguments: &[&str]) -> Command {
    kvx("bench", arguments)
}

/// The one row of a benchmark that succeeds.
fn row(arguments: &[&str]) -> Json {
    let (code, json, stderr) = outcome(&mut bench(arguments));
    assert_eq!(code, 0, "{stderr}");
    let [line] = json.lines().collect::<Vec<_>>()[..] else { panic!("{json}") };
    Json::parse(line)
}

/// A JSON object of numbers, texts and objects, by path: `alone.gbps`.
#[derive(Debug)]
struct Json(Vec<(String, String)>);

impl Json {
    fn parse(text: &str) -> Self {
        let mut fields = Vec::new();
        let rest = object(text, "", &mut fields);
        assert_eq!(rest, "", "{text}");
        Self(fields)
    }

    fn text(&self, path: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| name == path);
        &found.unwrap_or_else(|| panic!("{path}: {self:?}")).1
    }

    fn number(&self, path: &str) -> f64 {
        let number: f64 = self.text(path).parse().unwrap_or_else(|_| panic!("{path}: {self:?}"));
        assert!(number.is_finite(), "{path}: {self:?}");
        number
    }
}

/// Takes an object off the text; gives what follows it.
fn object<'a>(text: &'a str, path: &str, fields: &mut Vec<(String, String)>) -> &'a str {
    let mut rest = text.strip_prefix('{').unwrap_or_else(|| panic!("no object: {text}"));
    loop {
        let (name, value) = rest.strip_prefix('"').unwrap().split_once("\":").unwrap();
        let path = format!("{path}{name}");
        if value.starts_with('{') {
            rest = object(value, &format!("{path}."), fields);
        } else {
            let end = value.find([',', '}']).unwrap();
            fields.push((path, value[..end].trim_matches('"').to_owned()));
            rest = &value[end..];
        }
        rest = match rest.strip_prefix(',') {
            Some(more) => more,
            None => return rest.strip_prefix('}').unwrap(),
        };
    }
}

#[test]
fn idle_peers_are_met_and_then_counted() {
    let row = row(&["idle", "--json", "--peers=3", "--seconds=0.2"]);
    assert_eq!((row.text("workload"), row.text("transport")), ("idle", "tcp"));
    assert_eq!(row.number("peers"), 3.0);
    assert_eq!(row.number("bytes_checked"), 3.0 * 64.0 * 65536.0);
    assert!(row.number("lanes") >= 1.0);
    let share = row.number("cpu_s") / row.number("seconds");
    assert!((row.number("core_share") - share).abs() < 1e-9, "{row:?}");
    assert_eq!(row.number("bar_core_share"), 0.001);
    assert!(row.number("wakeups_per_s") >= 0.0);
    let (code, text, stderr) = outcome(&mut bench(&["idle", "--peers=1", "--seconds=0.1"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(text.starts_with("1 idle peer") && text.contains("% of a core"), "{text}");
}

const SHORT: [&str; 4] = ["neighbours", "--rounds=1", "--transfers=2", "--pings=100"];

#[test]
fn a_healthy_peer_is_measured_alone_and_beside_bad_neighbours() {
    let row = row(&[&SHORT[..], &["--json", "--rate=500"]].concat());
    assert_eq!((row.text("workload"), row.text("transport")), ("neighbours", "tcp"));
    assert_eq!((row.number("rounds"), row.number("transfers")), (1.0, 2.0));
    // Pings are looked at in rounds of 64.
    let bulk = row.number("bulk_bytes");
    assert_eq!(row.number("bytes_checked"), 2.0 * (2.0 * bulk + 2.0 * 4096.0));
    for figure in ["gbps", "bulk_p50_us", "bulk_p99_us", "p50_us", "p99_us", "cpu_s_per_gib"] {
        let of = |condition: &str| row.number(&format!("{condition}.{figure}"));
        assert!(of("alone") > 0.0 && of("beside") > 0.0, "{figure}: {row:?}");
        let ratio = of("beside") / of("alone");
        assert!((of("ratios") - ratio).abs() < 1e-6 * ratio, "{figure}: {row:?}");
    }
    assert_eq!(row.number("ratio"), row.number("ratios.gbps"));
    assert_eq!(row.number("p99_ratio"), row.number("ratios.p99_us"));
    assert_eq!((row.number("bar_ratio"), row.number("bar_p99_ratio")), (0.9, 2.0));
    assert!(row.number("hostile_blows_per_s") > 0.0, "{row:?}");
    assert_eq!(row.number("hostile_rate"), 500.0);
    assert!((1.0..=20.0).contains(&row.number("hostile_attacks")), "{row:?}");
    assert!(row.number("hostile_core_share") > 0.0, "{row:?}");
}

#[test]
fn neighbours_end_with_the_benchmark_however_it_ends() {
    // Orphans are handed to this process, which so learns that they have ended.
    set_child_subreaper(Some(getpid())).unwrap();
    let mut command = bench(&["neighbours", "--rounds=1000", "--transfers=2", "--pings=100"]);
    let mut running = command.stdout(Stdio::null()).spawn().unwrap();
    // In one of its rounds: with the served engine, the stopped process and the hostile one.
    let processes = loop {
        assert_eq!(running.try_wait().unwrap(), None);
        let processes = children(running.id());
        if processes.len() == 3 {
            break processes;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    running.kill().unwrap();
    running.wait().unwrap();
    for process in processes {
        assert!(waitpid(Some(process), WaitOptions::empty()).unwrap().is_some());
    }
}

fn children(id: u32) -> Vec<Pid> {
    let path = format!("/proc/{id}/task/{id}/children");
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap()).unwrap()).collect()
}

#[test]
fn bad_options_exit_with_2_and_say_what_is_allowed() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["idle", "--peers=0"], &["--peers", "1..=256"]),
        (&["idle", "--seconds=0"], &["--seconds", "0.1 to 3600"]),
        (&["idle", "--seconds=nan"], &["--seconds", "0.1 to 3600"]),
        (&["idle", "--transport=pigeon"], &["--transport", "tcp"]),
        (&["neighbours", "--rounds=0"], &["--rounds"]),
        (&["neighbours", "--rate=49"], &["--rate", "50.."]),
        (&["neighbours", "--role=busy"], &["--peer"]),
    ];
    for (arguments, expected) in cases {
        let (code, stdout, stderr) = outcome(&mut bench(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for text in expected {
            assert!(stderr.contains(text), "{arguments:?}: {stderr}");
        }
    }
}
