//! The user of a peer whose other side is a puppet: what was asked for, and how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::Side;
use kvx_core::id::{GrantId, NotificationId, RegionId, TransferId};
use kvx_core::plan::{BlockMap, Plan, PlanOptions, Span, Spans};
use kvx_core::proto::{Deadline, Event, GrantPlan, GrantReceived, Post, Target, TransferOp};
use kvx_core::region::{Region, RegionKey};
use kvx_core::wire::FrameRuns;

use super::World;
use super::model::{self, LEN};
use super::operation::Wish;
use super::puppet;

/// What was asked for.
#[derive(Default)]
pub(super) struct Asked {
    transfers: BTreeMap<TransferId, Posted>,
    notifications: BTreeSet<NotificationId>,
    /// Questions for the puppet's regions.
    lists: BTreeSet<u64>,
    /// Grants that the puppet gave, and that stand.
    got: Vec<GrantReceived>,
    /// Notifications that were told, by their lengths.
    untaken: Vec<usize>,
    /// Regions and grants so far.
    drawn: u64,
}

struct Posted {
    plan: Arc<Plan>,
    local: Arc<Region>,
    open: bool,
}

impl Asked {
    /// Where the answer to a READ lands: where it was asked to, while it is open.
    pub(super) fn places(&self, id: TransferId, runs: Range<u32>) -> Vec<(RegionId, u64, u32)> {
        let posted = self.transfers.get(&id).filter(|posted| posted.open && id.is_read());
        let posted = posted.expect("an answer to what nobody asked lands");
        assert!(posted.local.gate.is_open(), "an answer lands in memory that was deregistered");
        let runs = posted.plan.runs(runs.start as usize..runs.end as usize);
        runs.map(|run| (posted.local.id, run.local_offset, run.len)).collect()
    }

    /// As many runs as a READ has from `first` on, and their bytes.
    pub(super) fn runs(&self, id: TransferId, first: u32, count: u32) -> Option<(FrameRuns, u32)> {
        let plan = &self.transfers.get(&id)?.plan;
        let total = plan.len() as u32;
        let first = first.min(total.checked_sub(1)?);
        let count = count.min(total - first);
        let bytes = plan.runs(first as usize..(first + count) as usize).map(|run| run.len).sum();
        Some((FrameRuns { first, count, total }, bytes))
    }

    pub(super) fn handed_out(&self, id: TransferId) {
        assert!(self.transfers.get(&id).is_some_and(|posted| posted.open), "{id:?} has ended");
    }

    pub(super) fn all_has_ended(&self) {
        let open = self.transfers.iter().find(|(_, posted)| posted.open);
        assert!(open.is_none(), "transfer {:?} has no end", open.map(|(id, _)| id));
        assert!(self.notifications.is_empty(), "a notification without a fate");
        assert!(self.lists.is_empty(), "a question without an answer");
    }

    fn open(&self, which: u8) -> Option<TransferId> {
        let open = self.transfers.iter().filter(|(_, posted)| posted.open).map(|(id, _)| *id);
        let open: Vec<TransferId> = open.collect();
        open.get(usize::from(which) % open.len().max(1)).copied()
    }

    fn grant(&self, which: u8) -> Option<&GrantReceived> {
        self.got.get(usize::from(which) % self.got.len().max(1))
    }
}

impl World {
    pub(super) fn wish(&mut self, wish: Wish) -> Option<()> {
        let now = self.now;
        match wish {
            Wish::Post { write, remote, runs, len, notify, deadline } => {
                self.post(write, remote, (runs, len), notify, deadline)?;
            }
            Wish::PostUnderGrant { grant, layer, announced } => {
                self.post_under(grant, layer, announced)?;
            }
            Wish::Cancel { which } => self.peer.cancel(self.asked.open(which)?),
            Wish::Notify { len } => {
                let id = self.peer.notify(now, vec![3; len.into()].into()).ok()?;
                self.asked.notifications.insert(id);
            }
            Wish::Take => {
                let untaken = std::mem::take(&mut self.asked.untaken);
                untaken.into_iter().for_each(|len| self.peer.notification_taken(len));
            }
            Wish::OpenRemote { region } => {
                let (id, _) = puppet::region(u32::from(region % 6));
                self.peer.open_remote_regions(&[id]).ok()?;
            }
            Wish::Learn { region } => {
                self.peer.learn_regions([puppet::region(u32::from(region % 6))]);
            }
            Wish::Register { kind } => self.register(kind),
            Wish::Deregister { which } => self.deregister(which)?,
            Wish::Grant { block, tokens } => self.grant(block, tokens)?,
            Wish::Revoke { which } => {
                let id = self.model.standing_grant(which)?;
                let gate = self.peer.revoke(id, "the user wants it so").expect("it stands");
                assert!(gate.is_drained());
                self.model.grant_over(id);
            }
            Wish::EndSession { grant, writes } => {
                let id = self.asked.grant(grant)?.grant;
                self.peer.end_session(id, writes.into(), Bytes::from_static(b"end")).ok()?;
            }
            Wish::AbortSession { grant } => {
                let (id, key) = self.asked.grant(grant).map(|got| (got.grant, got.session))?;
                self.peer.abort_session(key, id, "the user wants it so");
                self.forget_got(id);
            }
            Wish::Directory { which } => match which % 3 {
                0 => self.peer.directory_put(puppet::rank(), puppet::entry()),
                1 => self.peer.directory_get(1, puppet::rank(), 1000),
                _ => self.peer.directory_answer(1, Some(puppet::entry())),
            },
            Wish::Publish { which } => {
                let index = self.model.live(which)?;
                self.registry.publish(self.model.region(index).id).expect("a region that is live");
                self.model.published(index);
            }
            Wish::ListRegions => {
                let question = self.peer.list_regions().ok()?;
                self.asked.lists.insert(question);
            }
            Wish::Goodbye => self.peer.goodbye(),
        }
        Some(())
    }

