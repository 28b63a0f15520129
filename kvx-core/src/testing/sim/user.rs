//! What users of simulated engines do: transfers, notifications, cancelling, deregistering. It
//! keeps the rules that users keep: concurrent transfers touch different bytes, a source does not
//! change while it is read, and memory is used again only once it is its owner's again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::plan::{Plan, PlanOptions, Span, Spans};
use crate::proto::{Deadline, Post, Target, TransferOp};
use crate::region::{Region, RegionKey, Rights};
use crate::testing::memory::Segment;
use crate::testing::sim::engine::State;
use crate::testing::sim::ledger::{Cell, Note, Piece, Stage, Transfer};
use crate::testing::sim::sessions::Pool;
use crate::testing::sim::{Happening, MS, SECOND, World};

/// Bytes of a cell, the unit in which memory is used.
pub(crate) const CELL: u64 = 96;
/// Cells of an estate.
const CELLS: usize = 64;
/// Estates of an engine.
const ESTATES: usize = 3;
/// Bytes before and behind a region that nobody may touch.
pub(crate) const GUARD: u64 = 64;

/// The memory of one engine's life.
#[derive(Default)]
pub(crate) struct Belongings {
    pub(crate) estates: Vec<Estate>,
    pub(crate) pool: Option<Pool>,
}

/// A region cut in cells.
pub(crate) struct Estate {
    pub(crate) region: Arc<Region>,
    pub(crate) segment: Segment,
    /// What each cell holds while nobody uses it; `None` while a transfer does.
    pub(crate) cells: Vec<Option<Vec<u8>>>,
}

impl World {
    /// Gives an engine its memory.
    pub(crate) fn furnish(&mut self, index: usize) {
        for _ in 0..ESTATES {
            let len = CELL * CELLS as u64;
            let segment = self.engines[index].memory.allocate((len + 2 * GUARD) as usize, 0x11);
            let segment = Segment { base: segment.base + GUARD, len };
            let region = self.register(index, segment, Rights::all());
            let cells = vec![Some(vec![0x11; CELL as usize]); CELLS];
            self.engines[index].belongings.estates.push(Estate { region, segment, cells });
        }
        let pool = self.new_pool(index);
        self.engines[index].belongings.pool = Some(pool);
    }

    pub(crate) fn register(
        &mut self,
        index: usize,
        segment: Segment,
        rights: Rights,
    ) -> Arc<Region> {
        let key = RegionKey::new(self.random.bytes());
        let registry = &self.engines[index].registry;
        registry.register(segment.provider(), rights, key).expect("room for a region")
    }

    pub(crate) fn user_acts(&mut self, engine: usize) {
        if self.now >= self.calm_at {
            return;
        }
        let pause = self.random.within(1..300) * MS;
        self.after(pause, Happening::User(engine));
        if self.engines[engine].state != State::Running {
            return;
        }
        let remote = (engine + 1 + self.random.index(self.engines.len() - 1)) % self.engines.len();
        match self.random.within(0..100) {
            0..35 => self.start_transfer(engine, remote, TransferOp::Write),
            35..55 => self.start_transfer(engine, remote, TransferOp::Read),
            55..70 => self.notify(engine, remote),
            70..80 => self.cancel_one(engine),
            80..84 => self.deregister_one(engine),
            84..97 => self.begin_session(engine, remote),
            _ => self.end_one_session(engine),
        }
    }

    /// Every engine says something to every other one, so that who was given up is met anew.
    pub(crate) fn meet_again(&mut self) {
        for (engine, remote) in self.pairs() {
            self.expect(engine, remote, self.engines[remote].identity.incarnation);
            self.notify(engine, remote);
        }
    }

