//! Roads that fail: lanes cut by a filter in a network namespace, links taken down, a peer that
//! vanishes without a word, and a relay that delays, cuts to pieces, resets and corrupts.
//!
//! Frames carry no checksums in this version: a payload that is corrupted on the way lands so,
//! where its frame was allowed to land. What the suite shows of corruption is that it lands nowhere
//! else, that what no longer parses ends its connection, and that nobody else notices.

use std::rc::Rc;
use std::time::Duration;

use kvx_workers::content::POISON;
use kvx_workers::namespace::Namespace;
use kvx_workers::random::{Random, from_env};
use kvx_workers::relay::{Fault, Kind, Relay, Way, Weather};
use kvx_workers::session::{LONG, Session};
use kvx_workers::skip::skip;
use kvx_workers::worker::Worker;

use crate::row::Row;
use crate::stage::{Stage, seed};

/// Bytes of each exchange's write and read.
const LEN: u64 = 2 << 20;

/// The lanes' own timeout is a second here, so that the test need not wait for more.
#[test]
fn lanes_cut_by_a_filter_and_links_that_go_down_are_survived() {
    let name = "roads::lanes_cut_by_a_filter_and_links_that_go_down_are_survived";
    let namespace = match Namespace::new("faults") {
        Ok(namespace) => Rc::new(namespace),
        Err(reason) => return skip(name, &reason),
    };
    let inside = Rc::clone(&namespace);
    let options = "transports=tcp lanes=2 peer_timeout=1000";
    let mut stage = Stage::by(move || inside.command(), "roads", options, options);
    let mut traveller = Traveller::start(&mut stage, options);
    traveller.connect_to(&stage.victim.address.to_string());
    traveller.exchange(&mut stage);
    let rounds = from_env("KVX_FAULT_ROUNDS", 16).div_ceil(16);
    for (fault, verdict) in [
        ("a lane whose packets are dropped", "drop"),
        ("a lane whose packets are answered by a reset", "reject with tcp reset"),
        ("a lane whose packets are refused by ICMP", "reject"),
    ] {
        let row = Row::new(fault, "the lane is replaced; transfers whole; peers served")
            // The victim may hold a lane that ends later than at its dialer.
            .allows(|allows| allows.descriptors = 2);
        row.play(&mut stage, |stage| {
            for _ in 0..rounds {
                let lane = busiest_lane(&namespace, &stage.victim, &traveller.worker);
                namespace.filter_port(lane, verdict);
                // Enough of them that each lane gets a part.
                (0..3).for_each(|_| traveller.exchange(stage));
                namespace.filter_nothing();
            }
            stage.wait_served(1);
            rounds
        });
    }
    let row = Row::new("the only link down, and up again", "all goes on over the same road")
        .allows(|allows| allows.descriptors = 2);
    row.play(&mut stage, |stage| {
        for round in 0..2 * rounds {
            traveller.begin_exchange(stage);
            std::thread::sleep(Duration::from_millis(4 * round));
            namespace.set_loopback(false).unwrap();
            std::thread::sleep(Duration::from_millis(700));
            namespace.set_loopback(true).unwrap();
            traveller.end_exchange(stage);
        }
        stage.wait_served(1);
        2 * rounds
    });
    let row = Row::new("a peer that vanishes without a word", "its session ends by the deadline")
        // Its connections end by the kernel's timeouts, and the peer is dialed again.
        .allows(|allows| allows.descriptors = 4);
    row.play(&mut stage, |stage| {
        let session = traveller.session();
        stage.victim.must(&format!("fill name=kv byte={POISON}"));
        // It would take seconds.
        traveller.worker.must(&session.send(500_000, LONG));
        stage.victim.must(&session.receive(&traveller.worker, "kv", 1000));
        std::thread::sleep(Duration::from_millis(50));
        for (port, _) in connections(&namespace, &stage.victim, &traveller.worker) {
            namespace.filter_port(port, "drop");
        }
        namespace.filter_port(traveller.worker.address.port(), "drop");
        traveller.worker.kill();
        let failure = stage.victim.must_fail("join job=it");
        assert!(failure.is_one_of(&["Deadline", "PeerLost"]), "{failure:?}");
        session.expect_untouched_outside(&mut stage.victim, "kv");
        stage.wait_served(1);
        namespace.filter_nothing();
        1
    });
}

