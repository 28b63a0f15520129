//! What planning costs: span pairs to runs, block ids to runs.
//!
//! Workload: 100,000 pairs of spans, in order (all merge) and scattered (none does, all are
//! sorted), by lists and by indices into prepared lists; the blocks of a request of Qwen3-32B at
//! tensor-parallel size 2, paged (8,192 blocks of 16 KiB in all pools) and a token a block (65,536
//! of 1 KiB). Unit: time for a plan, and pairs or blocks a second. To compare with: moving the
//! bytes; paged is 128 MiB, 30 to 70 ms over one TCP connection, and its plan should be a
//! hundredth of that. What a prepared plan saves is the difference to `prepared`, which only
//! checks bounds.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvx_core::plan::{Plan, PlanOptions};
use kvx_core::testing::Random;

#[path = "workload/blocks.rs"]
mod blocks;
#[path = "workload/pairs.rs"]
mod pairs;

use blocks::Blocks;

const PAIRS: u64 = 100_000;

fn spans(c: &mut Criterion) {
    let options = PlanOptions::default();
    let mut group = c.benchmark_group("plan/pairs");
    group.throughput(Throughput::Elements(PAIRS));
    let lists = [
        ("sequential", pairs::sequential(PAIRS, 1024)),
        ("scattered", pairs::scattered(PAIRS, 1024)),
    ];
    for (name, pairs) in &lists {
        group.bench_function(*name, |b| {
            b.iter(|| Plan::pair(black_box(&pairs.local), black_box(&pairs.remote), &options));
        });
    }
    let [(_, sequential), (_, scattered)] = &lists;
    let mut random = Random::new(3);
    let [left, right] = [0; 2].map(|_| random.order(PAIRS as usize));
    group.bench_function("selected", |b| {
        let (local, remote) = (&sequential.local, &sequential.remote);
        b.iter(|| Plan::select(local, black_box(&left), remote, black_box(&right), &options));
    });
    let plan = Plan::pair(&scattered.local, &scattered.remote, &options).expect("a plan");
    let lens = [PAIRS * 2048];
    group.bench_function("prepared", |b| b.iter(|| black_box(&plan).check(&lens, &lens)));
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan/blocks");
    let requests = [("paged", Blocks::scattered(64, 16)), ("token", Blocks::scattered(512, 1))];
    for (name, blocks) in &requests {
        group.throughput(Throughput::Elements(blocks.plan().len() as u64));
        group.bench_function(*name, |b| b.iter(|| black_box(blocks).plan()));
    }
    group.finish();
}

criterion_group!(benches, spans, requests);
criterion_main!(benches);
