use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kvx::TransferOp;

use super::super::shape::MAX_BLOCKS;
use super::super::workload::{Blocks, Span};
use super::memory::{Memory, shares};
use super::message::{Setup, answer, is_refusal, read_answer};
use super::party::{Check, Party};
use super::stream::{ReadUntil, Side};
use super::{Copier, Foreign, LimitClient, LimitServer, Means, Pages};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Blocks of these lengths: at the source one after another with gaps of `gap` bytes, at the
/// target in an order of their own.
fn blocks(lens: &[usize], gap: usize) -> Blocks {
    let mut source_len = 3;
    let source = lens.iter().map(|len| {
        let offset = source_len;
        source_len += len + gap;
        Span { offset, len: *len }
    });
    let source = source.collect();
    let mut order: Vec<usize> = (0..lens.len()).collect();
    order.sort_by_key(|index| (index % 7, index % 3, *index));
    let mut target = vec![Span { offset: 0, len: 0 }; lens.len()];
    let mut target_len = 1;
    for index in order {
        target[index] = Span { offset: target_len, len: lens[index] };
        target_len += lens[index] + gap;
    }
    Blocks { source, target, source_len, target_len }
}

/// Both ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A client of a server whose clients move blocks over sockets.
fn connect(address: SocketAddr, blocks: &Blocks, op: TransferOp) -> io::Result<LimitClient> {
    let mut client = LimitClient::new(blocks, op)?;
    client.connect(address, Means::Streams)?;
    Ok(client)
}

/// Every number of connections, both ways and by all means, several times in any order, and pings
/// between.
fn measure(blocks: &Blocks) {
    for op in [TransferOp::Write, TransferOp::Read] {
        for by_memory in [false, true] {
            let mut client = LimitClient::new(blocks, op).unwrap();
            let means = if by_memory { Means::Memory(client.lend()) } else { Means::Streams };
            let (_server, port) = LimitServer::start(LOOPBACK, means).unwrap();
            client.connect(SocketAddr::new(LOOPBACK, port), means).unwrap();
            measure_with(&mut client);
        }
    }
}

fn measure_with(client: &mut LimitClient) {
    for connections in [1, 2, 4, 2, 1] {
        client.rep(connections).unwrap();
        client.check().unwrap();
    }
    for _ in 0..3 {
        client.ping().unwrap();
    }
    client.check().unwrap();
    client.rep(3).unwrap();
    client.ping().unwrap();
}

#[test]
fn blocks_of_odd_sizes_arrive_over_every_number_of_connections() {
    measure(&blocks(&[1, 4095, 3, 65_537, 8, 9, 100_003, 7], 5));
}

#[test]
fn more_blocks_than_a_call_takes_arrive() {
    measure(&blocks(&vec![130; 5000], 1));
}

#[test]
fn a_block_longer_than_any_call_moves_arrives() {
    measure(&blocks(&[24 << 20], 0));
}

#[test]
fn a_block_alone_leaves_connections_without_work() {
    measure(&blocks(&[4096], 0));
}

#[test]
fn a_byte_at_a_wrong_place_is_noticed() {
    let blocks = blocks(&[5, 100, 2000], 1);
    let mut memory = Memory::new(blocks.source_len, &blocks.source).unwrap();
    memory.fill();
    assert_eq!(memory.count_wrong(&blocks.source), 0);
    let shifted: Vec<Span> =
        blocks.source.iter().map(|span| Span { offset: span.offset + 8, ..*span }).collect();
    assert!(memory.count_wrong(&shifted) > 2000);
    memory.slices_mut().unwrap()[2][1999] ^= 1;
    assert_eq!(memory.count_wrong(&blocks.source), 1);
    memory.wipe();
    assert!(memory.count_wrong(&blocks.source) > 2000);
}

#[test]
fn pairs_are_shared_out_in_order_and_evenly_by_bytes() {
    let spans = |lens: &[usize]| -> Vec<Span> {
        lens.iter().map(|len| Span { offset: 0, len: *len }).collect()
    };
    assert_eq!(shares(&spans(&[1; 256]), 4), [0..64, 64..128, 128..192, 192..256]);
    assert_eq!(shares(&spans(&[6, 1, 1, 1, 1, 1, 1]), 2), [0..1, 1..7]);
    assert_eq!(shares(&spans(&[4096]), 4), [0..1, 1..1, 1..1, 1..1]);
}

#[test]
fn blocks_that_make_no_sense_are_refused() {
    let (_server, port) = LimitServer::start(LOOPBACK, Means::Streams).unwrap();
    let address = SocketAddr::new(LOOPBACK, port);
    let good = blocks(&[10, 10], 0);
    let overlapping = Span { offset: good.target[0].offset + 9, len: 10 };
    let outside = Span { offset: usize::MAX, len: 10 };
    let bad = [
        Blocks { target: vec![good.target[0], overlapping], ..good.clone() },
        Blocks { target: vec![good.target[0], outside], ..good.clone() },
        Blocks { source: vec![good.source[0], outside], ..good.clone() },
        Blocks { target: vec![good.target[0]], ..good.clone() },
        Blocks { source: Vec::new(), target: Vec::new(), ..good.clone() },
        Blocks { source_len: usize::MAX, target_len: usize::MAX, ..good.clone() },
    ];
    for blocks in bad {
        for op in [TransferOp::Write, TransferOp::Read] {
            assert!(connect(address, &blocks, op).is_err(), "{blocks:?}");
        }
        assert!(Copier::new(&blocks, Pages::Any).is_err(), "{blocks:?}");
    }
    connect(address, &good, TransferOp::Write).unwrap().rep(1).unwrap();
}

