//! Strangers at the port, and strange ports: nobody who has not proved itself costs a peer anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvx::error::{Cause, HandshakeError};

use crate::fabric::{Fabric, SOON};
use crate::memory::pattern;
use crate::probe::Probe;

pub(crate) fn a_port_of_garbage_is_told_from_an_engine(fabric: &dyn Fabric) {
    let a = fabric.engine_with("a", |config| config.deadline(SOON));
    let web: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html></html>";
    let noise = pattern(1 << 16);
    for answer in [web, &noise[..]] {
        let answer = answer.to_vec();
        let server = Server::start(move |mut stream| {
            let _ = stream.write_all(&answer);
        });
        let error = a.connect(server.address).wait().unwrap_err();
        let told = matches!(
            error.cause,
            Cause::Handshake(HandshakeError::NotKvx | HandshakeError::Malformed(_))
                | Cause::Deadline { .. }
        );
        assert!(told, "{error}");
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    }
    Probe::new(&a, &fabric.engine("b")).rounds(1);
}

pub(crate) fn a_port_of_silence_ends_by_the_deadline(fabric: &dyn Fabric) {
    let a = fabric.engine_with("a", |config| config.deadline(SOON));
    let silent = Server::start(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    // Nor does a listener whose backlog nobody empties.
    let backlog = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [silent.address, backlog.local_addr().unwrap()] {
        let error = a.connect(address).wait().unwrap_err();
        assert!(matches!(error.cause, Cause::Deadline { after: SOON, .. }), "{error}");
    }
    Probe::new(&a, &fabric.engine("b")).rounds(1);
}

pub(crate) fn garbage_at_the_port_disturbs_no_peer(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    for round in 0..40_usize {
        let mut stream = TcpStream::connect(b.local_addr()).unwrap();
        let len = [0, 1, 3, 16, 64, 1000, 70_000][round % 7];
        // The engine hangs up whenever it has seen enough.
        let _ = stream.write_all(&pattern(len));
        if round % 4 == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        probe.rounds(1);
    }
    assert_eq!(b.peers().len(), 1);
}

pub(crate) fn half_handshakes_disturb_no_peer(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    // What a real engine says first, cut off at every place, and bent at every place.
    let hello = first_words(fabric);
    assert!(hello.len() > 64);
    let mut open = Vec::new();
    for cut in 0..hello.len() {
        let mut stream = TcpStream::connect(b.local_addr()).unwrap();
        let _ = stream.write_all(&hello[..cut]);
        if cut % 2 == 0 {
            open.push(stream);
        }
        let mut bent = hello.clone();
        bent[cut] ^= 1 << (cut % 8);
        let mut stream = TcpStream::connect(b.local_addr()).unwrap();
        let _ = stream.write_all(&bent);
    }
    // The whole of it is answered, but who says it cannot say what comes next.
    let mut stream = TcpStream::connect(b.local_addr()).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    let _ = stream.write_all(&pattern(200));
    let _ = stream.read_to_end(&mut Vec::new());
    probe.rounds(2);
    assert_eq!(b.peers().len(), 1);
    let c = fabric.engine("c");
    Probe::new(&c, &b).rounds(1);
}

pub(crate) fn silent_connections_keep_no_peer_out(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    let silent: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(b.local_addr()).unwrap()).collect();
    Probe::new(&fabric.engine("c"), &b).rounds(1);
    probe.rounds(1);
    drop(silent);
}

/// What an engine says first to whoever it dials.
fn first_words(fabric: &dyn Fabric) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = fabric.engine_with("caller", |config| config.deadline(SOON));
    let calling = engine.connect(listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut hello = vec![0; 1 << 16];
    let mut have = 0;
    while let Ok(bytes @ 1..) = stream.read(&mut hello[have..]) {
        have += bytes;
    }
    hello.truncate(have);
    drop(listener);
    assert!(calling.wait().is_err());
    hello
}

/// A server that is no engine.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                let serve = Arc::clone(&serve);
                stream.into_iter().for_each(|stream| {
                    let serve = Arc::clone(&serve);
                    std::thread::spawn(move || serve(stream));
                });
            }
        });
        Self { address, over, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
