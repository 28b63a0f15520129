//! Published regions: who asks is told of them, and of nothing else; and what a list may cost
//! (PROTOCOL 4.4).

use std::sync::Arc;

use kvx_core::error::{Cause, Resource, Violation};
use kvx_core::id::RegionId;
use kvx_core::proto::{Event, PeerConfig, Post, Target, TransferOp};
use kvx_core::region::{Region, RegionKey, Rights};
use kvx_core::testing::Pair;
use kvx_core::transport::HostMemory;
use kvx_core::wire::handshake::Features;
use kvx_core::wire::message::{MAX_LISTED_REGIONS, Message};
use kvx_core::wire::metadata::{MAX_REGIONS, RegionDescription};

use super::scene::{ALL, Scene, config, say, scene, scene_with};

type Answer = (u64, Result<Vec<RegionDescription>, Cause>);

/// The answers that side 0's user was given.
fn answers(pair: &mut Pair) -> Vec<Answer> {
    pair.collect();
    let mut answers = Vec::new();
    for event in pair.sides[0].take_events() {
        if let Event::RegionsListed { question, regions } = event {
            answers.push((question, regions));
        }
    }
    answers
}

/// The regions of the one answer there was.
fn answer(pair: &mut Pair) -> Vec<RegionDescription> {
    let mut answers = answers(pair);
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0).1.unwrap()
}

/// Side 0 asks, and hears the answer.
fn listed(scene: &mut Scene) -> Vec<RegionDescription> {
    scene.pair.sides[0].peer.list_regions().unwrap();
    scene.pair.settle();
    answer(&mut scene.pair)
}

/// A region of side 1's that is published.
fn publish(scene: &mut Scene, rights: Rights) -> Arc<Region> {
    let (region, _) = scene.pair.sides[1].register(4096, 0xee, rights);
    scene.pair.sides[1].registry.publish(region.id).unwrap();
    region
}

fn deregister(scene: &mut Scene, region: &Region) {
    scene.pair.sides[1].peer.close_region(region.id);
    scene.pair.sides[1].registry.deregister(region.id).unwrap();
}

/// So many regions of side 1's, without memory behind them.
fn publish_many(scene: &Scene, count: usize) {
    for number in 0..count as u64 {
        let memory = HostMemory::new(1 << 40 | number << 12, 4096).unwrap();
        let key = RegionKey::new((u128::from(number) + 1).to_le_bytes());
        let registry = &scene.pair.sides[1].registry;
        let region = registry.register(Arc::new(memory), ALL, key).unwrap();
        registry.publish(region.id).unwrap();
    }
}

/// A WRITE of one run into a region of side 1's.
fn write_to(scene: &mut Scene, region: RegionId) -> Result<String, Cause> {
    let post = scene.post_of(TransferOp::Write, scene.plan(1, 16));
    let post = Post { target: Target::Regions(Arc::from([region])), ..post };
    let now = scene.pair.now;
    scene.pair.sides[0].peer.post(now, post)?;
    scene.pair.settle();
    Ok(scene.end())
}

#[test]
fn who_asks_is_told_of_what_is_published_and_of_nothing_else() {
    let mut scene = scene();
    assert_eq!(listed(&mut scene), [], "what is only registered is not told");
    let first = publish(&mut scene, Rights::REMOTE_READ);
    let second = publish(&mut scene, ALL);
    scene.pair.sides[1].register(4096, 0, ALL);
    assert_eq!(listed(&mut scene), [first.describe(), second.describe()]);
    let third = publish(&mut scene, Rights::empty());
    assert_eq!(listed(&mut scene), [&first, &second, &third].map(|region| region.describe()));
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), []);
    }
}

