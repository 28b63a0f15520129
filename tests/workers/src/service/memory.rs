//! Memory of a worker: allocated, filled, checked, watched and sealed.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kvx::error::Result;
use kvx::{Buffer, CallerMemory, Region, Rights};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::Service;
use crate::content::{self, POISON, Pool};
use crate::line::{Line, list};

/// A buffer, and the region over it until it is deregistered.
pub(super) struct Memory {
    pub(super) buffer: Buffer,
    pub(super) region: Option<Region>,
}

/// Memory that must stay as it was.
pub(super) struct Sealed {
    name: String,
    buffer: Buffer,
    bytes: Vec<u8>,
}

impl Service {
    /// `pool name=`: a KV pool, poisoned. Answers with the addresses and lengths of its regions.
    pub(super) fn pool(&mut self, command: &Line) -> String {
        let pool = Pool::allocate(self.engine());
        let fill = |buffer: &Buffer| buffer.fill(0, buffer.len(), POISON).unwrap();
        pool.buffers.iter().for_each(fill);
        let addresses: Vec<u64> = pool.buffers.iter().map(Buffer::address).collect();
        let len = pool.buffers[0].len();
        self.pools.insert(command.get("name").to_owned(), Arc::new(pool));
        format!("ok len={len} addresses={}", list(&addresses))
    }

    /// `alloc name= len= [rights=none|read|write] [canary=]`: registered memory, poisoned; `canary` bytes on
    /// either side of the region are not part of it.
    pub(super) fn allocate(&mut self, command: &Line) -> Result<String> {
        let rights = match command.find("rights") {
            Some("none") => Rights::empty(),
            Some("read") => Rights::REMOTE_READ,
            Some("write") => Rights::REMOTE_WRITE,
            _ => Rights::REMOTE_READ | Rights::REMOTE_WRITE,
        };
        let (engine, len) = (self.engine(), command.number::<u64>("len"));
        let canary = command.find_number::<u64>("canary").unwrap_or(0);
        let (buffer, region) = if canary == 0 {
            engine.allocate(len, rights)?
        } else {
            let buffer = Buffer::allocate(len + 2 * canary)
                .map_err(|cause| kvx::Error::new(kvx::error::Operation::Allocate, cause))?;
            let base = buffer.as_ptr().wrapping_add(canary as usize);
            // SAFETY: the buffer is kept beside the region, and touched by its own calls and the
            // engine's only.
            let memory = unsafe { CallerMemory::new(base, len) };
            (buffer, engine.register(memory.unwrap(), rights)?)
        };
        buffer.fill(0, buffer.len(), POISON).unwrap();
        let answer = format!("ok address={}", region.address());
        let memory = Memory { buffer, region: Some(region) };
        self.memory.insert(command.get("name").to_owned(), memory);
        Ok(answer)
    }

    /// `free name=`, of memory.
    pub(super) fn free(&mut self, command: &Line) -> String {
        self.memory.remove(command.get("name"));
        "ok".to_owned()
    }

    /// `vanish name=`, of memory: it is gone from this process, though its region is there still.
    /// Nothing else comes to lie at its place.
    pub(super) fn vanish(&self, command: &Line) -> String {
        let buffer = &self.memory[command.get("name")].buffer;
        let (flags, none) = (MapFlags::PRIVATE | MapFlags::FIXED, ProtFlags::empty());
        let (base, len) = (buffer.as_ptr().cast(), buffer.len() as usize);
        // SAFETY: the whole of a mapping that the buffer made and unmaps. No reference to it is ever
        // formed; a test that lets memory vanish does not touch it afterwards.
        unsafe { mmap_anonymous(base, len, none, flags) }.unwrap();
        "ok".to_owned()
    }

    /// `fill name= seed=` or `fill name= byte=`, of a pool or of memory.
    pub(super) fn fill(&self, command: &Line) -> String {
        let name = command.get("name");
        match (command.find_number("seed"), self.pools.get(name)) {
            (Some(seed), Some(pool)) => pool.write(seed),
            (Some(seed), None) => content::write(&self.memory[name].buffer, seed),
            (None, _) => {
                let byte = command.number("byte");
                let fill = |buffer: &Buffer| buffer.fill(0, buffer.len(), byte).unwrap();
                self.buffers(name).iter().for_each(fill);
            }
        }
        "ok".to_owned()
    }

