//! Published regions in a run: an engine publishes its baits, and others ask which it has.

use std::sync::Arc;

use crate::error::Cause;
use crate::region::Region;
use crate::testing::sim::World;
use crate::testing::sim::ledger::Published;
use crate::wire::metadata::RegionDescription;

impl World {
    /// Publishes a region of an engine.
    pub(crate) fn publish(&mut self, engine: usize, region: &Arc<Region>) {
        let registry = &self.engines[engine].registry;
        registry.publish(region.id).expect("a region that is registered");
        self.ledger.published.insert((engine, *region.key.as_bytes()));
    }

    /// An engine asks another which regions it publishes.
    pub(super) fn ask_for_regions(&mut self, engine: usize, remote: usize) {
        let life = (remote, self.engines[remote].life);
        let regions = self.engines[remote].registry.published();
        let link = self.link(engine, remote);
        let serial = link.serial;
        match link.peer.list_regions() {
            Ok(question) => {
                // Who shares a question asks later than who put it.
                self.ledger.lists.insert((serial, question), Published { life, regions });
            }
            Err(cause) => self.count_end(format!("regions not asked for: {cause}")),
        }
        self.attend(engine, remote);
    }

    /// The answer: what was published when it was asked for, unless it was deregistered since; and
    /// nothing that never was.
    pub(crate) fn regions_listed(
        &mut self,
        engine: usize,
        remote: usize,
        serial: u64,
        question: u64,
        outcome: Result<Vec<RegionDescription>, Cause>,
    ) {
        let asked = self.ledger.lists.remove(&(serial, question));
        let asked = asked.expect("an answer to a question that was asked, and the only one");
        let Ok(regions) = outcome else {
            return self.count_end("regions not listed".to_owned());
        };
        self.count_end("regions listed".to_owned());
        self.note(|| format!("{engine} hears of {} regions of {remote}", regions.len()));
        if self.setting.is_hostile(remote) {
            return;
        }
        for region in &regions {
            let published = self.ledger.published.contains(&(remote, *region.key.as_bytes()));
            assert!(published, "{remote} tells of a region that it never published");
        }
        if asked.life != (remote, self.engines[remote].life) {
            return;
        }
        for region in asked.regions.iter().filter(|region| region.gate.is_open()) {
            let listed = regions.iter().find(|listed| listed.key == region.key);
            assert_eq!(listed, Some(&region.describe()), "a published region is not listed");
        }
    }
}
