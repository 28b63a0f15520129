//! Strangers at the port: bytes that are no kvx, handshakes that never end, and silence.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use kvx_workers::random::{Random, from_env};

use crate::row::Row;
use crate::stage::{Stage, seed};

/// What strangers say, and what becomes of their connections.
#[test]
fn garbage_at_every_port_ends_in_a_closed_connection() {
    let mut stage = Stage::new("garbage", "");
    let mut random = Random::new(seed());
    let rounds = from_env("KVX_FAULT_ROUNDS", 16);
    let strange: [(&str, Saying); 6] = [
        ("random bytes", |random| {
            let len = 1 + random.below(4096);
            noise(random, len)
        }),
        ("an HTTP request", |_| b"GET / HTTP/1.1\r\nHost: kvx\r\nAccept: */*\r\n\r\n".to_vec()),
        ("a TLS ClientHello", |random| [&TLS_CLIENT_HELLO[..], &noise(random, 240)].concat()),
        ("a good prefix, then noise", |random| {
            let body = random.below(4088);
            let kind = 1 + random.below(7) as u8;
            let prefix = [b'K', b'V', b'X', b'\n', kind, 0, body as u8, (body >> 8) as u8];
            [&prefix[..], &noise(random, body.max(1))].concat()
        }),
        ("a prefix that promises too much", |random| {
            let prefix = [b'K', b'V', b'X', b'\n', 1, 0, 0xff, 0xff];
            [&prefix[..], &noise(random, 1 << 20)].concat()
        }),
        ("4 MiB of noise", |random| noise(random, 4 << 20)),
    ];
    for (fault, bytes) in strange {
        let row = Row::new(fault, "hung up on; nothing kept; peers served");
        row.play(&mut stage, |stage| {
            let ports = stage.ports();
            for _ in 0..rounds {
                ports.iter().for_each(|port| say(*port, &bytes(&mut random)));
            }
            stage.wait_served(1);
            rounds * ports.len() as u64
        });
    }
}

fn noise(random: &mut Random, len: u64) -> Vec<u8> {
    (0..len.div_ceil(8)).flat_map(|_| random.word().to_le_bytes()).collect()
}

/// What a stranger says.
type Saying = fn(&mut Random) -> Vec<u8>;

/// Connections that end in every way without a word, or in the middle of one.
#[test]
fn connections_that_end_at_once_leave_nothing_behind() {
    let mut stage = Stage::new("closers", "");
    let rounds = from_env("KVX_FAULT_ROUNDS", 16) * 16;
    let ways: [(&str, End); 4] = [
        ("connections closed at once", |stream| drop(stream)),
        ("connections reset at once", reset),
        ("connections half closed", |mut stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }),
        ("connections reset inside a handshake", |mut stream| {
            stream.write_all(b"KVX\n\x01\0\xff").unwrap();
            reset(stream);
        }),
    ];
    for (fault, end) in ways {
        let row = Row::new(fault, "nothing kept; peers served");
        row.play(&mut stage, |stage| {
            let ports = stage.ports();
            for _ in 0..rounds {
                ports.iter().for_each(|port| end(TcpStream::connect(port).unwrap()));
            }
            stage.wait_served(1);
            rounds * ports.len() as u64
        });
    }
}

/// How a connection ends.
type End = fn(TcpStream);

/// Both ends are told that it never ended well.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// Says it, and waits to be hung up on.
fn say(port: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(port).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    // The engine hangs up as soon as it has seen enough.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let ended = stream.read_to_end(&mut Vec::new());
    let silent = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!ended.as_ref().is_err_and(silent), "nobody hung up");
}

/// A record of type handshake, TLS 1.0, with a ClientHello of 508 bytes.
const TLS_CLIENT_HELLO: [u8; 11] =
    [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