    /// `check name= seed= sources= blocks=` of a pool, `check name= seed= [offset= len=]` of
    /// memory: answers `ok`, or `wrong at=`.
    pub(super) fn check(&self, command: &Line) -> String {
        let (name, seed) = (command.get("name"), command.number("seed"));
        let wrong = match self.pools.get(name) {
            Some(pool) => {
                let (sources, blocks) = (command.numbers("sources"), command.numbers("blocks"));
                pool.find_wrong(seed, &sources, &blocks)
            }
            None => {
                let buffer = &self.memory[name].buffer;
                let offset = command.find_number("offset").unwrap_or(0);
                let len = command.find_number("len").unwrap_or(buffer.len() - offset);
                content::find_wrong(buffer, seed, offset, len).map(|at| at.to_string())
            }
        };
        wrong.map_or("ok".to_owned(), |at| format!("wrong at={at}"))
    }

    /// `check-outside name= blocks=`, of a pool: answers `ok` if all other blocks hold the poison.
    pub(super) fn check_outside(&self, command: &Line) -> String {
        let wrong = self.pools[command.get("name")].find_touched(&command.numbers("blocks"));
        wrong.map_or("ok".to_owned(), |at| format!("wrong at={at}"))
    }

    /// `check-no name= seed= byte=`, of memory: answers `ok` if no place holds this byte that would
    /// not by this seed.
    pub(super) fn check_no(&self, command: &Line) -> String {
        let (seed, byte) = (command.number("seed"), command.number("byte"));
        let wrong = content::find_byte(&self.memory[command.get("name")].buffer, seed, byte);
        wrong.map_or("ok".to_owned(), |at| format!("wrong at={at}"))
    }

    /// `watch name= byte= ms=`: answers `ok` if every byte was this one all the time.
    pub(super) fn watch(&self, command: &Line) -> String {
        let (buffers, byte) = (self.buffers(command.get("name")), command.number("byte"));
        let (begin, time) = (Instant::now(), command.millis("ms").unwrap());
        loop {
            if let Some(at) = content::find_other(&buffers, byte) {
                return format!("wrong at={at}");
            }
            if begin.elapsed() >= time {
                return "ok".to_owned();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn buffers(&self, name: &str) -> Vec<Buffer> {
        match self.pools.get(name) {
            Some(pool) => pool.buffers.clone(),
            None => vec![self.memory[name].buffer.clone()],
        }
    }

    /// `publish name=`, of memory.
    pub(super) fn publish(&mut self, command: &Line) -> Result<String> {
        self.memory[command.get("name")].region.as_ref().unwrap().publish()?;
        Ok("ok".to_owned())
    }

    /// `deregister name=`, of memory or of a pool.
    pub(super) fn deregister(&mut self, command: &Line) -> Result<String> {
        let name = command.get("name");
        match self.pools.get(name) {
            Some(pool) => pool.deregister()?,
            None => self.memory.get_mut(name).unwrap().region.take().unwrap().deregister()?,
        }
        Ok("ok".to_owned())
    }

    /// `seal names=a,b`, memory or pools: remembers every byte.
    pub(super) fn seal(&mut self, command: &Line) -> String {
        let names = command.get("names").split(',');
        self.sealed = names
            .flat_map(|name| {
                self.buffers(name).into_iter().map(|buffer| {
                    let mut bytes = vec![0; buffer.len() as usize];
                    buffer.read(0, &mut bytes).unwrap();
                    Sealed { name: name.to_owned(), buffer, bytes }
                })
            })
            .collect();
        "ok".to_owned()
    }

    /// `check-sealed [except= from= to=]`: answers `ok` if every byte that was sealed is as it was,
    /// but for these of the memory `except`.
    pub(super) fn check_sealed(&self, command: &Line) -> String {
        for Sealed { name, buffer, bytes } in &self.sealed {
            let mut seen = vec![0; bytes.len()];
            buffer.read(0, &mut seen).unwrap();
            if command.find("except") == Some(name) {
                let permitted = command.number("from")..command.number("to");
                seen[permitted.clone()].copy_from_slice(&bytes[permitted]);
            }
            // Compared as slices first: a loop over the bytes is slow without optimisation.
            if seen != *bytes {
                let at = seen.iter().zip(bytes).position(|(seen, byte)| seen != byte);
                return format!("wrong at={name}-offset-{at:?}");
            }
        }
        "ok".to_owned()
    }
}
