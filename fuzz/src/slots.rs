//! A peer's slots by a list of operations, against a list of what was opened and offered.

use std::sync::Arc;

use arbitrary::Arbitrary;
use kvx_core::error::Refusal;
use kvx_core::id::{RegionId, Slot};
use kvx_core::region::{Region, RegionKey, Registry, Rights, Slots};
use kvx_core::transport::HostMemory;

#[derive(Arbitrary, Debug)]
enum Operation {
    /// A region with these rights.
    Register(u8),
    /// The peer shows a key of a region: the right one or not.
    Open(u8, bool),
    /// The peer shows a key of something that perhaps never was.
    OpenAny(u64),
    /// A grant names a region.
    Offer(u8),
    /// An access by slot: one-sided, or under a grant.
    Resolve(u8, bool),
    /// The region is deregistered, and the peer not told yet.
    Deregister(u8),
    /// The slot is given up.
    Close(u8),
}

/// The slots, and what is known of each region.
#[derive(Default)]
struct World {
    registry: Registry,
    slots: Slots,
    all: Vec<Known>,
    /// Slots given out so far.
    given: u32,
}

struct Known {
    region: Arc<Region>,
    live: bool,
    slot: Option<Slot>,
    /// Whether the peer has shown the key.
    shown: bool,
}

/// Does the operations.
pub fn run(bytes: &[u8]) {
    let Some(operations) = crate::structured::<Vec<Operation>>(bytes) else { return };
    let mut world = World::default();
    operations.into_iter().for_each(|operation| world.apply(operation));
    for slot in 0..=world.given {
        world.resolve(Slot(slot), true);
        world.resolve(Slot(slot), false);
    }
}

impl World {
    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Register(rights) => self.register(Rights::from_bits_truncate(rights)),
            Operation::Open(which, right) => self.open(which, right),
            Operation::OpenAny(bits) => {
                let (id, key) = (RegionId::from_bits(bits), RegionKey::new([0xff; 16]));
                let opened = self.slots.open(&self.registry, id, &key);
                assert_eq!(opened, Err(Refusal::WrongKey));
            }
            Operation::Offer(which) => {
                let Some(at) = self.at(which) else { return };
                let offered = self.slots.offer(Arc::clone(&self.all[at].region));
                self.gave(at, offered, false);
            }
            Operation::Resolve(slot, one_sided) => self.resolve(Slot(slot.into()), one_sided),
            Operation::Deregister(which) => {
                let Some(at) = self.at(which) else { return };
                let known = &mut self.all[at];
                assert_eq!(self.registry.deregister(known.region.id).is_ok(), known.live);
                known.live = false;
            }
            Operation::Close(which) => {
                let Some(at) = self.at(which) else { return };
                let known = &mut self.all[at];
                assert_eq!(self.slots.close(known.region.id), known.slot.take());
                known.shown = false;
            }
        }
    }

    fn register(&mut self, rights: Rights) {
        let index = self.all.len() as u64;
        let memory = HostMemory::new((index + 1) << 20, 4096).expect("memory with bytes");
        let key = RegionKey::new([index as u8 % 0xff; 16]);
        let region = self.registry.register(Arc::new(memory), rights, key).expect("room");
        self.all.push(Known { region, live: true, slot: None, shown: false });
    }

    fn open(&mut self, which: u8, right: bool) {
        let Some(at) = self.at(which) else { return };
        let known = &self.all[at];
        let key = if right { known.region.key.clone() } else { RegionKey::new([0xff; 16]) };
        let opened = self.slots.open(&self.registry, known.region.id, &key);
        if !right || !known.live {
            assert_eq!(opened, Err(Refusal::WrongKey));
        } else if known.region.rights.is_empty() {
            assert_eq!(opened, Err(Refusal::NoRight));
        } else {
            self.gave(at, opened, true);
        }
    }

    /// A region gets a slot where it is live: the one it has, else one that never was.
    fn gave(&mut self, at: usize, given: Result<Slot, Refusal>, shown: bool) {
        let known = &mut self.all[at];
        if !known.live {
            assert_eq!(given, Err(Refusal::RegionClosed));
            return;
        }
        let expected = known.slot.unwrap_or(Slot(self.given));
        assert_eq!(given, Ok(expected));
        if known.slot.replace(expected).is_none() {
            self.given += 1;
        }
        known.shown |= shown;
    }

    fn resolve(&self, slot: Slot, one_sided: bool) {
        let known = self.all.iter().find(|known| known.slot == Some(slot));
        let expected = match known {
            None if slot.0 >= self.given => Err(Refusal::UnknownSlot),
            None => Err(Refusal::RegionClosed),
            Some(known) if one_sided && !known.shown => Err(Refusal::NoRight),
            Some(known) if !known.live => Err(Refusal::RegionClosed),
            Some(known) => Ok(known.region.id),
        };
        assert_eq!(self.slots.resolve(slot, one_sided).map(|region| region.id), expected);
    }

    fn at(&self, which: u8) -> Option<usize> {
        (!self.all.is_empty()).then(|| usize::from(which) % self.all.len())
    }
}