#[test]
fn more_pairs_than_any_workload_has_are_refused_before_they_are_read() {
    let head: Vec<u8> =
        [0, 1 << 30, 1 << 30, MAX_BLOCKS + 1].into_iter().flat_map(u64::to_le_bytes).collect();
    let error = Setup::read(&head[..]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
}

#[test]
fn a_stream_whose_bytes_drip_in_is_read_until_the_moment_and_no_longer() {
    let (mut near, far) = pair();
    let drip = thread::spawn(move || {
        while near.write_all(b"K").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let until = Instant::now() + Duration::from_millis(50);
    let error = ReadUntil::new(&far, until).read_exact(&mut [0; 1 << 20]).unwrap_err();
    let late = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    assert!(late.contains(&error.kind()), "{error}");
    drop(far);
    drip.join().unwrap();
}

#[test]
fn a_ping_whose_bytes_are_wrong_is_noticed_by_whoever_gets_them() {
    let blocks = blocks(&[4096], 0);
    let party = |side, op| {
        let own = match (side, op) {
            (Side::Client, TransferOp::Write) | (Side::Server, TransferOp::Read) => {
                (blocks.source_len, &blocks.source[..])
            }
            _ => (blocks.target_len, &blocks.target[..]),
        };
        Party::new(side, op, own, blocks.source.clone()).unwrap()
    };
    let wrong = [7; 4096];

    let (near, mut far) = pair();
    far.write_all(&wrong).unwrap();
    let found = party(Side::Client, TransferOp::Read).ping(&near, Check::Bytes).unwrap_err();
    assert_eq!(found.kind(), io::ErrorKind::InvalidData, "{found}");

    let (near, mut far) = pair();
    far.write_all(&wrong).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let mut told = Vec::new();
    let mut server = party(Side::Server, TransferOp::Write);
    let tell = |outcome: io::Result<()>| {
        told.push(outcome.unwrap_err().kind());
        Ok(())
    };
    server.answer_pings(&near, tell).unwrap();
    assert_eq!(told, [io::ErrorKind::InvalidData]);
}

#[test]
fn sessions_run_beside_each_other_and_strangers_disturb_none() {
    let (server, port) = LimitServer::start(LOOPBACK, Means::Streams).unwrap();
    let address = SocketAddr::new(LOOPBACK, port);
    let blocks = blocks(&[999; 50], 2);
    let mut first = connect(address, &blocks, TransferOp::Write).unwrap();
    let mut second = connect(address, &blocks, TransferOp::Read).unwrap();
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(stranger.read(&mut [0; 8]).unwrap_or(0), 0);
    let _silent = TcpStream::connect(address).unwrap();
    for _ in 0..3 {
        first.rep(4).unwrap();
        second.rep(4).unwrap();
        first.ping().unwrap();
    }
    drop(server);
    assert!(first.ping().is_err());
    assert!(second.rep(1).is_err());
}

#[test]
fn memcpy_copies_every_byte_by_any_number_of_threads() {
    for pages in [Pages::Any, Pages::Small] {
        let mut copier = Copier::new(&blocks(&[1, 70_000, 9, 4096], 3), pages).unwrap();
        for threads in [2, 1, 4, 1] {
            copier.rep(threads).unwrap();
        }
        assert!(copier.rep(0).is_err() && copier.rep(5).is_err());
    }
}

#[test]
fn a_process_whose_memory_is_not_there_is_no_refusal() {
    // Read by the server, and by the client.
    for op in [TransferOp::Write, TransferOp::Read] {
        let blocks = blocks(&[4096; 3], 1);
        let mut client = LimitClient::new(&blocks, op).unwrap();
        let len = client.lend().len;
        let nowhere = Foreign { pid: std::process::id().cast_signed(), base: 4096, len };
        let (_server, port) = LimitServer::start(LOOPBACK, Means::Memory(nowhere)).unwrap();
        client.connect(SocketAddr::new(LOOPBACK, port), Means::Memory(nowhere)).unwrap();
        match op {
            TransferOp::Write => {
                let error = client.rep(2).unwrap_err();
                assert!(!is_refusal(&error), "{error}");
                assert!(error.to_string().contains("Bad address"), "{error}");
            }
            // What the server said counts, not what it was told.
            TransferOp::Read => drop(client.rep(2).unwrap()),
        }
    }
}

#[test]
fn what_a_host_does_not_allow_is_told_as_such_over_the_connection() {
    for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported] {
        let mut said = Vec::new();
        answer(&mut said, &Err(kind.into())).unwrap();
        assert!(is_refusal(&read_answer(&said[..]).unwrap_err()));
    }
    let mut said = Vec::new();
    answer(&mut said, &Err(io::Error::other("no"))).unwrap();
    assert!(!is_refusal(&read_answer(&said[..]).unwrap_err()));
}

#[test]
fn only_memory_that_was_lent_is_read() {
    let blocks = blocks(&[10, 10], 0);
    let mut client = LimitClient::new(&blocks, TransferOp::Write).unwrap();
    let short = Foreign { len: blocks.source_len as u64 - 1, ..client.lend() };
    let (_server, port) = LimitServer::start(LOOPBACK, Means::Memory(short)).unwrap();
    let error = client.connect(SocketAddr::new(LOOPBACK, port), Means::Memory(short)).unwrap_err();
    assert!(error.to_string().contains("outside of the other side's memory"), "{error}");
}
