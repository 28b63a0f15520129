use super::*;
use crate::memory::{Buffer, CallerMemory};
use kvx_core::id::RegionId;
use kvx_core::region::{RegionKey, Rights};
use kvx_core::transport::MemoryProvider;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

fn region_over(memory: Arc<dyn MemoryProvider>) -> Arc<Region> {
    Arc::new(Region {
        id: RegionId::new(0, 1),
        memory,
        rights: Rights::empty(),
        key: RegionKey::new([0; 16]),
        gate: Gate::new(),
    })
}

/// A buffer with content that differs at every offset, and its region.
fn patterned(len: u64, seed: u64) -> (Buffer, Arc<Region>) {
    let buffer = Buffer::allocate(len).unwrap();
    let bytes: Vec<u8> =
        (0..len).map(|i| ((i + seed).wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    buffer.write(0, &bytes).unwrap();
    let region = region_over(buffer.provider());
    (buffer, region)
}

fn content(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len() as usize];
    buffer.read(0, &mut bytes).unwrap();
    bytes
}

fn span(region: u32, offset: u64, len: u32) -> LocalSpan {
    LocalSpan { region, len, offset }
}

fn copy(
    sources: &[Arc<Region>],
    targets: &[Arc<Region>],
    spans: &[(LocalSpan, LocalSpan)],
) -> Result<(), Refusal> {
    copy_local(&LocalCopy { sources, targets, gates: &[] }, spans.iter().copied())
}

/// Two pages of which the second is gone.
fn half_unmapped() -> Arc<Region> {
    let flags = MapFlags::PRIVATE;
    // SAFETY: a fresh mapping, placed by the kernel, replaces nothing.
    let base = unsafe {
        mmap_anonymous(std::ptr::null_mut(), 8192, ProtFlags::READ | ProtFlags::WRITE, flags)
    };
    let base = base.unwrap().cast::<u8>();
    // SAFETY: the second page of the mapping, which nothing refers to.
    unsafe { munmap(base.wrapping_add(4096).cast(), 4096) }.unwrap();
    // SAFETY: nothing else is given the first page; that the second is gone is the point, and the
    // copies under test touch it by system calls only.
    let memory = unsafe { CallerMemory::new(base, 8192) }.unwrap();
    region_over(Arc::new(memory))
}

#[test]
fn every_run_arrives_and_nothing_else_changes() {
    let (from, source) = patterned(10 << 20, 1);
    let (to, target) = patterned(10 << 20, 2);
    let mut model = content(&to);
    let bytes = content(&from);
    // More runs than one call takes, then one that is longer than one batch.
    let mut spans: Vec<_> = (0..1500_u64)
        .map(|i| (span(0, i * 128 + 3, 100), span(0, (1499 - i) * 112, 100)))
        .collect();
    spans.push((span(0, 1 << 20, 9 << 20), span(0, (1 << 20) - 77, 9 << 20)));
    for (source, target) in &spans {
        let (s, t, len) = (source.offset as usize, target.offset as usize, source.len as usize);
        model[t..t + len].copy_from_slice(&bytes[s..s + len]);
    }
    copy(&[source], &[target], &spans).unwrap();
    assert!(content(&to) == model);
    assert!(content(&from) == bytes);
}

#[test]
fn a_run_that_overlaps_itself_is_moved_whole() {
    for (from, to) in [(0, 100), (100, 0), (0, 4096), (5000, 3), (7, 7), (0, 700_000)] {
        let (buffer, region) = patterned(2 << 20, from);
        let len = 1_200_000_u32;
        let mut model = content(&buffer);
        model.copy_within(from as usize..from as usize + len as usize, to as usize);
        let regions = [region];
        copy(&regions, &regions, &[(span(0, from, len), span(0, to, len))]).unwrap();
        assert!(content(&buffer) == model, "from {from} to {to}");
    }
}

#[test]
fn unmapped_memory_is_a_refusal_and_the_process_lives() {
    let (buffer, mapped) = patterned(8192, 1);
    let gone = half_unmapped();
    let (mapped, gone) = ([mapped], [gone]);
    let whole = [(span(0, 0, 8192), span(0, 0, 8192))];
    assert_eq!(copy(&mapped, &gone, &whole), Err(Refusal::MemoryFault));
    assert_eq!(copy(&gone, &mapped, &whole), Err(Refusal::MemoryFault));
    // Overlapping, and so through the memfd.
    let overlapping = [(span(0, 0, 8000), span(0, 100, 8000))];
    assert_eq!(copy(&gone, &gone, &overlapping), Err(Refusal::MemoryFault));
    // The page that is there works.
    let first = [(span(0, 0, 4096), span(0, 0, 4096))];
    copy(&mapped, &gone, &first).unwrap();
    copy(&gone, &mapped, &[(span(0, 0, 4096), span(0, 4096, 4096))]).unwrap();
    let bytes = content(&buffer);
    assert!(bytes[..4096] == bytes[4096..]);
}

#[test]
fn where_the_system_call_is_forbidden_the_bytes_arrive_all_the_same() {
    let (from, source) = patterned(3 << 20, 1);
    let (to, target) = patterned(3 << 20, 2);
    let (sources, targets) = ([source], [target]);
    let copy = LocalCopy { sources: &sources, targets: &targets, gates: &[] };
    let mut copier = Copier::new(&copy);
    copier.forbidden = true;
    let piece = Piece {
        source_region: 0,
        target_region: 0,
        source: from.address(),
        target: to.address(),
        len: from.len(),
    };
    copier.copy(piece).unwrap();
    copier.flush().unwrap();
    assert!(content(&from) == content(&to));
}

#[test]
fn a_closed_region_or_gate_ends_the_copy_before_a_byte_moves() {
    let (_from, source) = patterned(4096, 1);
    let (to, target) = patterned(4096, 2);
    let before = content(&to);
    let (sources, targets) = ([source], [target]);
    let spans = [(span(0, 0, 64), span(0, 0, 64))];
    let gates = [Arc::new(Gate::new())];
    gates[0].close();
    let closed = LocalCopy { sources: &sources, targets: &targets, gates: &gates };
    assert_eq!(copy_local(&closed, spans), Err(Refusal::RegionClosed));
    sources[0].gate.close();
    assert_eq!(copy(&sources, &targets, &spans), Err(Refusal::RegionClosed));
    assert!(content(&to) == before);
}

#[test]
fn spans_that_do_not_fit_are_refused() {
    let (_buffer, region) = patterned(4096, 1);
    let regions = [region];
    for (source, target) in [
        (span(0, 4000, 97), span(0, 0, 97)),
        (span(0, 0, 97), span(0, u64::MAX, 97)),
        (span(1, 0, 1), span(0, 0, 1)),
    ] {
        assert_eq!(copy(&regions, &regions, &[(source, target)]), Err(Refusal::OutOfBounds));
    }
    let unequal = [(span(0, 0, 8), span(0, 100, 9))];
    assert_eq!(copy(&regions, &regions, &unequal), Err(Refusal::Inconsistent));
}
