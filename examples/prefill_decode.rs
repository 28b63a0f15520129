//! A prefill and a decode engine in one process: the KV cache of a small model moves from one's
//! pool to the other's, layer by layer.

#![expect(clippy::print_stdout, reason = "it is what an example does")]

use kvx::layout::{Layout, Placement, Preset};
use kvx::{Buffer, Config, Engine, KvPool, Region, Rights, Room, SessionKey};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Tensor-parallel size 8, rank 0: one of Qwen3-32B's eight KV heads.
    let layout = Preset::Qwen3_32B.layout(8, 0, 16, 64, Placement::RegionPerPool)?;
    let prefill = Engine::new(Config::from_env()?.name("prefill-0"))?;
    let decode = Engine::new(Config::from_env()?.name("decode-0"))?;
    let (source, _source_regions, source_pool) = pool(&prefill, &layout)?;
    let (target, _target_regions, target_pool) = pool(&decode, &layout)?;
    source.iter().try_for_each(|buffer| buffer.fill(0, buffer.len(), 42))?;

    // Decode: find the sender's engine, and grant it blocks 7, 3 and 5 for 40 tokens.
    let session = SessionKey { room: Room(1), attempt: 0, sender_rank: 0, receiver_rank: 0 };
    let peer = decode.connect(prefill.local_addr()).wait()?;
    let receiver = peer.receiver(session, &target_pool, 40, &[7, 3, 5], None)?;

    // Prefill: write each layer when it has been computed, and end with the first token.
    let sender = prefill.sender(session, &source_pool, None)?;
    for layer in sender.granted().wait()?.layers {
        drop(sender.write(layer..layer + 1, &[0, 1, 2])?);
    }
    let sent = sender.finish("first token").wait()?;

    let received = receiver.wait()?;
    let mut byte = [0];
    target[0].read(7 * layout.block_bytes(), &mut byte)?;
    println!(
        "{} bytes in {} runs, payload {:?}, byte {}",
        sent.bytes, sent.runs, received.payload, byte[0]
    );
    assert_eq!(byte, [42]);
    Ok(())
}

/// Memory for a KV pool, registered. Peers may write it under grants only.
fn pool(engine: &Engine, layout: &Layout) -> kvx::Result<(Vec<Buffer>, Vec<Region>, KvPool)> {
    let allocated =
        layout.region_lens().into_iter().map(|len| engine.allocate(len, Rights::empty()));
    let (buffers, regions): (Vec<_>, Vec<_>) =
        allocated.collect::<kvx::Result<Vec<_>>>()?.into_iter().unzip();
    let pool = KvPool::new(layout.clone(), &regions.iter().collect::<Vec<_>>())?;
    Ok((buffers, regions, pool))
}
