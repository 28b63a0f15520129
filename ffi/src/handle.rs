//! Handles: numbers that stand for things, and that are never used twice. Not what they stand for.
//!
//! A handle is 8 bits of what kind of thing it is, 24 bits of generation, 32 bits of place. A place
//! whose generations are used up is not used any more.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::status::{Failure, kvx_status};

/// The largest generation.
const LAST: u32 = (1 << 24) - 1;

/// The things of one kind that have handles.
pub(crate) struct Table<T> {
    kind: u8,
    /// What errors call such a thing.
    name: &'static str,
    places: RwLock<Places<T>>,
}

struct Places<T> {
    places: Vec<Place<T>>,
    /// Those that are empty and can be used again.
    free: Vec<u32>,
}

struct Place<T> {
    /// Of what is there, or was there last; from 1 on.
    generation: u32,
    value: Option<Arc<T>>,
}

impl<T> Table<T> {
    /// Things of this kind: a number of its own, not 0.
    pub(crate) const fn new(kind: u8, name: &'static str) -> Self {
        let places = RwLock::new(Places { places: Vec::new(), free: Vec::new() });
        Self { kind, name, places }
    }

    /// Gives a thing its handle.
    pub(crate) fn insert(&self, value: Arc<T>) -> Result<u64, Failure> {
        let mut places = self.write();
        let index = match places.free.pop() {
            Some(index) => index,
            None => places.grow().ok_or_else(out_of_handles)?,
        };
        let place = places.places.get_mut(index as usize).ok_or_else(out_of_handles)?;
        place.generation += 1;
        place.value = Some(value);
        Ok(self.handle(place.generation, index))
    }

    /// What a handle stands for.
    pub(crate) fn get(&self, handle: u64) -> Result<Arc<T>, Failure> {
        let known = self.find(handle).and_then(|(generation, index)| {
            let places = self.read();
            let place = places.places.get(index)?;
            place.value.as_ref().filter(|_| place.generation == generation).cloned()
        });
        known.ok_or_else(|| self.unknown(handle))
    }

    /// Takes what a handle stands for, which then stands for nothing.
    pub(crate) fn remove(&self, handle: u64) -> Result<Arc<T>, Failure> {
        let removed = self.find(handle).and_then(|(generation, index)| {
            let mut places = self.write();
            let place = places.places.get_mut(index)?;
            let value = place.value.take_if(|_| place.generation == generation)?;
            if generation < LAST {
                // `grow` has reserved the memory.
                places.free.push(index as u32);
            }
            Some(value)
        });
        removed.ok_or_else(|| self.unknown(handle))
    }

    fn handle(&self, generation: u32, index: u32) -> u64 {
        u64::from(self.kind) << 56 | u64::from(generation) << 32 | u64::from(index)
    }

    /// Generation and place, if the handle is one of this kind.
    fn find(&self, handle: u64) -> Option<(u32, usize)> {
        let generation = (handle >> 32) as u32 & LAST;
        (handle >> 56 == u64::from(self.kind)).then_some((generation, handle as u32 as usize))
    }

    fn unknown(&self, handle: u64) -> Failure {
        let message = format!("{handle:#x} is no {}, or one that was released", self.name);
        Failure::new(kvx_status::KVX_UNKNOWN_HANDLE, message)
    }

    fn read(&self) -> RwLockReadGuard<'_, Places<T>> {
        // The places are whole after every step.
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Places<T>> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Places<T> {
    /// Adds a place. `None`: no memory, or no number, is left for it.
    fn grow(&mut self) -> Option<u32> {
        let index = u32::try_from(self.places.len()).ok()?;
        self.places.try_reserve(1).ok()?;
        // So that giving a handle back never needs memory.
        self.free.try_reserve(self.places.len() + 1).ok()?;
        self.places.push(Place { generation: 0, value: None });
        Some(index)
    }
}

fn out_of_handles() -> Failure {
    Failure::new(kvx_status::KVX_OUT_OF_MEMORY, "no memory for another handle")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status<T>(result: Result<T, Failure>) -> kvx_status {
        result.err().map_or(kvx_status::KVX_OK, |failure| failure.status)
    }

    #[test]
    fn a_handle_stands_for_one_thing_and_then_for_nothing() {
        let table = Table::new(3, "thing");
        let first = table.insert(Arc::new('a')).unwrap();
        assert_eq!(*table.get(first).unwrap(), 'a');
        assert_eq!(*table.remove(first).unwrap(), 'a');
        let second = table.insert(Arc::new('b')).unwrap();
        assert_eq!(first as u32, second as u32, "the place is used again");
        assert_eq!(status(table.get(first)), kvx_status::KVX_UNKNOWN_HANDLE);
        assert_eq!(status(table.remove(first)), kvx_status::KVX_UNKNOWN_HANDLE);
        assert_eq!(*table.get(second).unwrap(), 'b');
    }

    #[test]
    fn made_up_handles_are_unknown() {
        let (table, other) = (Table::new(3, "thing"), Table::new(4, "other"));
        let known = table.insert(Arc::new(())).unwrap();
        other.insert(Arc::new(())).unwrap();
        for made_up in [0, 1, u64::MAX, known + 1, known ^ 1 << 32, known ^ 1 << 56] {
            assert_eq!(status(table.get(made_up)), kvx_status::KVX_UNKNOWN_HANDLE, "{made_up:#x}");
            assert_eq!(status(table.remove(made_up)), kvx_status::KVX_UNKNOWN_HANDLE);
        }
        assert_eq!(status(other.get(known)), kvx_status::KVX_UNKNOWN_HANDLE);
    }

    #[test]
    fn a_place_whose_generations_are_used_up_is_left() {
        let table = Table::new(3, "thing");
        let first = table.insert(Arc::new(())).unwrap();
        table.write().places[0].generation = LAST - 1;
        assert_eq!(status(table.get(first)), kvx_status::KVX_UNKNOWN_HANDLE);
        table.write().places[0].value = None;
        table.write().free.push(0);
        let last = table.insert(Arc::new(())).unwrap();
        table.remove(last).unwrap();
        assert_eq!(table.insert(Arc::new(())).unwrap() as u32, 1);
    }
}
