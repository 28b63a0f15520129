//! What is measured beside a row: which loop, and what becomes of one that ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use kvx::TransferOp;

use super::super::limit::LimitServer;
use super::super::shape::{Order, Shape};
use super::super::workload::Workload;
use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const SMALL: Shape = Shape { pools: 2, blocks: 5, block_bytes: 777, order: Order::Scattered };

fn task(workload: Workload, op: TransferOp) -> Task {
    let shape = if workload == Workload::Ping { workload.shape() } else { SMALL };
    Task { workload: workload.name(), shape, op }
}

fn peer() -> PeerName {
    PeerName::unverified("the other")
}

/// The loops beside a row, and what serves them in this process.
fn beside(task: &Task, transport: TransportKind, owner: Owner) -> (Beside, Option<LimitServer>) {
    let mut beside = Beside::new(task, transport, 2, owner, 1).unwrap();
    let served = beside.means().map(|means| LimitServer::start(LOOPBACK, means).unwrap());
    let (server, port) = served.unzip();
    let addresses: Vec<SocketAddr> = port.into_iter().map(|port| (LOOPBACK, port).into()).collect();
    beside.connect(&addresses, &peer()).unwrap();
    (beside, server)
}

#[test]
fn each_row_has_the_limit_of_what_its_transport_is_made_of() {
    use TransportKind::{Shm, Tcp};
    let cases = [
        (Tcp, Owner::Engine, Workload::Large, "tcp", &[1, 2, 4][..]),
        (Tcp, Owner::Caller, Workload::Ping, "tcp", &[1]),
        (Shm, Owner::Caller, Workload::Large, "process_vm_readv", &[1, 2]),
        (Shm, Owner::Engine, Workload::Large, "memcpy", &[1, 2]),
        (Shm, Owner::Caller, Workload::Ping, "eventfd", &[1]),
        (Shm, Owner::Engine, Workload::Ping, "eventfd", &[1]),
    ];
    for (transport, owner, workload, expected, threads) in cases {
        for op in [TransferOp::Write, TransferOp::Read] {
            let (mut beside, _server) = beside(&task(workload, op), transport, owner);
            beside.warm_up(3, &peer()).unwrap();
            beside.reps(2, &peer()).unwrap();
            assert!(beside.tries.iter().all(|of| of.reps.len() == 2), "{:?}", beside.tries);
            let limits = beside.limits();
            let (limit, memcpy) = (limits.limit.unwrap(), limits.memcpy.unwrap());
            assert_eq!((limit.by.name(), limits.refused), (expected, None));
            assert!(threads.contains(&limit.threads), "{limit:?}");
            assert_eq!(memcpy.by, Yardstick::Memcpy);
            assert!(memcpy.gbps() > 0.0 && limit.gbps() > 0.0);
        }
    }
}

#[test]
fn bare_loops_that_end_are_an_error_that_names_the_peer() {
    use TransportKind::{Shm, Tcp};
    let op = TransferOp::Write;
    for (transport, workload) in
        [(Tcp, Workload::Ping), (Tcp, Workload::Token), (Shm, Workload::Ping), (Shm, Workload::Mla)]
    {
        let (mut beside, server) = beside(&task(workload, op), transport, Owner::Caller);
        beside.reps(1, &peer()).unwrap();
        drop(server);
        let why = beside.reps(1, &peer()).unwrap_err();
        // Not taken for a reader of standard output that left.
        assert!(!why.is::<io::Error>(), "{why}");
        assert!(why.to_string().starts_with("bare loops with the other: "), "{why}");
    }
}

#[test]
fn memory_that_may_not_be_read_is_no_limit_and_says_why() {
    let task = task(Workload::Large, TransferOp::Write);
    let mut beside = Beside::new(&task, TransportKind::Shm, 2, Owner::Caller, 1).unwrap();
    beside.refuse("it is forbidden".to_owned());
    beside.reps(2, &peer()).unwrap();
    let limits = beside.limits();
    assert!(limits.limit.is_none() && limits.memcpy.is_some());
    assert_eq!(limits.refused.as_deref(), Some("it is forbidden"));
}
