//! What hostile engines post in good order, so that there is something to be broken.

use std::sync::Arc;
use std::time::Duration;

use crate::plan::{Plan, PlanOptions, Span, Spans};
use crate::proto::{Deadline, Post, Target, TransferOp};
use crate::testing::sim::World;
use crate::testing::sim::hostile::baits::BAIT;

impl World {
    /// A WRITE or READ of a bait, allowed or not, which is cancelled now and then.
    pub(super) fn post_to(&mut self, engine: usize, remote: usize) {
        let baits: Vec<_> = self.engines[remote].belongings.baits.iter().collect();
        if baits.is_empty() {
            return;
        }
        let bait = &baits[self.random.index(baits.len())].region;
        let (id, key) = (bait.id, bait.key.clone());
        let write = self.random.percent(50);
        let count = 1 + self.random.within(0..8);
        let len = BAIT / 8;
        let spans = |_: ()| (0..count).map(|i| Span { region: 0, offset: i * len, len });
        let local: Spans = spans(()).collect();
        let far: Spans = spans(()).collect();
        let options = PlanOptions { merge: false, max_run: 32 };
        let plan = Plan::pair(&local, &far, &options).expect("spans that pair up");
        let estate = Arc::clone(&self.engines[engine].belongings.estates[0].region);
        let progress = Duration::from_millis(self.random.within(200..3000));
        let post = Post {
            op: if write { TransferOp::Write } else { TransferOp::Read },
            plan: Arc::new(plan),
            local: Arc::from(vec![estate]),
            target: Target::Regions(Arc::from(vec![id])),
            notification: None,
            layers: None,
            deadline: Deadline { progress, total: None },
        };
        let now = self.local(engine);
        let cancel = self.random.percent(30);
        let peer = &mut self.link(engine, remote).peer;
        peer.learn_regions([(id, key)]);
        if let Ok(Some(transfer)) = peer.post(now, post)
            && cancel
        {
            peer.cancel(transfer);
        }
    }
}