#[test]
fn a_deregistered_region_is_listed_no_more() {
    let mut scene = scene();
    let regions = [(); 3].map(|()| publish(&mut scene, ALL));
    deregister(&mut scene, &regions[1]);
    assert_eq!(listed(&mut scene), [regions[0].describe(), regions[2].describe()]);
    // Its place in the table is another's, who has not published it.
    scene.pair.sides[1].register(4096, 0, ALL);
    assert_eq!(listed(&mut scene).len(), 2);
    let gone = scene.pair.sides[1].registry.publish(regions[1].id);
    assert!(gone.is_err(), "what is deregistered cannot be published");
}

#[test]
fn a_list_brings_the_keys_of_its_regions() {
    let mut scene = scene();
    let region = publish(&mut scene, ALL);
    assert_eq!(write_to(&mut scene, region.id).unwrap_err().to_string(), "unknown region");
    listed(&mut scene);
    assert_eq!(write_to(&mut scene, region.id).unwrap(), "16 bytes in 1 runs");
}

#[test]
fn what_the_next_list_does_not_have_is_forgotten_and_what_metadata_told_is_not() {
    let mut scene = scene();
    let [gone, blob, stays] = [(); 3].map(|()| publish(&mut scene, ALL));
    scene.pair.sides[0].peer.learn_regions([(blob.id, blob.key.clone())]);
    listed(&mut scene);
    for region in [&gone, &blob, &stays] {
        assert_eq!(write_to(&mut scene, region.id).unwrap(), "16 bytes in 1 runs");
    }
    deregister(&mut scene, &gone);
    deregister(&mut scene, &blob);
    listed(&mut scene);
    assert_eq!(write_to(&mut scene, gone.id).unwrap_err().to_string(), "unknown region");
    let closed = write_to(&mut scene, blob.id).unwrap_err();
    assert_eq!(closed.to_string(), "refused by the peer: the region was deregistered");
    assert_eq!(write_to(&mut scene, stays.id).unwrap(), "16 bytes in 1 runs");
}

#[test]
fn a_region_that_is_asked_for_is_kept_until_it_is_answered() {
    let mut scene = scene();
    let region = publish(&mut scene, ALL);
    listed(&mut scene);
    deregister(&mut scene, &region);
    // Its key is shown, and before the answer comes a list that does not have it.
    scene.pair.sides[0].peer.list_regions().unwrap();
    scene.pair.sides[0].peer.open_remote_regions(&[region.id]).unwrap();
    scene.pair.settle();
    assert_eq!(answer(&mut scene.pair), []);
    assert!(scene.pair.sides.iter().all(|side| side.violation.is_none()));
}

#[test]
fn a_long_list_comes_in_parts_and_whole() {
    let mut scene = scene();
    let count = 2 * MAX_LISTED_REGIONS + 1;
    publish_many(&scene, count);
    scene.pair.sides[0].peer.list_regions().unwrap();
    assert!(scene.pair.deliver(1));
    let parts: Vec<(bool, usize)> = scene
        .pair
        .messages(0)
        .iter()
        .filter_map(|message| match message {
            Message::RegionsListed { more, regions } => Some((*more, regions.len())),
            _ => None,
        })
        .collect();
    let full = MAX_LISTED_REGIONS;
    assert_eq!(parts, [(true, full), (true, full), (false, 1)]);
    // The connection breaks between them.
    assert!(scene.pair.deliver(0));
    assert!(answers(&mut scene.pair).is_empty());
    scene.pair.disconnect();
    scene.pair.connect(0);
    scene.pair.settle();
    let regions = answer(&mut scene.pair);
    let bases = (0..count as u64).map(|number| 1 << 40 | number << 12);
    assert!(regions.iter().map(|region| region.base).eq(bases));
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), [], "nothing is charged for what is whole");
    }
}

#[test]
fn all_regions_that_an_engine_may_have_are_listed() {
    let mut scene = scene();
    // Two are the scene's own.
    publish_many(&scene, MAX_REGIONS - 1);
    assert_eq!(listed(&mut scene).len(), MAX_REGIONS - 1);
}

