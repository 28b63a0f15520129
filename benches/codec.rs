//! What encoding and decoding cost: frame heads, control messages, metadata blobs.
//!
//! Workload: the head of a full frame (a header and 1,024 table entries, for 1 MiB of 1 KiB runs),
//! a hundred small control messages, a grant of 128 pools and 1,024 blocks, a blob of 1,000
//! regions. Unit: time for one of each, and entries a second. To compare with: a frame's 1 MiB
//! takes about 250 µs of copying on each side at 4 GB/s; a head should cost a hundredth of that.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvx_core::wire::message::Message;
use kvx_core::wire::metadata::Metadata;
use kvx_core::wire::{FrameHeader, decode_table};

#[path = "workload/messages.rs"]
mod messages;

fn frames(c: &mut Criterion) {
    let head = messages::head();
    let (header, table) = head.encode();
    let mut group = c.benchmark_group("codec/frame");
    group.throughput(Throughput::Elements(table.len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&head).encode()));
    group.bench_function("decode", |b| {
        let mut spans = Vec::new();
        b.iter(|| {
            let header = FrameHeader::decode(black_box(&header)).expect("a header");
            decode_table(&header, black_box(&table), &mut spans).expect("a table");
            spans.len()
        });
    });
    group.finish();
}

fn control(c: &mut Criterion) {
    let small = messages::small_messages();
    for (name, messages) in [("small", small), ("grant", vec![messages::grant()])] {
        let bodies: Vec<(u16, Bytes)> =
            messages.iter().map(|message| (message.kind(), messages::body(message))).collect();
        let mut group = c.benchmark_group(format!("codec/{name}"));
        group.throughput(Throughput::Elements(messages.len() as u64));
        group.bench_function("encode", |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                for message in black_box(&messages) {
                    message.encode_body(&mut out).expect("a message within bounds");
                }
                out.len()
            });
        });
        group.bench_function("decode", |b| {
            b.iter(|| {
                for (kind, body) in black_box(&bodies) {
                    black_box(Message::decode(*kind, body.clone()).expect("a message"));
                }
            });
        });
        group.finish();
    }
}

fn blobs(c: &mut Criterion) {
    let metadata = messages::metadata();
    let blob = metadata.encode().expect("a blob within bounds");
    let mut group = c.benchmark_group("codec/metadata");
    group.throughput(Throughput::Elements(metadata.regions.len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&metadata).encode()));
    group.bench_function("decode", |b| b.iter(|| Metadata::decode(black_box(&blob))));
    group.finish();
}

criterion_group!(benches, frames, control, blobs);
criterion_main!(benches);
