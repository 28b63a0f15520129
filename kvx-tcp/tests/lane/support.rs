//! What is TCP's own: peers that speak by hand, options that cut everything in pieces.

use std::thread;
use std::time::Duration;

use kvx_core::id::{Slot, TransferId};
use kvx_core::time::Time;
use kvx_core::wire::frame::{FrameRuns, RawSpan};
use kvx_core::wire::{FrameHeader, WireSpan};
use kvx_tcp::{TcpOptions, TcpTransport};
use zerocopy::IntoBytes;

pub use crate::scripted::*;

/// The bytes of a WRITE of `payload` to one span each, for peers that speak by hand.
pub fn write_bytes(transfer: u64, expiry: Time, spans: &[(u32, usize, &[u8])]) -> Vec<u8> {
    let count = spans.len() as u32;
    let len = spans.iter().map(|(.., bytes)| bytes.len() as u32).sum();
    let runs = FrameRuns { first: 0, count, total: count };
    let header = FrameHeader::write(TransferId(transfer), None, expiry, runs, len);
    let mut bytes = header.encode().to_vec();
    for (slot, offset, payload) in spans.iter().copied() {
        let (len, offset) = (payload.len() as u32, offset as u64);
        let span = RawSpan::from(WireSpan { slot: Slot(slot), len, offset });
        bytes.extend_from_slice(span.as_bytes());
    }
    spans.iter().for_each(|(.., payload)| bytes.extend_from_slice(payload));
    bytes
}

/// Options under which everything is cut in pieces. Not the receive buffer: a window below the
/// loopback's segment size makes each segment wait for a timer of the kernel's.
pub fn tiny() -> TcpOptions {
    TcpOptions::new().io_threads(2).turn_bytes(777).send_buffer(1)
}

/// Waits until the transport has received so many bytes.
pub fn wait_received(transport: &TcpTransport, bytes: u64) {
    for _ in 0..HUNG.as_millis() {
        if transport.counters().received.bytes >= bytes {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("hung; {:?}", transport.counters());
}
