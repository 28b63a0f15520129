//! What a whole transfer takes, by its size: post to outcome, over loopback TCP.
//!
//! Workload: two engines in this process; one run of 512 B to 64 MiB, WRITE and READ, one transfer
//! after the other, prepared once. Unit: time a transfer, and bytes a second. To compare with:
//! `kvx bench`, which stands the limit of bare vectored calls beside each row of the same run and
//! uses two processes; here both sides share this process's cores and nothing is checked but the
//! outcome.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kvx::{PostOptions, TransferOp};

#[path = "workload/engines.rs"]
mod engines;

const LARGEST: u64 = 64 << 20;

fn by_size(c: &mut Criterion) {
    let engines = engines::Engines::new(LARGEST).expect("two engines over loopback");
    for (name, op) in [("write", TransferOp::Write), ("read", TransferOp::Read)] {
        let mut group = c.benchmark_group(format!("transfer/{name}"));
        let sizes = std::iter::successors(Some(512), |size| Some(size * 8));
        for size in sizes.take_while(|size| *size < LARGEST).chain([LARGEST]) {
            let prepared = engines.prepare(op, size).expect("a plan within the regions");
            if size >= 1 << 20 {
                group.sample_size(10);
            }
            group.throughput(Throughput::Bytes(size));
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    let posted = prepared.post(PostOptions::new());
                    posted.and_then(|transfer| transfer.wait()).expect("a transfer over loopback")
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, by_size);
criterion_main!(benches);