#[test]
fn who_asks_while_an_answer_is_under_way_hears_a_later_one() {
    let mut scene = scene();
    let peer = &mut scene.pair.sides[0].peer;
    let first = peer.list_regions().unwrap();
    assert!(scene.pair.deliver(1), "the peer has answered the first");
    let region = publish(&mut scene, ALL);
    let peer = &mut scene.pair.sides[0].peer;
    let (second, third) = (peer.list_regions().unwrap(), peer.list_regions().unwrap());
    assert!(first != second && second == third);
    assert_eq!(scene.pair.messages(1), [], "one question at a time");
    scene.pair.settle();
    let answers = answers(&mut scene.pair);
    let counts = answers.iter().map(|(question, regions)| {
        (*question, regions.as_ref().unwrap().iter().map(|region| region.id).collect::<Vec<_>>())
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(first, vec![]), (second, vec![region.id])]);
}

#[test]
fn a_question_from_before_the_first_connection_is_asked_on_it() {
    let mut pair = Pair::new([config(), config()]);
    let question = pair.sides[0].peer.list_regions().unwrap();
    let (region, _) = pair.sides[1].register(64, 0, ALL);
    pair.sides[1].registry.publish(region.id).unwrap();
    pair.connect(0);
    pair.settle();
    let answers = answers(&mut pair);
    assert_eq!(answers[0].0, question);
    assert_eq!(answers[0].1.as_ref().unwrap(), &[region.describe()]);
}

/// A connection to a peer of another feature set.
fn connect_without(pair: &mut Pair) {
    let (mut dialed, mut accepted) = pair.handshake(0, std::time::Duration::ZERO);
    dialed.features = Features::empty();
    accepted.features = Features::empty();
    let now = pair.now;
    pair.sides[0].peer.handle_connected(now, &dialed, true);
    pair.sides[1].peer.handle_connected(now, &accepted, false);
    pair.settle();
}

#[test]
fn a_peer_without_the_feature_is_not_asked() {
    let mut pair = Pair::new([config(), config()]);
    let early = pair.sides[0].peer.list_regions().unwrap();
    connect_without(&mut pair);
    let answers = answers(&mut pair);
    assert_eq!((answers.len(), answers[0].0), (1, early));
    assert!(matches!(answers[0].1, Err(Cause::Unsupported(_))));
    let late = pair.sides[0].peer.list_regions();
    assert!(matches!(late, Err(Cause::Unsupported(_))), "{late:?}");
    assert!(pair.sides.iter().all(|side| side.violation.is_none()));
}

#[test]
fn a_question_that_was_not_agreed_on_ends_the_peer() {
    let mut pair = Pair::new([config(), config()]);
    connect_without(&mut pair);
    let violation = say(&mut pair, 1, [Message::ListRegions]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "ListRegions", .. })));
}

#[test]
fn engines_of_this_version_agree_on_the_feature() {
    let mut pair = Pair::new([config(), config()]);
    let (dialed, accepted) = pair.handshake(0, std::time::Duration::ZERO);
    assert!(dialed.features.contains(Features::PUBLISHED_REGIONS));
    assert_eq!(dialed.features, accepted.features);
}

#[test]
fn a_second_question_before_the_answer_is_acknowledged_ends_the_peer() {
    let mut scene = scene();
    publish(&mut scene, ALL);
    let violation = say(&mut scene.pair, 1, [Message::ListRegions, Message::ListRegions]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "ListRegions", .. })));
}

#[test]
fn a_list_that_nobody_asked_for_ends_the_peer() {
    let mut scene = scene();
    let list = || Message::RegionsListed { more: false, regions: Vec::new() };
    let violation = say(&mut scene.pair, 0, [list()]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "RegionsListed", .. })));
    // Nor does one come twice.
    let mut scene = self::scene();
    scene.pair.sides[0].peer.list_regions().unwrap();
    let violation = say(&mut scene.pair, 0, [list(), list()]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "RegionsListed", .. })));
}