    /// Nothing is in the way of these.
    pub(crate) fn ask_once_more(&mut self) {
        for (engine, remote) in self.pairs() {
            self.start_transfer(engine, remote, TransferOp::Write);
            self.start_transfer(engine, remote, TransferOp::Read);
            self.begin_session(engine, remote);
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let engines = 0..self.engines.len();
        engines
            .clone()
            .flat_map(|engine| engines.clone().map(move |remote| (engine, remote)))
            .filter(|(engine, remote)| engine != remote)
            .collect()
    }

    fn is_finale(&self) -> bool {
        self.now > self.calm_at + 14 * SECOND
    }

    fn start_transfer(&mut self, engine: usize, remote: usize, op: TransferOp) {
        let count = 1 + self.random.index(40);
        let Some(local) = self.take_cells(engine, count) else { return };
        let Some(far) = self.take_cells(remote, count) else {
            return self.free_cells(&local);
        };
        let source = if op == TransferOp::Write { &local } else { &far };
        let contents: Vec<Vec<u8>> = source.iter().map(|cell| self.scribble(*cell)).collect();
        let pieces: Vec<Piece> = local
            .iter()
            .zip(&far)
            .zip(contents)
            .map(|((local, far), bytes)| {
                let (local, remote) = (self.address(*local), self.address(*far));
                Piece::new(local, remote, bytes)
            })
            .collect();
        let (ours, local_spans) = self.as_spans(&local);
        let (theirs, far_spans) = self.as_spans(&far);
        let max_run = [CELL as u32, 250, 1 << 20][self.random.index(3)];
        let options = PlanOptions { merge: self.random.percent(50), max_run };
        let plan = Plan::pair(&local_spans, &far_spans, &options).expect("spans that pair up");
        let deadline = self.deadline();
        let notification = (op == TransferOp::Write && self.random.percent(50))
            .then(|| self.ledger.next_note_bytes(&mut self.random));
        let post = Post {
            op,
            plan: Arc::new(plan),
            local: Arc::from(ours),
            target: Target::Regions(theirs.iter().map(|region| region.id).collect()),
            notification: notification.clone(),
            layers: None,
            deadline,
        };
        let now = self.local(engine);
        self.expect(engine, remote, self.engines[remote].identity.incarnation);
        let link = self.link(engine, remote);
        link.peer.learn_regions(theirs.iter().map(|region| (region.id, region.key.clone())));
        let (serial, association) = (link.serial, link.association);
        match link.peer.post(now, post) {
            Ok(id) => {
                let id = id.expect("the plan has runs");
                let cells = local.into_iter().chain(far).collect();
                let transfer = Transfer {
                    op,
                    parties: [
                        (engine, self.engines[engine].life),
                        (remote, self.engines[remote].life),
                    ],
                    link: serial,
                    id,
                    pieces,
                    cells,
                    session: None,
                    note: None,
                    limits: deadline,
                    posted: self.now,
                    stage: Stage::Open,
                    done: false,
                    due: self.is_finale(),
                };
                let index = self.ledger.add_transfer(association, transfer);
                self.note(|| format!("{engine} posts {op:?} {id} #{index} with {remote}"));
                if let Some(bytes) = notification {
                    let note = self.record_note(engine, remote, bytes, Some(index));
                    self.ledger.transfers[index].note = Some(note);
                }
            }
            Err(cause) => {
                self.count_end(format!("{op:?} not posted: {cause}"));
                self.free_cells(&local);
                self.free_cells(&far);
            }
        }
        self.attend(engine, remote);
    }

    /// The regions of these cells, each once, and the cells as spans of them.
    fn as_spans(&self, cells: &[Cell]) -> (Vec<Arc<Region>>, Spans) {
        let mut estates: Vec<usize> = cells.iter().map(|cell| cell.estate).collect();
        estates.sort_unstable();
        estates.dedup();
        let span = |cell: &Cell| Span {
            region: estates.partition_point(|estate| *estate < cell.estate) as u32,
            offset: cell.index as u64 * CELL,
            len: CELL,
        };
        let spans = cells.iter().map(span).collect();
        let owner = cells.first().map_or(0, |cell| cell.owner.0);
        let here = &self.engines[owner].belongings.estates;
        (estates.iter().map(|estate| Arc::clone(&here[*estate].region)).collect(), spans)
    }

    pub(crate) fn deadline(&mut self) -> Deadline {
        let millis = |n| Duration::from_millis(n);
        let progress = millis(self.random.within(300..4000));
        if self.is_finale() {
            return Deadline { progress: millis(8000), total: None };
        }
        let total = self.random.percent(40).then(|| millis(self.random.within(300..6000)));
        Deadline { progress, total }
    }

    fn notify(&mut self, engine: usize, remote: usize) {
        let bytes = self.ledger.next_note_bytes(&mut self.random);
        let now = self.local(engine);
        match self.link(engine, remote).peer.notify(now, bytes.clone()) {
            Ok(_) => {
                self.record_note(engine, remote, bytes, None);
            }
            Err(cause) => self.count_end(format!("not notified: {cause}")),
        }
        self.attend(engine, remote);
    }

    fn record_note(
        &mut self,
        engine: usize,
        remote: usize,
        bytes: Bytes,
        after: Option<usize>,
    ) -> usize {
        let life = self.engines[engine].life;
        let link = self.link(engine, remote);
        link.notes += 1;
        let (serial, id) = (link.serial, link.notes);
        let incarnation = link.peer.identity().map(|identity| identity.incarnation);
        let now = self.now;
        self.note(|| format!("{engine} sends notification {id} to {remote}, after #{after:?}"));
        let note = Note {
            link: serial,
            from: (engine, life),
            to: remote,
            incarnation,
            len: bytes.len(),
            after,
            sent: now,
            delivered: 0,
            fate: None,
            came_on: None,
        };
        self.ledger.add_note(id, note)
    }

    fn cancel_one(&mut self, engine: usize) {
        let life = self.engines[engine].life;
        let open = self.ledger.open_transfers((engine, life));
        if open.is_empty() {
            return;
        }
        let index = open[self.random.index(open.len())];
        let transfer = &self.ledger.transfers[index];
        let (id, serial, remote) = (transfer.id, transfer.link, transfer.parties[1].0);
        self.count("cancel");
        self.note(|| format!("{engine} cancels #{index}"));
        if let Some(link) = self.link_of(engine, remote, serial) {
            link.peer.cancel(id);
            self.attend(engine, remote);
        }
    }

    /// Deregisters an estate. Once it is drained, its memory is registered anew.
    fn deregister_one(&mut self, engine: usize) {
        let estate = self.random.index(ESTATES);
        let region = Arc::clone(&self.engines[engine].belongings.estates[estate].region);
        if !region.gate.is_open() {
            return;
        }
        self.count("deregister");
        self.note(|| format!("{engine} deregisters estate {estate}"));
        let remotes: Vec<usize> = self.engines[engine].links.keys().copied().collect();
        let close = |world: &mut Self| {
            for remote in &remotes {
                if let Some(link) = world.engines[engine].links.get_mut(remote) {
                    link.peer.close_region(region.id);
                    world.attend(engine, *remote);
                }
            }
        };
        close(self);
        let registry = Arc::clone(&self.engines[engine].registry);
        registry.deregister(region.id).expect("it was registered");
        close(self);
        let life = self.engines[engine].life;
        self.ledger.drain_region(Arc::clone(&region), (engine, life), estate);
    }

    /// Some cells of an engine that nobody uses, which are used from here on. They must be as they
    /// were left.
    fn take_cells(&mut self, engine: usize, count: usize) -> Option<Vec<Cell>> {
        let life = self.engines[engine].life;
        let estates = &self.engines[engine].belongings.estates;
        let mut free: Vec<Cell> = Vec::new();
        for (estate, here) in estates.iter().enumerate() {
            if here.region.gate.is_open() {
                let unused = |(_, held): &(usize, &Option<Vec<u8>>)| held.is_some();
                let cells = here.cells.iter().enumerate().filter(unused);
                free.extend(cells.map(|(index, _)| Cell { owner: (engine, life), estate, index }));
            }
        }
        if free.len() < count {
            return None;
        }
        let from = self.random.index(free.len() - count + 1);
        let mut taken: Vec<Cell> = if self.random.percent(50) {
            free[from..from + count].to_vec()
        } else {
            (0..count).map(|_| free.swap_remove(self.random.index(free.len()))).collect()
        };
        if self.random.percent(30) {
            taken.reverse();
        }
        for cell in &taken {
            self.check_untouched(*cell);
            self.engines[engine].belongings.estates[cell.estate].cells[cell.index] = None;
        }
        Some(taken)
    }

    /// Nobody uses these cells any more. What they hold now must stay, until someone does again.
    pub(crate) fn free_cells(&mut self, cells: &[Cell]) {
        for cell in cells {
            let (engine, life) = cell.owner;
            if self.engines[engine].life == life {
                let held = self.scribble_if(*cell);
                self.engines[engine].belongings.estates[cell.estate].cells[cell.index] = Some(held);
            }
        }
    }

    /// Half of the cells get other contents when they become free: whoever still sends from them
    /// sends that.
    fn scribble_if(&mut self, cell: Cell) -> Vec<u8> {
        if self.random.percent(50) {
            return self.scribble(cell);
        }
        let address = self.address(cell);
        self.engines[cell.owner.0].memory.bytes(address, CELL as usize).to_vec()
    }

    /// Fills a cell anew.
    fn scribble(&mut self, cell: Cell) -> Vec<u8> {
        let address = self.address(cell);
        let mut random = self.random.fork();
        let bytes: Vec<u8> = (0..CELL).map(|_| random.bits() as u8).collect();
        self.engines[cell.owner.0].memory.bytes_mut(address, bytes.len()).copy_from_slice(&bytes);
        bytes
    }

    pub(crate) fn address(&self, cell: Cell) -> u64 {
        let estate = &self.engines[cell.owner.0].belongings.estates[cell.estate];
        estate.segment.base + cell.index as u64 * CELL
    }

    pub(crate) fn check_untouched(&self, cell: Cell) {
        let (engine, _) = cell.owner;
        let held = &self.engines[engine].belongings.estates[cell.estate].cells[cell.index];
        if let Some(held) = held {
            let now = self.engines[engine].memory.bytes(self.address(cell), CELL as usize);
            assert!(now == &held[..], "memory that is its owner's alone was changed: {cell:?}");
        }
    }
}
