//! KV pools as users list them: regions that come twice, regions that are gone (promises 1 and 5).

use std::sync::Arc;

use kvx_core::error::Cause;
use kvx_core::id::{Room, SessionKey};
use kvx_core::layout::{Dtype, HeadWindow, Layout, LayoutBuilder, Placement};
use kvx_core::plan::{BlockMap, PlanOptions};
use kvx_core::proto::{Deadline, Event, GrantPlan, Post, Target, TransferOp};
use kvx_core::region::Rights;
use kvx_core::testing::Pair;

use super::scene::config;

const KEY: SessionKey = SessionKey { room: Room(3), attempt: 0, sender_rank: 0, receiver_rank: 0 };

fn layout() -> Layout {
    let heads = HeadWindow { first: 0, count: 2, total: 2 };
    LayoutBuilder::key_value(2, 4, heads, 16, Dtype::Fp16)
        .block_tokens(4)
        .placement(Placement::OneRegion)
        .build()
        .unwrap()
}

#[test]
fn a_region_that_a_pool_names_several_times_is_granted_under_each_name() {
    let mut pair = Pair::connected(config());
    let layout = layout();
    let len = layout.region_lens()[0] as usize;
    let (source, ours) = pair.sides[0].register(len, 7, Rights::empty());
    let (target, theirs) = pair.sides[1].register(len, 0xee, Rights::empty());
    // One allocation that every layer's tensors are views of, listed once for each.
    let mut views = layout.clone();
    let names = 0..views.pools.len() as u32;
    views.pools.iter_mut().zip(names.clone()).for_each(|(pool, name)| pool.region = name);
    let regions = names.map(|_| Arc::clone(&target)).collect();
    let plan = GrantPlan::new(views.clone(), regions, 16, vec![0, 1, 2, 3]).unwrap();
    let (grant, _) = pair.sides[1].peer.grant(KEY, Arc::new(plan)).unwrap();
    pair.settle();

    let blocks = [0, 1, 2, 3];
    let map = BlockMap::new(&layout, &views).unwrap();
    let plan = map.plan(0..2, 16, &blocks, &blocks, &PlanOptions::default()).unwrap();
    let post = Post {
        op: TransferOp::Write,
        plan: Arc::new(plan),
        local: Arc::from([source]),
        target: Target::Grant(grant),
        notification: None,
        layers: Some(0..2),
        deadline: Deadline::default(),
    };
    let now = pair.now;
    pair.sides[0].peer.post(now, post).unwrap();
    pair.settle();
    let ended = pair.sides[0].take_events().into_iter().find_map(|event| match event {
        Event::TransferEnded { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert!(matches!(ended, Some(Ok(_))), "{ended:?}");
    let sent = pair.sides[0].memory.bytes(ours.base, len).to_vec();
    assert_eq!(pair.sides[1].memory.bytes(theirs.base, len), sent);
}

#[test]
fn a_grant_of_a_region_that_is_gone_says_so() {
    let mut pair = Pair::connected(config());
    let layout = layout();
    let len = layout.region_lens()[0] as usize;
    let (region, _) = pair.sides[1].register(len, 0, Rights::empty());
    let plan = GrantPlan::new(layout, vec![Arc::clone(&region)], 4, vec![0]).unwrap();
    pair.sides[1].registry.deregister(region.id).unwrap();
    let refused = pair.sides[1].peer.grant(KEY, Arc::new(plan)).unwrap_err();
    assert!(matches!(refused, Cause::RegionClosed), "{refused}");
}
