//! Those who connect and say nothing, or say it too slowly: they take the places of handshakes, and
//! must not keep them from honest peers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvx_workers::random::Random;
use kvx_workers::worker::Worker;

use crate::row::Row;
use crate::stage::{PATIENCE, Stage, seed};

#[test]
fn silent_and_slow_strangers_keep_no_honest_peer_out() {
    let mut stage = Stage::new("silence", "");
    let mut newcomer = stage.third("newcomer", BY_ITS_DEADLINE);
    for (fault, count) in [
        ("a hundred silent connections", 100),
        ("more silent connections than places", 400),
        ("silent connections, by the thousand", 1500),
    ] {
        Row::new(fault, HOLDS).play(&mut stage, |stage| {
            let (ports, before) = (stage.ports(), stage.vitals().descriptors);
            let open = |port: &SocketAddr| TcpStream::connect(port).unwrap();
            let silent: Vec<TcpStream> = (0..count).flat_map(|_| ports.iter().map(open)).collect();
            for _ in 0..3 {
                arrive(stage, &mut newcomer);
                // Who came before them has been accepted, and the oldest evicted.
                let kept = stage.vitals().descriptors - before;
                assert!(kept <= PLACES + 16, "{kept} connections are kept");
            }
            stage.wait_served(2);
            silent.len() as u64
        });
    }
    Row::new("silent connections that never stop coming", HOLDS).play(&mut stage, |stage| {
        let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
        let port = stage.victim.address;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Dropped by the hundred, long after the engine has evicted most.
                    let batch: Vec<_> = (0..100).map(|_| TcpStream::connect(port)).collect();
                    made.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(20));
                }
            });
            for _ in 0..5 {
                arrive(stage, &mut newcomer);
            }
            stage.wait_served(2);
            over.store(true, Ordering::Relaxed);
        });
        made.into_inner()
    });
    let hello = first_words(&mut stage);
    Row::new("handshakes at a byte a time, without end", HOLDS).play(&mut stage, |stage| {
        let mut random = Random::new(seed());
        let mut slow: Vec<Slow> = (0..64).map(|_| Slow::new(stage.victim.address)).collect();
        let mut arrived = 0;
        let begin = Instant::now();
        // Until the engine has hung up on each, for none of them ever ends by itself.
        while slow.iter().any(|slow| !slow.ended) {
            assert!(begin.elapsed() < PATIENCE, "a slow handshake is never given up");
            for slow in &mut slow {
                slow.say_more(&hello, random.below(2));
            }
            if arrived < 3 {
                arrive(stage, &mut newcomer);
                arrived += 1;
            }
            thread::sleep(Duration::from_millis(50));
        }
        slow.len() as u64
    });
}

/// Handshakes that an engine has room for.
const PLACES: u64 = 256;

const HOLDS: &str = "newcomers connect by their deadline; peers served";

/// An honest peer comes, is heard, and goes.
fn arrive(stage: &Stage, newcomer: &mut Worker) {
    newcomer.must(&format!("connect peer=victim address={}", stage.victim.address));
    newcomer.must("notify peer=victim from=0 to=1");
    newcomer.must("shutdown");
    newcomer.must(&format!("engine name=newcomer {BY_ITS_DEADLINE}"));
}

const BY_ITS_DEADLINE: &str = "deadline=10000";

/// A handshake that comes byte by byte and never gets to its end.
struct Slow {
    stream: TcpStream,
    said: usize,
    ended: bool,
}

impl Slow {
    fn new(port: SocketAddr) -> Self {
        let stream = TcpStream::connect(port).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, said: 0, ended: false }
    }

    /// Says the next bytes of it, but never the last.
    fn say_more(&mut self, hello: &[u8], bytes: u64) {
        let next = (self.said + bytes as usize).min(hello.len() - 1);
        let written = self.stream.write(&hello[self.said..next]);
        self.said += written.unwrap_or(0);
        let mut answer = [0; 16];
        match self.stream.read(&mut answer) {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error) => self.ended |= error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// What an engine says first to whomever it dials.
fn first_words(stage: &mut Stage) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut caller = stage.third("caller", "deadline=500");
    caller.tell(&format!("connect peer=nobody address={}", listener.local_addr().unwrap()));
    let (mut stream, _) = listener.accept().unwrap();
    let mut hello = vec![0; 8];
    stream.read_exact(&mut hello).unwrap();
    let len = usize::from(u16::from_le_bytes([hello[6], hello[7]]));
    hello.resize(8 + len, 0);
    stream.read_exact(&mut hello[8..]).unwrap();
    hello
}