/// The dialer's port of the connection between two workers, whoever dialed, that has carried most.
fn busiest_lane(namespace: &Namespace, one: &Worker, other: &Worker) -> u16 {
    let connections = connections(namespace, one, other);
    connections.iter().max_by_key(|(_, sent)| *sent).unwrap().0
}

fn connections(namespace: &Namespace, one: &Worker, other: &Worker) -> Vec<(u16, u64)> {
    let mut connections = namespace.connections(one.address.port(), Some(other.pid()));
    connections.extend(namespace.connections(other.address.port(), Some(one.pid())));
    connections
}

#[test]
fn a_slow_ragged_road_that_breaks_now_and_then_is_survived() {
    let (mut stage, mut traveller, relays) = relayed("relay", "");
    traveller.exchange(&mut stage);
    let rounds = from_env("KVX_FAULT_ROUNDS", 16);
    let mut random = Random::new(seed());
    let millis = Duration::from_millis;
    for (fault, delay, jitter, piece) in [
        ("every piece delayed", millis(5), millis(0), 0),
        ("every piece delayed at random", millis(0), millis(10), 0),
        ("pieces of a few bytes", millis(0), millis(0), 700),
    ] {
        let row = Row::new(fault, "slow, and whole; peers served");
        row.play(&mut stage, |stage| {
            set_weather(&relays, Weather { delay, jitter, piece });
            (0..rounds.div_ceil(8)).for_each(|_| traveller.exchange(stage));
            set_weather(&relays, Weather::default());
            stage.wait_served(1);
            rounds.div_ceil(8)
        });
    }
    let row = Row::new("connections reset in mid-stream", "whole, each byte once; peers served")
        .allows(|allows| allows.descriptors = 2);
    row.play(&mut stage, |stage| {
        let mut happened = 0;
        for _ in 0..rounds {
            let (kind, within) =
                if random.below(2) == 0 { (Kind::Lane, LEN) } else { (Kind::Control, 1000) };
            arm(&relays, kind, &mut random, within, Fault::Reset);
            traveller.exchange(stage);
            happened += happened_of(&relays);
        }
        stage.wait_served(1);
        assert!(happened > rounds / 3, "only {happened} of {rounds} happened");
        happened
    });
}

/// `KVX_FAULT_ROUNDS` and `KVX_FAULT_SEED` vary it.
#[test]
fn corrupted_bytes_land_nowhere_but_where_their_frame_may() {
    let (mut stage, mut traveller, relays) = relayed("corrupt", "deadline=500");
    let mut random = Random::new(seed());
    let row =
        Row::new("a bit flipped on the way", "errors on its connection only; none land astray")
            .allows(|allows| allows.descriptors = 4);
    row.play(&mut stage, |stage| {
        let (mut happened, rounds) = (0, 2 * from_env("KVX_FAULT_ROUNDS", 16));
        for _ in 0..rounds {
            // Handshakes, headers and tables are at the beginning of connections; what comes
            // later is payload for the most part.
            let kind = if random.below(2) == 0 { Kind::Lane } else { Kind::Control };
            let flip = Fault::Corrupt(1 << random.below(8));
            arm(&relays, kind, &mut random, 600, flip);
            traveller.try_everything(stage, &relays.1.address.to_string());
            happened += happened_of(&relays);
        }
        stage.wait_served(1);
        assert!(happened > rounds / 3, "only {happened} of {rounds} happened");
        happened
    });
}

/// A stage, and a traveller that reaches its victim through relays, whoever dials. The neighbour
/// knows a better road.
fn relayed(case: &str, options: &str) -> (Stage, Traveller, (Relay, Relay)) {
    let relays = (Relay::new(), Relay::new());
    let stage_options = format!("transports=tcp lanes=2 advertise={}", relays.1.address);
    let mut stage = Stage::new(case, &stage_options);
    let options = format!("{options} transports=tcp lanes=2 advertise={}", relays.0.address);
    let mut traveller = Traveller::start(&mut stage, &options);
    relays.0.serve(traveller.worker.address);
    relays.1.serve(stage.victim.address);
    traveller.worker.address = relays.0.address;
    traveller.connect_to(&relays.1.address.to_string());
    (stage, traveller, relays)
}

