//! The registry of regions by a list of operations, against a list of all that ever was.

use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use kvx_core::id::RegionId;
use kvx_core::region::{Region, RegionKey, Registry, Rights};
use kvx_core::transport::{HostSpan, LocalSpan, MemoryKind, MemoryProvider};

/// Regions at once.
const LIMIT: usize = 12;

/// Memory as someone who may be mistaken describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    kind: MemoryKind,
    base: u64,
    len: u64,
}

impl MemoryProvider for Memory {
    fn kind(&self) -> MemoryKind {
        self.kind
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn base(&self) -> u64 {
        self.base
    }

    fn host(&self, _: LocalSpan) -> Option<HostSpan> {
        None
    }
}

impl<'a> Arbitrary<'a> for Memory {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kind = match u8::arbitrary(u)? {
            ordinal @ 0..16 => MemoryKind::Cuda(u32::from(ordinal % 2)),
            _ => MemoryKind::Host,
        };
        let (base, len) = match u8::arbitrary(u)? {
            255 => (u.arbitrary()?, u.arbitrary()?),
            254 => (u64::MAX - u64::from(u8::arbitrary(u)?), u8::arbitrary(u)?.into()),
            base => (u64::from(base % 32), u64::from(u8::arbitrary(u)? % 16)),
        };
        Ok(Self { kind, base, len })
    }
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Register(Memory),
    /// One of those that ever were.
    Deregister(u8),
    Get(u8),
    /// A name that was perhaps never given.
    GetAny(u64),
    Find(Memory),
    Overlapping(Memory),
    Snapshot,
    /// One of those that ever were.
    Publish(u8),
    Published,
    CloseAll,
}

/// The registry, and every region that ever was in it, oldest first.
struct World {
    registry: Registry,
    all: Vec<Known>,
    closed: bool,
}

struct Known {
    region: Arc<Region>,
    memory: Memory,
    live: bool,
    published: bool,
}

/// Does the operations.
pub fn run(bytes: &[u8]) {
    let Some(operations) = crate::structured::<Vec<Operation>>(bytes) else { return };
    let mut world = World { registry: Registry::with_limit(LIMIT), all: Vec::new(), closed: false };
    operations.into_iter().for_each(|operation| world.apply(operation));
    for known in &world.all {
        assert_eq!(known.region.gate.is_open(), known.live);
        assert_eq!(world.registry.get(known.region.id).is_some(), known.live);
    }
}

impl World {
    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Register(memory) => self.register(memory),
            Operation::Deregister(which) => self.deregister(which),
            Operation::Get(which) => {
                if let Some(known) = pick(&self.all, which) {
                    let got = self.registry.get(known.region.id);
                    let expected = known.live.then_some(&known.region);
                    assert!(same(got.as_ref(), expected));
                }
            }
            Operation::GetAny(bits) => {
                let id = RegionId::from_bits(bits);
                let expected = self.live().find(|known| known.region.id == id);
                let got = self.registry.get(id);
                assert!(same(got.as_ref(), expected.map(|known| &known.region)));
            }
            Operation::Find(asked) => self.find(asked),
            Operation::Overlapping(asked) => self.overlapping(asked),
            Operation::Snapshot => {
                let snapshot = self.registry.snapshot();
                assert!(snapshot.iter().map(|r| r.id).eq(self.live().map(|known| known.region.id)));
            }
            Operation::Publish(which) => {
                let index = usize::from(which) % self.all.len().max(1);
                let Some(known) = self.all.get_mut(index) else { return };
                let done = self.registry.publish(known.region.id);
                assert_eq!(done.is_ok(), known.live);
                known.published = true;
            }
            Operation::Published => {
                let published = self.registry.published();
                let expected = self.live().filter(|known| known.published);
                assert!(published.iter().map(|r| r.id).eq(expected.map(|known| known.region.id)));
            }
            Operation::CloseAll => {
                let closed = self.registry.close_all();
                assert_eq!(closed.len(), self.live().count());
                self.all.iter_mut().for_each(|known| known.live = false);
                self.closed = true;
            }
        }
    }

    fn register(&mut self, memory: Memory) {
        let key = RegionKey::new([self.all.len() as u8; 16]);
        let registered = self.registry.register(Arc::new(memory), Rights::all(), key);
        let sound = memory.len > 0 && memory.base.checked_add(memory.len).is_some();
        let room = !self.closed && self.live().count() < LIMIT;
        assert_eq!(registered.is_ok(), sound && room, "{registered:?}");
        let Ok(region) = registered else { return };
        // A name is never given twice.
        assert!(self.all.iter().all(|known| known.region.id != region.id));
        self.all.push(Known { region, memory, live: true, published: false });
    }

    fn deregister(&mut self, which: u8) {
        let index = usize::from(which) % self.all.len().max(1);
        let Some(known) = self.all.get_mut(index) else { return };
        let done = self.registry.deregister(known.region.id);
        assert_eq!(done.is_ok(), known.live);
        known.live = false;
        // Nobody holds a lease here.
        assert!(known.region.gate.is_drained());
    }

    /// Of those that hold it all the smallest, of equally small ones the oldest.
    fn find(&self, asked: Memory) {
        let last = asked.len.checked_sub(1).and_then(|less| asked.base.checked_add(less));
        let holds = |known: &&Known| {
            let Memory { kind, base, len } = known.memory;
            kind == asked.kind && base <= asked.base && last.is_some_and(|last| last < base + len)
        };
        let expected = self.live().filter(holds).min_by_key(|known| known.memory.len);
        let found = self.registry.find(asked.kind, asked.base, asked.len);
        assert!(same(found.as_ref().map(|(region, _)| region), expected.map(|k| &k.region)));
        if let (Some((_, offset)), Some(known)) = (found, expected) {
            assert_eq!(known.memory.base + offset, asked.base);
        }
    }

    fn overlapping(&self, asked: Memory) {
        let end = asked.base.saturating_add(asked.len);
        let shares = |known: &&Known| {
            let Memory { kind, base, len } = known.memory;
            kind == asked.kind && base.max(asked.base) < (base + len).min(end)
        };
        let mut expected: Vec<&Known> = self.live().filter(shares).collect();
        expected.sort_by_key(|known| known.memory.base);
        let found = self.registry.overlapping(asked.kind, asked.base, asked.len);
        assert!(found.into_iter().eq(expected.into_iter().map(|known| known.region.id)));
    }

    fn live(&self) -> impl Iterator<Item = &Known> {
        self.all.iter().filter(|known| known.live)
    }
}

fn same(left: Option<&Arc<Region>>, right: Option<&Arc<Region>>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        _ => false,
    }
}

fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    list.get(usize::from(which) % list.len().max(1))
}
