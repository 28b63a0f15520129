//! What posting costs, apart from moving bytes.
//!
//! Workload: `protocol` posts a transfer, hands every frame of it from one peer to the other and
//! the acknowledgements back, without sockets, threads or payload; `engine` posts a prepared WRITE
//! of 4 KiB over loopback, and times the call alone, which sends the bytes itself. Unit: time a
//! transfer, and runs a second. To compare with: one `sendmsg` on loopback takes about 5 µs for 4
//! KiB; the protocol's part of a small transfer should stay below that.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvx::{PostOptions, TransferOp};
use kvx_core::plan::{Plan, PlanOptions, Span, Spans};

#[path = "workload/blocks.rs"]
mod blocks;
#[path = "workload/conversation.rs"]
mod conversation;
#[path = "workload/engines.rs"]
mod engines;
#[path = "workload/regions.rs"]
mod regions;

use blocks::Blocks;
use conversation::Conversation;

fn protocol(c: &mut Criterion) {
    let mut group = c.benchmark_group("post/protocol");
    for (name, regions, plan) in
        [("one run", 1, one_run()), ("paged", 128, Blocks::scattered(64, 16).plan())]
    {
        let plan = Arc::new(plan);
        let mut conversation = Conversation::new(regions);
        group.throughput(Throughput::Elements(plan.len() as u64));
        for (op, name) in [
            (TransferOp::Write, format!("write {name}")),
            (TransferOp::Read, format!("read {name}")),
        ] {
            group.bench_function(name, |b| {
                b.iter(|| {
                    conversation.post(op, black_box(&plan));
                    assert_eq!(conversation.carry(), 1);
                });
            });
        }
    }
    group.finish();
}

fn engine(c: &mut Criterion) {
    let pair = engines::Engines::new(4096).expect("two engines over loopback");
    let prepared = pair.prepare(TransferOp::Write, 4096).expect("a plan within the regions");
    let mut group = c.benchmark_group("post/engine");
    group.throughput(Throughput::Elements(1));
    group.bench_function("write 4096", |b| {
        b.iter_custom(|times| posting(&prepared, times).expect("a transfer over loopback"));
    });
    group.finish();
}

/// The time that `times` calls of `post` take, each transfer done before the next.
fn posting(prepared: &kvx::Prepared, times: u64) -> Result<Duration, Box<dyn Error>> {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let start = Instant::now();
        let transfer = prepared.post(PostOptions::new())?;
        total += start.elapsed();
        transfer.wait()?;
    }
    Ok(total)
}

fn one_run() -> Plan {
    let list: Spans = [Span { region: 0, offset: 0, len: 4096 }].into_iter().collect();
    Plan::pair(&list, &list, &PlanOptions::default()).expect("a plan")
}

criterion_group!(benches, protocol, engine);
criterion_main!(benches);