fn set_weather(relays: &(Relay, Relay), weather: Weather) {
    relays.0.weather(weather);
    relays.1.weather(weather);
}

/// Lets a fault happen somewhere among the next bytes, in either direction.
fn arm(relays: &(Relay, Relay), kind: Kind, random: &mut Random, within: u64, fault: Fault) {
    let after = random.below(within);
    let (first, second) =
        if random.below(2) == 0 { (Way::Out, Way::In) } else { (Way::In, Way::Out) };
    relays.0.arm(kind, first, after, fault);
    relays.1.arm(kind, second, after, fault);
}

/// Forgets what has not happened. Whether something has.
fn happened_of(relays: &(Relay, Relay)) -> u64 {
    u64::from(relays.0.disarm() + relays.1.disarm() < 2)
}

/// A peer of the victim at the other end of the road. It may write the victim's memory `target`.
struct Traveller {
    worker: Worker,
    blob: String,
    random: Random,
    room: u64,
}

impl Traveller {
    fn start(stage: &mut Stage, options: &str) -> Self {
        stage.victim.must(&format!("alloc name=target len={LEN}"));
        stage.victim.must("pool name=kv");
        let blob = stage.victim.must("blob names=target").get("blob").to_owned();
        let mut worker = stage.third("traveller", options);
        worker.must("pool name=kv");
        worker.must(&format!("fill name=kv seed={}", seed()));
        worker.must(&format!("alloc name=memory len={LEN} rights=none"));
        Self { worker, blob, random: Random::new(seed()), room: 0 }
    }

    /// By this road, then with the metadata of the victim.
    fn connect_to(&mut self, address: &str) {
        self.worker.must(&format!("connect peer=victim address={address}"));
        self.worker.must(&format!("add peer=victim blob={}", self.blob));
    }

    /// A write, a read and a session, all of which must succeed.
    fn exchange(&mut self, stage: &mut Stage) {
        self.begin_exchange(stage);
        self.end_exchange(stage);
        self.worker.must(&post("it", "read", LONG));
        self.worker.must("wait id=it");
        let found = self.worker.must("check name=memory seed=7");
        assert_eq!(found.verb, "ok", "{found:?}");
        self.session().carry_out(&mut self.worker, &mut stage.victim, "kv");
    }

    fn begin_exchange(&mut self, stage: &mut Stage) {
        stage.victim.must(&format!("fill name=target byte={POISON}"));
        self.worker.must("fill name=memory seed=7");
        self.worker.must(&post("it", "write", LONG));
    }

    fn end_exchange(&mut self, stage: &mut Stage) {
        self.worker.must("wait id=it");
        let found = stage.victim.must("check name=target seed=7");
        assert_eq!(found.verb, "ok", "{found:?}");
    }

    /// Connects anew and does everything that may fail. It ends, well or with an error that names
    /// what was attempted, and nothing lands outside.
    fn try_everything(&mut self, stage: &mut Stage, address: &str) {
        let session = self.session();
        stage.victim.must(&format!("fill name=kv byte={POISON}"));
        let connected = self.worker.ask(&format!("connect peer=victim address={address}"));
        let connected = connected.and_then(|_| {
            self.worker.ask(&format!("add peer=victim blob={}", self.blob))?;
            self.worker.ask(&post("it", "write", 500))?;
            self.worker.ask("wait id=it")
        });
        if let Err(failure) = connected {
            let known = ["Connect", "Write"].contains(&failure.operation.as_str());
            assert!(known, "{failure:?}");
        }
        self.worker.must(&session.send(0, 500));
        stage.victim.must(&session.receive(&self.worker, "kv", 500));
        for worker in [&mut self.worker, &mut stage.victim] {
            if let Err(failure) = worker.ask("join job=it") {
                let known = ["Send", "Receive", "Connect"].contains(&failure.operation.as_str());
                assert!(known, "{failure:?}");
            }
        }
        session.expect_untouched_outside(&mut stage.victim, "kv");
    }

    fn session(&mut self) -> Session {
        self.room += 1;
        Session::new(self.room, seed(), &mut self.random)
    }
}

fn post(id: &str, op: &str, deadline: u64) -> String {
    format!(
        "post id={id} op={op} peer=victim name=memory region=0 len={LEN} runs=64 \
         deadline={deadline}"
    )
}
