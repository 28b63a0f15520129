//! The side that is measured against: a port where clients set up sessions. Not what a session
//! does.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Means;
use super::foreign::Foreign;
use super::memory::invalid;
use super::message::Hello;
use super::session;
use super::stream::ReadUntil;

/// The place of a session's connection for pings.
pub(super) const PINGS: u64 = u64::MAX;

/// Connections at once, beyond which new ones are closed.
const MAX_GUESTS: usize = 64;

/// Memory of all sessions together.
pub(crate) const MEMORY: u64 = 16 << 30;

/// How long a new connection may take to say what it is for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause after an accept that failed, for lack of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves bare loops on threads of its own until dropped.
#[derive(Debug)]
pub(crate) struct LimitServer {
    listener: Arc<TcpListener>,
    house: Arc<House>,
    thread: Option<JoinHandle<()>>,
}

/// Who is there.
#[derive(Debug)]
pub(super) struct House {
    /// Out of which memory blocks are read, if they are not sent.
    lender: Option<Foreign>,
    rooms: Mutex<Rooms>,
}

#[derive(Debug)]
struct Rooms {
    is_closed: bool,
    /// The last number given to a guest; each is given once.
    last: u64,
    /// Every connection, so that all can be ended.
    guests: HashMap<u64, TcpStream>,
    /// Where the data connections of a session go, by the number of its control connection.
    sessions: HashMap<u64, Sender<(u64, Guest)>>,
    memory_left: u64,
}

/// A connection. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) stream: TcpStream,
    number: u64,
    house: Arc<House>,
}

/// A session's share of the memory.
#[derive(Debug)]
pub(super) struct Loan {
    bytes: u64,
    house: Arc<House>,
}

impl LimitServer {
    /// Listens on any free port of `ip`, and gives the port. Clients move blocks by these means.
    ///
    /// # Errors
    /// The address is not this machine's; no descriptors or threads are left.
    pub(crate) fn start(ip: IpAddr, means: Means) -> io::Result<(Self, u16)> {
        let listener = Arc::new(TcpListener::bind(SocketAddr::new(ip, 0))?);
        let port = listener.local_addr()?.port();
        let rooms = Rooms {
            is_closed: false,
            last: 0,
            guests: HashMap::new(),
            sessions: HashMap::new(),
            memory_left: MEMORY,
        };
        let lender = match means {
            Means::Streams => None,
            Means::Memory(lender) => Some(lender),
        };
        let house = Arc::new(House { lender, rooms: Mutex::new(rooms) });
        let (open, host) = (Arc::clone(&listener), Arc::clone(&house));
        let named = thread::Builder::new().name("kvx-limit".to_owned());
        let thread = named.spawn(move || listen(&open, &host))?;
        Ok((Self { listener, house, thread: Some(thread) }, port))
    }
}

impl Drop for LimitServer {
    fn drop(&mut self) {
        self.house.close();
        // Ends the accept that the thread waits in.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // One that panicked has printed why.
            let _ = thread.join();
        }
    }
}

/// Accepts until the house is closed, and waits until all guests are gone.
fn listen(listener: &TcpListener, house: &Arc<House>) {
    thread::scope(|scope| {
        while !house.rooms().is_closed {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let Some(guest) = House::enter(house, stream) else { continue };
            let named = thread::Builder::new().name("kvx-limit".to_owned());
            // A guest for whom there is no thread is gone with it.
            let _ = named.spawn_scoped(scope, move || greet(guest));
        }
    });
}

/// A stranger who makes no sense is nobody's concern: its connection ends, and says so.
fn greet(guest: Guest) {
    let until = Instant::now() + PATIENCE;
    match Hello::read(ReadUntil::new(&guest.stream, until)) {
        Ok(Hello::Session) => session::serve(&guest),
        Ok(Hello::Data { session, place }) => {
            let house = Arc::clone(&guest.house);
            let room = house.rooms().sessions.get(&session).cloned();
            if let Some(room) = room {
                // A session that is over drops what was sent to it.
                let _ = room.send((place, guest));
            }
        }
        Err(_) => {}
    }
}

impl House {
    fn enter(house: &Arc<Self>, stream: TcpStream) -> Option<Guest> {
        let mut rooms = house.rooms();
        if rooms.is_closed || rooms.guests.len() >= MAX_GUESTS {
            return None;
        }
        let same = stream.try_clone().ok()?;
        rooms.last += 1;
        let number = rooms.last;
        rooms.guests.insert(number, same);
        drop(rooms);
        Some(Guest { stream, number, house: Arc::clone(house) })
    }

    fn close(&self) {
        let mut rooms = self.rooms();
        rooms.is_closed = true;
        rooms.sessions.clear();
        // Those that are past this have ended already.
        rooms.guests.values().for_each(|guest| _ = guest.shutdown(Shutdown::Both));
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        // Nothing in here unwinds halfway.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Makes this the control connection of a session: gives the session's id, and where its data
    /// connections come in.
    pub(super) fn open_session(&self) -> (u64, Receiver<(u64, Guest)>) {
        let (sender, receiver) = channel();
        self.house.rooms().sessions.insert(self.number, sender);
        (self.number, receiver)
    }

    /// Out of which memory blocks are read, if they are not sent.
    pub(super) fn lender(&self) -> Option<Foreign> {
        self.house.lender
    }

    /// Takes memory for a session.
    ///
    /// # Errors
    /// There is not as much left.
    pub(super) fn borrow(&self, bytes: u64) -> io::Result<Loan> {
        let mut rooms = self.house.rooms();
        let left = rooms.memory_left.checked_sub(bytes);
        rooms.memory_left = left.ok_or_else(|| invalid("more memory than the server gives"))?;
        Ok(Loan { bytes, house: Arc::clone(&self.house) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut rooms = self.house.rooms();
        rooms.sessions.remove(&self.number);
        rooms.guests.remove(&self.number);
        drop(rooms);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.house.rooms().memory_left += self.bytes;
    }
}