    pub(super) fn register(&mut self, kind: u8) {
        self.asked.drawn += 1;
        let rights = model::rights(kind);
        let fill = 0x80 | kind;
        let segment = self.memory.allocate(LEN as usize, fill);
        let key = RegionKey::new([self.asked.drawn as u8; 16]);
        let region = self.registry.register(segment.provider(), rights, key).expect("room");
        self.model.add(region, segment.base, vec![fill; LEN as usize]);
    }

    /// In the order that an engine does it. One region of each kind stays.
    fn deregister(&mut self, which: u8) -> Option<()> {
        let index = self.model.live(which).filter(|index| *index >= usize::from(model::KINDS))?;
        let id = self.model.region(index).id;
        self.peer.close_region(id);
        let region = self.registry.deregister(id).expect("a region that is live");
        assert!(region.gate.is_drained());
        self.peer.close_region(id);
        self.model.deregistered(index);
        Some(())
    }

    fn post(
        &mut self,
        write: bool,
        remote: u8,
        (runs, len): (u8, u8),
        notify: bool,
        deadline: u8,
    ) -> Option<()> {
        let len = u64::from(len % 16) + 1;
        let list = |step: u64| -> Spans {
            let count = u64::from(runs % 8) + 1;
            (0..count).map(|i| Span { region: 0, offset: i * step, len }).collect()
        };
        let plan = Plan::pair(&list(len), &list(len + 1), &PlanOptions::default());
        let index = self.model.live(remote)?;
        let local = Arc::clone(self.model.region(index));
        let millis = Duration::from_millis(u64::from(deadline) * 50 + 1);
        let post = Post {
            op: if write { TransferOp::Write } else { TransferOp::Read },
            plan: Arc::new(plan.expect("spans that pair up")),
            local: Arc::from([local]),
            target: Target::Regions(Arc::from([puppet::region(u32::from(remote % 6)).0])),
            notification: notify.then(|| Bytes::from_static(b"it is there")),
            layers: None,
            deadline: Deadline { progress: millis, total: None },
        };
        self.posted(post)
    }

    fn post_under(&mut self, which: u8, layer: u8, announced: bool) -> Option<()> {
        let got = self.asked.grant(which)?;
        let map = BlockMap::new(&model::layout(), &got.layout).ok()?;
        let first = u32::from(layer % 2);
        let layers = first..first + 1;
        let options = PlanOptions::default();
        let plan = map.plan(layers.clone(), got.tokens, &[0, 1], &got.blocks, &options).ok()?;
        let post = Post {
            op: TransferOp::Write,
            plan: Arc::new(plan),
            local: Arc::from([Arc::clone(self.model.region(self.model.pool()))]),
            target: Target::Grant(got.grant),
            notification: None,
            layers: announced.then_some(layers),
            deadline: Deadline::default(),
        };
        self.posted(post)
    }

    fn posted(&mut self, post: Post) -> Option<()> {
        let (plan, local) = (Arc::clone(&post.plan), Arc::clone(&post.local[0]));
        let id = self.peer.post(self.now, post).ok()??;
        let known = self.asked.transfers.insert(id, Posted { plan, local, open: true });
        assert!(known.is_none(), "{id:?} was given twice");
        Some(())
    }

    fn grant(&mut self, block: u8, tokens: u8) -> Option<()> {
        self.asked.drawn += 1;
        let blocks: Vec<u32> = (0..2).map(|i| (u32::from(block) + i) % 4).collect();
        let pool = Arc::clone(self.model.region(self.model.pool()));
        let tokens = u32::from(tokens % 4) + 1;
        let plan = GrantPlan::new(model::layout(), vec![pool], tokens, blocks).ok()?;
        let session = puppet::session(self.asked.drawn);
        let (id, gate) = self.peer.grant(session, Arc::new(plan)).ok()?;
        self.model.granted(id, gate);
        Some(())
    }

    fn forget_got(&mut self, id: GrantId) {
        self.asked.got.retain(|got| got.grant != id);
    }

    /// The peer tells its user something.
    pub(super) fn happened(&mut self, event: Event) {
        match event {
            Event::TransferEnded { transfer, fence, .. } => {
                let posted = self.asked.transfers.get_mut(&transfer).expect("it was posted");
                assert!(std::mem::replace(&mut posted.open, false), "{transfer:?} ended twice");
                assert!(fence.is_none_or(|fence| fence.is_drained()));
            }
            Event::NotificationSettled(id, _, None) => {
                assert!(self.asked.notifications.remove(&id), "{id:?} was settled twice");
            }
            Event::RegionsListed { question, .. } => {
                assert!(self.asked.lists.remove(&question), "{question} was answered twice");
            }
            Event::Notification(bytes) => self.asked.untaken.push(bytes.len()),
            Event::Granted(got) => self.asked.got.push(*got),
            Event::SessionEnded(id, ..)
            | Event::SessionAborted { grant: Some(id), here: Side::Receiver, .. } => {
                self.model.grant_over(id);
            }
            Event::SessionAborted { grant: Some(id), here: Side::Sender, .. }
            | Event::SessionSettled(id, _) => self.forget_got(id),
            _ => {}
        }
    }
}