/// A part of a list as long as may be.
fn long_part(scene: &Scene, more: bool) -> Message {
    Message::RegionsListed { more, regions: vec![scene.remote.describe(); MAX_LISTED_REGIONS] }
}

#[test]
fn a_list_without_end_ends_the_peer() {
    let mut scene = scene();
    scene.pair.sides[0].peer.list_regions().unwrap();
    let parts = vec![long_part(&scene, true); MAX_REGIONS / MAX_LISTED_REGIONS + 1];
    let violation = say(&mut scene.pair, 0, parts);
    assert!(matches!(violation, Some(Violation::Overrun(Resource::Regions))), "{violation:?}");
    assert_eq!(scene.pair.sides[0].peer.residue(), [], "the dead keep nothing");
}

#[test]
fn a_list_is_charged_while_it_comes() {
    let mut scene = scene_with(PeerConfig { memory: 1 << 20, ..config() });
    scene.pair.sides[0].peer.list_regions().unwrap();
    let parts = [long_part(&scene, true), long_part(&scene, false)];
    let violation = say(&mut scene.pair, 0, parts);
    assert!(matches!(violation, Some(Violation::Overrun(Resource::PeerBytes))), "{violation:?}");
    assert_eq!(scene.pair.sides[0].peer.residue(), [], "the dead keep nothing");
}

#[test]
fn regions_that_come_and_go_in_lists_are_not_kept() {
    let mut scene = scene();
    // Each list names others, which the user begins to use; the owner never says more of them.
    let mut ended = None;
    for round in 1..=2 * MAX_REGIONS / MAX_LISTED_REGIONS + 1 {
        scene.pair.sides[0].peer.list_regions().unwrap();
        let others = |index| RegionDescription {
            id: RegionId::new(index as u32, round as u32),
            ..scene.remote.describe()
        };
        let regions: Vec<_> = (0..MAX_LISTED_REGIONS).map(others).collect();
        let ids: Vec<RegionId> = regions.iter().map(|region| region.id).collect();
        scene.pair.inject(0, round as u64, 0, &Message::RegionsListed { more: false, regions });
        scene.pair.deliver(0);
        ended = scene.pair.sides[0].violation.take();
        if ended.is_some() {
            break;
        }
        scene.pair.sides[0].peer.open_remote_regions(&ids).unwrap();
    }
    assert!(matches!(ended, Some(Violation::Overrun(Resource::Regions))), "{ended:?}");
}

#[test]
fn questions_fail_with_the_peer_and_when_it_begins_anew() {
    let mut scene = scene();
    publish_many(&scene, MAX_LISTED_REGIONS + 1);
    let asked = scene.pair.sides[0].peer.list_regions().unwrap();
    scene.pair.deliver(1);
    scene.pair.deliver(0);
    let waiting = scene.pair.sides[0].peer.list_regions().unwrap();
    scene.pair.forget(1);
    scene.pair.connect(0);
    scene.pair.settle();
    let reset: Vec<(u64, bool)> = answers(&mut scene.pair)
        .into_iter()
        .map(|(question, regions)| (question, matches!(regions, Err(Cause::PeerReset))))
        .collect();
    assert_eq!(reset, [(asked, true), (waiting, true)]);
    assert_eq!(listed(&mut scene).len(), MAX_LISTED_REGIONS + 1, "it can be asked again");
    scene.pair.sides[0].peer.list_regions().unwrap();
    scene.pair.sides[0].peer.kill(Cause::PeerRemoved);
    let dead = answers(&mut scene.pair);
    assert!(matches!(dead[..], [(_, Err(Cause::PeerRemoved))]), "{dead:?}");
    assert!(matches!(scene.pair.sides[0].peer.list_regions(), Err(Cause::PeerRemoved)));
    assert_eq!(scene.pair.sides[0].peer.residue(), []);
}
