//! Packets that are dropped without a word, in a network namespace of the test's own. Needs root,
//! `ip`, `ss` and `nft`; skipped, and counted as such, without them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::content::POISON;
use crate::random::Random;
use crate::session::{LONG, Session, prefill_by};
use crate::worker::Worker;

const LEN: u64 = 4 << 20;

/// The lanes' own timeout is a second here, so that the test need not wait for thirty.
#[test]
fn a_lane_whose_packets_are_dropped_is_rebuilt_and_its_transfers_complete() {
    let name = "netns::a_lane_whose_packets_are_dropped_is_rebuilt_and_its_transfers_complete";
    let Some(mut pair) = Pair::new("lane", name) else { return };
    pair.exchange(0);
    let lane = pair.busiest_connection();
    pair.namespace.drop_port(lane);
    // Enough of them that each lane gets a part.
    for round in 1..4 {
        pair.exchange(round);
    }
    // What waits in the dropped lane does not come back.
    pair.namespace.drop_nothing();
    pair.writer.must("remove peer=t");
    pair.target.must(&format!("fill name=target byte={POISON}"));
    let watched = pair.target.must(&format!("watch name=target byte={POISON} ms=1000"));
    assert_eq!(watched.verb, "ok", "{watched:?}");
}

#[test]
fn everything_goes_on_after_seconds_of_dropped_packets() {
    let name = "netns::everything_goes_on_after_seconds_of_dropped_packets";
    let Some(mut pair) = Pair::new("all", name) else { return };
    pair.exchange(0);
    for round in 1..3 {
        let namespace = pair.namespace.name.clone();
        let port = pair.target_port;
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(5 * round));
                let namespace = Namespace { name: namespace, borrowed: true };
                namespace.drop_port(port);
                thread::sleep(Duration::from_millis(2500));
                namespace.drop_nothing();
            });
            pair.exchange(round);
        });
    }
    let told = pair.target.must("notes count=3 quiet=500");
    assert_eq!(told.numbers::<u64>("seen"), [0, 1, 2]);
}

/// A writer and a target in a namespace with nothing but loopback.
struct Pair {
    writer: Worker,
    target: Worker,
    target_port: u16,
    random: Random,
    // Last: it can only go once the processes have.
    namespace: Namespace,
}

impl Pair {
    fn new(case: &str, test: &str) -> Option<Self> {
        let namespace = match Namespace::new(case) {
            Ok(namespace) => namespace,
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        };
        let options = "lanes=2 peer_timeout=1000";
        let mut writer = prefill_by(namespace.command(), &format!("writer-{case}"), 1, options);
        writer.must(&format!("alloc name=source len={LEN} rights=none"));
        writer.must("fill name=source seed=5");
        let executable = namespace.command();
        let mut target = Worker::start_by(executable, &format!("target-{case}"), options);
        target.must("pool name=kv");
        target.must(&format!("alloc name=target len={LEN}"));
        let blob = target.must("blob names=target");
        writer.must(&format!("add peer=t blob={}", blob.get("blob")));
        let target_port = target.address.port();
        Some(Self { writer, target, target_port, random: Random::new(9), namespace })
    }

    fn exchange(&mut self, round: u64) {
        self.target.must(&format!("fill name=target byte={POISON}"));
        self.writer.must(&format!(
            "post id=it op=write peer=t name=source region=0 len={LEN} runs=64 notify={round} \
             deadline={LONG}"
        ));
        self.writer.must("wait id=it");
        let found = self.target.must("check name=target seed=5");
        assert_eq!(found.verb, "ok", "{found:?}");
        let session = Session::new(round, 1, &mut self.random);
        session.carry_out(&mut self.writer, &mut self.target, "kv");
    }

    /// The writer's port of the connection to the target that has carried most: a lane.
    fn busiest_connection(&self) -> u16 {
        let filter = format!("dport = :{}", self.target_port);
        let arguments = ["-tinOH", "state", "established", &filter];
        let listed = run(self.namespace.inside("ss").args(arguments)).unwrap();
        let number_after = |line: &str, key: &str| {
            let rest = line.split_once(key).map_or("", |(_, rest)| rest);
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap_or(0)
        };
        let busiest = listed.lines().max_by_key(|line| number_after(line, "bytes_sent:")).unwrap();
        // Recv-Q, Send-Q, local address, peer's address.
        let local = busiest.split_whitespace().nth(2).unwrap();
        local.rsplit(':').next().unwrap().parse().unwrap()
    }
}

struct Namespace {
    name: String,
    borrowed: bool,
}

impl Namespace {
    /// # Errors
    /// Why there is none.
    fn new(case: &str) -> Result<Self, String> {
        let name = format!("kvx-{}-{case}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name, borrowed: false };
        run(namespace.inside("ip").args(["link", "set", "lo", "up"]))?;
        run(namespace.inside("nft").args(["add", "table", "inet", "kvx"]))?;
        let chain = "{ type filter hook input priority 0; }";
        run(namespace.inside("nft").args(["add", "chain", "inet", "kvx", "input", chain]))?;
        run(namespace.inside("ss").arg("-tnH"))?;
        Ok(namespace)
    }

    /// A command that runs the test binary in here.
    fn command(&self) -> Command {
        self.inside(std::env::current_exe().unwrap().to_str().unwrap())
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Packets from and to this port vanish.
    fn drop_port(&self, port: u16) {
        for field in ["sport", "dport"] {
            let rule = format!("add rule inet kvx input tcp {field} {port} drop");
            run(self.inside("nft").args(rule.split(' '))).unwrap();
        }
    }

    fn drop_nothing(&self) {
        run(self.inside("nft").args(["flush", "chain", "inet", "kvx", "input"])).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.borrowed {
            let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
        }
    }
}

/// The command's output; or why it failed.
fn run(command: &mut Command) -> Result<String, String> {
    let program = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", said.trim().replace('\n', " ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Counts the test as skipped: see CONTRIBUTING.md.
fn skip(test: &str, reason: &str) {
    let line = format!("KVX-SKIP {test}: {reason}");
    println!("{line}");
    if let Some(path) = std::env::var_os("KVX_SKIP_LOG") {
        let mut log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}
