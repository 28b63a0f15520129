//! A road between two engines that breaks when it is told to: bytes pass through threads of the
//! test, which understand nothing of them.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use kvx::Config;
use kvx::config::Advertise;

/// Forwards every connection to where it is aimed.
pub(crate) struct Relay {
    address: SocketAddr,
    road: Arc<Mutex<Road>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Road {
    target: Option<SocketAddr>,
    streams: Vec<TcpStream>,
    over: bool,
}

impl Relay {
    /// Leads nowhere yet.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let road = Arc::new(Mutex::new(Road::default()));
        let guest = Arc::clone(&road);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut road = guest.lock().unwrap();
                if road.over {
                    return;
                }
                let target = road.target.and_then(|target| TcpStream::connect(target).ok());
                if let (Ok(stream), Some(target)) = (stream, target) {
                    forward(&mut road, &stream, &target);
                    forward(&mut road, &target, &stream);
                }
            }
        });
        Self { address, road, thread: Some(thread) }
    }

    /// Where to dial it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes an engine tell its peers to come this way.
    pub(crate) fn lead(&self, config: Config) -> Config {
        config.advertise([Advertise::Socket(self.address)])
    }

    /// New connections go there.
    pub(crate) fn aim(&self, target: SocketAddr) {
        self.road.lock().unwrap().target = Some(target);
    }

    /// Breaks all connections; new ones may come at once.
    pub(crate) fn sever(&self) {
        for stream in std::mem::take(&mut self.road.lock().unwrap().streams) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Breaks all connections, and lets none through until it is aimed again.
    pub(crate) fn cut(&self) {
        self.road.lock().unwrap().target = None;
        self.sever();
    }
}

/// Copies one direction until either end is gone, and then ends both.
fn forward(road: &mut Road, from: &TcpStream, to: &TcpStream) {
    let (mut reader, mut writer) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    road.streams.push(from.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = io::copy(&mut reader, &mut writer);
        let _ = writer.shutdown(Shutdown::Both);
        let _ = reader.shutdown(Shutdown::Both);
    });
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.road.lock().unwrap().over = true;
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
