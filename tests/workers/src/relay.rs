//! A relay between engines, which cuts, stalls or corrupts connections at a chosen byte, and makes
//! the road slow. Engines tell their peers its address instead of their own, so that every
//! connection goes through it. It knows of the protocol which connections are control and which are
//! lanes, and nothing else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use kvx::Config;
use kvx::config::Advertise;

use crate::random::Random;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages.
    Control,
    /// Frames.
    Lane,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the engine behind the relay.
    In,
    /// From it.
    Out,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It ends both ways, as if in good order.
    Close,
    /// It is reset; what was on the way is lost.
    Reset,
    /// It ends in the way of the fault only.
    HalfClose,
    /// Nothing moves in the way of the fault any more, and nobody is told.
    Stall,
    /// One byte changes: these bits of it.
    Corrupt(u8),
}

/// How bytes travel in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How long a piece takes at least.
    pub delay: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
    /// Bytes of a piece at most, each piece of another size; 0: whatever comes at once.
    pub piece: usize,
}

/// A fault that waits for its byte: counted over all connections of its kind.
#[derive(Debug)]
struct Armed {
    kind: Kind,
    way: Way,
    left: u64,
    fault: Fault,
}

/// The relay of one engine.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The engine, once it is known where it listens.
    engine: Option<SocketAddr>,
    /// Nothing gets through: connections end as soon as they are made.
    down: bool,
    armed: Vec<Armed>,
    weather: Weather,
    connections: Vec<Arc<Connection>>,
}

#[derive(Debug)]
struct Connection {
    /// The side that dialed, and the engine.
    dialer: TcpStream,
    engine: TcpStream,
    stalled: Mutex<bool>,
}

impl Default for Relay {
    /// Listens, and leads nowhere yet.
    fn default() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        // Ends with the process: a test's relay is not worth more.
        thread::spawn(move || {
            for dialer in listener.incoming().map_while(Result::ok) {
                accepting.take(dialer);
            }
        });
        Self { address, shared }
    }
}

impl Relay {
    /// Listens, and leads nowhere yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine is there: from now on connections get through.
    pub fn serve(&self, engine: SocketAddr) {
        let mut state = self.shared.lock();
        state.engine = Some(engine);
        state.down = false;
    }

    /// Makes an engine tell its peers to come this way.
    pub fn lead(&self, config: Config) -> Config {
        config.advertise([Advertise::Socket(self.address)])
    }

    /// Lets a fault happen after as many bytes of this kind, this way.
    pub fn arm(&self, kind: Kind, way: Way, after: u64, fault: Fault) {
        self.shared.lock().armed.push(Armed { kind, way, left: after, fault });
    }

    /// Makes the road slow from now on; [`Weather::default`] makes it good again.
    pub fn weather(&self, weather: Weather) {
        self.shared.lock().weather = weather;
    }

    /// Forgets the faults that have not happened; says how many those are.
    pub fn disarm(&self) -> u64 {
        let armed = std::mem::take(&mut self.shared.lock().armed);
        armed.len() as u64
    }

