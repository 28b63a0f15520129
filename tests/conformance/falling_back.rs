//! A transport that does not lead to a peer is left for the next. Not of any one transport: the one
//! that does not lead there is made for the purpose.

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
    Probe::new(&a, &b).rounds(8);
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
