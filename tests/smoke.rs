//! Two engines of one process, end to end over TCP.

use std::time::Duration;

use kvx::layout::{Layout, Preset};
use kvx::{Config, Engine, KvPool, Rights, Room, SessionKey, Span, Spans, TransferOp};

fn spans(list: &[(u32, u64, u64)]) -> Spans {
    list.iter().map(|&(region, offset, len)| Span { region, offset, len }).collect()
}

#[test]
fn bytes_written_and_read_are_the_bytes_that_were_there() {
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .try_init();
    let a = Engine::new(Config::default().name("a")).unwrap();
    let b = Engine::new(Config::default().name("b")).unwrap();
    let (source, source_region) = a.allocate(1 << 20, Rights::empty()).unwrap();
    let (target, target_region) =
        b.allocate(1 << 20, Rights::REMOTE_READ | Rights::REMOTE_WRITE).unwrap();
    source.fill(0, 1 << 20, 7).unwrap();
    let peer = a.add_peer(&b.metadata([&target_region]).unwrap()).unwrap();
    let remote = [peer.regions()[0].id];
    let prepared = peer
        .prepare(
            TransferOp::Write,
            (&[&source_region], &spans(&[(0, 0, 300_000), (0, 500_000, 1000)])),
            (&remote, &spans(&[(0, 10, 300_000), (0, 400_000, 1000)])),
        )
        .unwrap();
    let transfer = prepared.post(kvx::PostOptions::new().notify("done")).unwrap();
    let report = transfer.wait().unwrap();
    assert_eq!(report.bytes, 301_000);
    let note = b.wait_notification(Duration::from_secs(10)).unwrap();
    assert_eq!(&note.bytes[..], b"done");
    let mut seen = vec![0; 1 << 20];
    target.read(0, &mut seen).unwrap();
    assert!(seen[10..300_010].iter().all(|byte| *byte == 7));
    assert_eq!(seen[9], 0);
    assert_eq!(seen[300_010], 0);
    assert!(seen[400_000..401_000].iter().all(|byte| *byte == 7));
    target.fill(0, 1 << 20, 9).unwrap();
    let prepared = peer
        .prepare(
            TransferOp::Read,
            (&[&source_region], &spans(&[(0, 5, 700_000)])),
            (&remote, &spans(&[(0, 5, 700_000)])),
        )
        .unwrap();
    prepared.post(kvx::PostOptions::new()).unwrap().wait().unwrap();
    source.read(0, &mut seen).unwrap();
    assert!(seen[5..700_005].iter().all(|byte| *byte == 9));
    assert_eq!(seen[4], 7);
}

#[test]
fn a_session_moves_the_granted_blocks_layer_by_layer() {
    let a = Engine::new(Config::default().name("sa")).unwrap();
    let b = Engine::new(Config::default().name("sb")).unwrap();
    let layout: Layout = kvx::layout::LayoutBuilder::key_value(
        4,
        8,
        kvx::layout::HeadWindow { first: 0, count: 2, total: 2 },
        64,
        kvx::layout::Dtype::Bf16,
    )
    .build()
    .unwrap();
    let _ = Preset::ALL;
    let lens = layout.region_lens();
    let (source, source_regions): (Vec<_>, Vec<_>) =
        lens.iter().map(|len| a.allocate(*len, Rights::empty()).unwrap()).unzip();
    let (target, target_regions): (Vec<_>, Vec<_>) =
        lens.iter().map(|len| b.allocate(*len, Rights::empty()).unwrap()).unzip();
    for (index, buffer) in source.iter().enumerate() {
        buffer.fill(0, buffer.len(), index as u8 + 1).unwrap();
    }
    let pool_a = KvPool::new(layout.clone(), &source_regions.iter().collect::<Vec<_>>()).unwrap();
    let pool_b = KvPool::new(layout, &target_regions.iter().collect::<Vec<_>>()).unwrap();
    let session = SessionKey { room: Room(1), attempt: 0, sender_rank: 0, receiver_rank: 0 };
    let peer = b.connect(a.local_addr()).wait().unwrap();
    let receiver = peer.receiver(session, &pool_b, 40, &[3, 5, 1], None).unwrap();
    let sender = a.sender(session, &pool_a, None).unwrap();
    let granted = sender.granted().wait().unwrap();
    assert_eq!(granted.layers, 0..4);
    for layer in 0..4 {
        sender.write(layer..layer + 1, &[0, 1, 2]).unwrap().wait().unwrap();
        receiver.layer(layer).wait().unwrap();
    }
    let sent = sender.finish("first token").wait().unwrap();
    assert_eq!(sent.bytes, 8 * 40 * 2 * 64 * 2);
    assert_eq!(&receiver.wait().unwrap().payload[..], b"first token");
    let mut seen = vec![0; lens[0] as usize];
    target[0].read(0, &mut seen).unwrap();
    let block = seen.len() / 8;
    assert!(seen[3 * block..4 * block].iter().all(|byte| *byte == 1));
    assert!(seen[2 * block..3 * block].iter().all(|byte| *byte == 0));
    assert!(seen[block..block + block / 2].iter().all(|byte| *byte == 1));
    assert!(seen[block + block / 2..2 * block].iter().all(|byte| *byte == 0));
}