    /// Waits until every fault armed has happened.
    pub fn wait_until_happened(&self) {
        let begin = Instant::now();
        while !self.shared.lock().armed.is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the fault does not happen");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends all connections, and each new one, until [`Self::up`] or [`Self::serve`].
    pub fn down(&self) {
        self.shared.lock().down = true;
        self.cut_all();
    }

    /// Lets connections through again.
    pub fn up(&self) {
        self.shared.lock().down = false;
    }

    /// Ends all connections there are, the stalled ones among them.
    pub fn cut_all(&self) {
        let connections = std::mem::take(&mut self.shared.lock().connections);
        connections.iter().for_each(|connection| connection.close());
        self.shared.changed.notify_all();
    }

    /// Lets stalled connections go on, with every byte that waited.
    pub fn release(&self) {
        let state = self.shared.lock();
        for connection in &state.connections {
            *connection.stalled.lock().unwrap() = false;
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.down();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn take(self: &Arc<Self>, dialer: TcpStream) {
        let (engine, down) = {
            let state = self.lock();
            (state.engine, state.down)
        };
        let Some(engine) = engine.filter(|_| !down) else { return };
        let Ok(engine) = TcpStream::connect(engine) else { return };
        dialer.set_nodelay(true).unwrap();
        engine.set_nodelay(true).unwrap();
        let connection = Connection { dialer, engine, stalled: Mutex::new(false) };
        let connection = Arc::new(connection);
        {
            let mut state = self.lock();
            if state.down {
                return;
            }
            state.connections.push(Arc::clone(&connection));
        }
        let shared = Arc::clone(self);
        thread::spawn(move || {
            // The type of the first message: what the connection is for.
            let mut begin = [0; 8];
            if (&connection.dialer).read_exact(&mut begin).is_err() {
                return shared.end(&connection);
            }
            let kind = if begin[4] == LANE_HELLO { Kind::Lane } else { Kind::Control };
            let (back, other) = (Arc::clone(&shared), Arc::clone(&connection));
            thread::spawn(move || back.pump(&other, kind, Way::Out, &[]));
            shared.pump(&connection, kind, Way::In, &begin);
        });
    }

    /// Moves bytes one way until they end.
    fn pump(&self, connection: &Arc<Connection>, kind: Kind, way: Way, begin: &[u8]) {
        let (mut from, mut to) = match way {
            Way::In => (&connection.dialer, &connection.engine),
            Way::Out => (&connection.engine, &connection.dialer),
        };
        let mut buffer = vec![0; 64 << 10];
        buffer[..begin.len()].copy_from_slice(begin);
        let mut len = begin.len();
        let mut random = Random::new(way as u64);
        loop {
            let weather = self.lock().weather;
            let next = weather.wait(&mut random).clamp(1, buffer.len());
            let bytes = &mut buffer[..len];
            let moved = match self.count(kind, way, len) {
                None => to.write_all(bytes),
                Some((at, Fault::Corrupt(bits))) => {
                    bytes[at] ^= bits;
                    to.write_all(bytes)
                }
                Some((at, Fault::Stall)) => {
                    *connection.stalled.lock().unwrap() = true;
                    let first = to.write_all(&bytes[..at]);
                    self.wait_released(connection);
                    first.and_then(|()| to.write_all(&bytes[at..]))
                }
                Some((at, Fault::HalfClose)) => {
                    let _ = to.write_all(&bytes[..at]);
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Some((at, fault)) => {
                    let _ = to.write_all(&bytes[..at]);
                    if fault == Fault::Reset {
                        connection.reset();
                    }
                    return self.end(connection);
                }
            };
            let read = moved.and_then(|()| from.read(&mut buffer[..next]));
            match read {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(read) => len = read,
                Err(_) => return self.end(connection),
            }
        }
    }

    /// As many bytes are about to pass: the fault among them, and before which of them it is.
    fn count(&self, kind: Kind, way: Way, len: usize) -> Option<(usize, Fault)> {
        let mut state = self.lock();
        let armed = &mut state.armed;
        let index = armed.iter_mut().position(|armed| {
            let counts = armed.kind == kind && armed.way == way;
            let due = counts && armed.left < len as u64;
            if counts && !due {
                armed.left -= len as u64;
            }
            due
        })?;
        let armed = armed.remove(index);
        Some((armed.left as usize, armed.fault))
    }

    fn wait_released(&self, connection: &Connection) {
        let mut state = self.lock();
        while *connection.stalled.lock().unwrap() {
            let waited = self.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap().0;
        }
    }

    fn end(&self, connection: &Arc<Connection>) {
        connection.close();
        self.lock().connections.retain(|other| !Arc::ptr_eq(other, connection));
    }
}

impl Weather {
    /// Waits as long as a piece takes; how many bytes the next one may have.
    fn wait(self, random: &mut Random) -> usize {
        let jitter = random.below(self.jitter.as_micros() as u64 + 1);
        let pause = self.delay + Duration::from_micros(jitter);
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        match self.piece {
            0 => usize::MAX,
            piece => 1 + random.below(piece as u64) as usize,
        }
    }
}

/// The type of the message that a lane begins with (PROTOCOL 3.1).
const LANE_HELLO: u8 = 4;

impl Connection {
    fn close(&self) {
        *self.stalled.lock().unwrap() = false;
        let _ = self.dialer.shutdown(Shutdown::Both);
        let _ = self.engine.shutdown(Shutdown::Both);
    }

    /// Both ends are told that the connection never ended well (connect(2): a TCP socket is
    /// dissolved by connecting it to AF_UNSPEC).
    fn reset(&self) {
        let _ = rustix::net::connect_unspec(&self.dialer);
        let _ = rustix::net::connect_unspec(&self.engine);
    }
}
