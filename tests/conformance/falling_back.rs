//! Which transport serves a peer: the first that leads there. Not of any one transport: the one that
//! does not lead anywhere is made for the purpose.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use kvx::error::{Cause, Error, LaneError};
use kvx::transport::{
    Capabilities, Lane, LaneHost, LaneOpen, Operations, Transport, TransportKind,
};
use kvx::{Config, Engine};
use kvx_tcp::{TcpOptions, TcpTransport};

use crate::fabric::{LONG, unique};
use crate::log;
use crate::probe::Probe;

/// Leads nowhere: each lane finds out, as soon as it is open.
#[derive(Debug)]
struct Nowhere;

#[derive(Debug)]
struct NoLane;

impl Lane for NoLane {
    fn wake(&self) {}

    fn drive(&self, _: usize) {}

    fn attend(&self, _: Option<Duration>, _: &mut dyn FnMut(&mut Context<'_>) -> bool) {}

    fn close(&self, _: LaneError) {}
}

impl Transport for Nowhere {
    fn kind(&self) -> TransportKind {
        TransportKind::Shm
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { operations: Operations::all(), lanes: 2 }
    }

    fn open(&self, open: LaneOpen, host: Arc<dyn LaneHost>) -> Result<Arc<dyn Lane>, LaneError> {
        std::thread::spawn(move || {
            host.closed(open.lane, LaneError::Unreachable("it leads nowhere".into()));
        });
        Ok(Arc::new(NoLane))
    }

    fn shutdown(&self) {}
}

fn engine(name: &str, transports: Vec<Arc<dyn Transport>>) -> Engine {
    let kinds: Vec<_> = transports.iter().map(|transport| transport.kind()).collect();
    let config = Config::default().deadline(LONG).name(unique(name)).transports(kinds);
    Engine::with_transports(config, transports).unwrap()
}

fn tcp() -> Arc<dyn Transport> {
    TcpTransport::new(TcpOptions::new().io_threads(2)).unwrap()
}

#[test]
fn a_transport_that_does_not_lead_to_a_peer_is_left_for_the_next() {
    let [a, b] = ["a", "b"].map(|name| engine(name, vec![Arc::new(Nowhere), tcp()]));
    let probe = Probe::new(&a, &b);
    probe.rounds(8);
    assert_eq!(probe.peer.transport(), Some(TransportKind::Tcp));
}

#[test]
fn leaving_a_transport_is_one_line_of_the_log_that_names_peer_and_reason() {
    log::collect();
    let [a, b] = ["left", "leaves"].map(|name| engine(name, vec![Arc::new(Nowhere), tcp()]));
    Probe::new(&a, &b).rounds(8);
    let said = log::lines_about(b.name());
    let [line] = &said[..] else { panic!("{said:?}") };
    for part in [" INFO ", "transport is ruled out", "shm", "it leads nowhere"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn engines_of_one_host_share_memory_unless_one_of_them_does_not_want_to() {
    log::collect();
    let default = || Config::default().deadline(LONG);
    let [a, b] = ["a", "b"].map(|name| Engine::new(default().name(unique(name))).unwrap());
    let probe = Probe::new(&a, &b);
    probe.rounds(2);
    assert_eq!(probe.peer.transport(), Some(TransportKind::Shm));
    let alone = default().name(unique("alone")).transports([TransportKind::Tcp]);
    let alone = Engine::new(alone).unwrap();
    for (from, to) in [(&a, &alone), (&alone, &b)] {
        let probe = Probe::new(from, to);
        probe.rounds(2);
        assert_eq!(probe.peer.transport(), Some(TransportKind::Tcp));
    }
    let said = log::lines_about(alone.name());
    assert_eq!(said, Vec::<String>::new(), "nothing was left that was never tried");
}

#[test]
fn without_a_next_one_the_peer_is_over_and_says_why() {
    let [a, b] = ["a", "b"].map(|name| engine(name, vec![Arc::new(Nowhere)]));
    let peer = a.add_peer(&b.metadata(&[]).unwrap()).unwrap();
    loop {
        match peer.notify("x").wait() {
            Err(error) if matches!(error.cause, Cause::NoTransport) => break,
            // Control went on until the lanes were seen to lead nowhere.
            Ok(()) | Err(Error { cause: Cause::DeliveryUnknown(_), .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
