//! Plans of span pairs, against the naive copy.

use arbitrary::{Arbitrary, Result, Unstructured};
use kvx_core::plan::{Plan, PlanOptions, Span, Spans};
use kvx_core::testing::oracle;

/// Regions on each side, and the bytes of each.
const REGIONS: usize = 3;
const LEN: u64 = 200;

/// Span lists, and perhaps which of their spans to pair.
#[derive(Debug)]
struct Request {
    local: Spans,
    remote: Spans,
    chosen: Option<(Vec<u32>, Vec<u32>)>,
    options: PlanOptions,
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let merge = u.arbitrary()?;
        let max_run = match u8::arbitrary(u)? {
            255 => u.arbitrary()?,
            byte => u32::from(byte % 64),
        };
        let select = u.ratio(1, 4)?;
        let (mut local, mut remote) = (Spans::new(), Spans::new());
        let mut chosen = (Vec::new(), Vec::new());
        // What comes where the last one ended is what can be merged.
        let mut ends = ((0, 0), (0, 0));
        while !u.is_empty() && local.len() < 200 {
            let len = length(u)?;
            let remote_len = if u.ratio(31, 32)? { len } else { length(u)? };
            local.push(span(u, &mut ends.0, len)?);
            remote.push(span(u, &mut ends.1, remote_len)?);
            if select {
                chosen.0.push(u.int_in_range(0..=local.len() as u32)?);
                chosen.1.push(u.int_in_range(0..=local.len() as u32)?);
            }
        }
        let chosen = select.then_some(chosen);
        Ok(Self { local, remote, chosen, options: PlanOptions { merge, max_run } })
    }
}

fn span(u: &mut Unstructured<'_>, end: &mut (u32, u64), len: u64) -> Result<Span> {
    let (region, offset) = match u8::arbitrary(u)? {
        255 => (u.arbitrary()?, u.arbitrary()?),
        byte if byte & 1 == 0 => *end,
        byte => (u32::from(byte / 2) % REGIONS as u32, u64::from(u8::arbitrary(u)?)),
    };
    *end = (region, offset.saturating_add(len));
    Ok(Span { region, offset, len })
}

/// Short, or so long that no plan can be made of it: never millions of runs.
fn length(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u8::arbitrary(u)? {
        255 => u.int_in_range(1 << 50..=u64::MAX)?,
        byte => u64::from(byte % 40),
    })
}

/// Plans, and does the same the naive way.
pub fn run(bytes: &[u8]) {
    let Some(Request { local, remote, chosen, options }) = crate::structured(bytes) else { return };
    let pairs = chosen_pairs(&local, &remote, chosen.as_ref());
    let planned = match &chosen {
        None => Plan::pair(&local, &remote, &options),
        Some((left, right)) => Plan::select(&local, left, &remote, right, &options),
    };
    let sound = |(local, remote): &(Span, Span)| {
        let ends = |span: &Span| span.offset.checked_add(span.len).is_some();
        local.len == remote.len && ends(local) && ends(remote)
    };
    let pairs = pairs.filter(|pairs| pairs.iter().all(sound));
    let (Some(pairs), true) = (pairs, (1..=4 << 20).contains(&options.max_run)) else {
        assert!(planned.is_err(), "a plan was made of what makes none");
        return;
    };
    let bytes = pairs.iter().fold(0u64, |sum, (local, _)| sum.saturating_add(local.len));
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => {
            assert!(bytes >= 1 << 24, "refused: {error}");
            return;
        }
    };
    assert_eq!(plan.bytes(), bytes);
    keeps_the_rules(&plan, &options, &pairs);
    let lens = [LEN; REGIONS];
    let inside = |span: &Span| {
        span.len == 0
            || ((span.region as usize) < REGIONS && span.offset.saturating_add(span.len) <= LEN)
    };
    let fits = pairs.iter().all(|(local, remote)| inside(local) && inside(remote));
    assert_eq!(plan.check(&lens, &lens).is_ok(), fits);
    if fits {
        moves_the_same(&plan, &pairs);
    }
}

/// The pairs that were asked for; `None` where the lists do not pair up.
fn chosen_pairs(
    local: &Spans,
    remote: &Spans,
    chosen: Option<&(Vec<u32>, Vec<u32>)>,
) -> Option<Vec<(Span, Span)>> {
    let Some((left, right)) = chosen else {
        return Some(local.iter().zip(remote.iter()).collect());
    };
    let pick = |list: &Spans, index: u32| list.iter().nth(index as usize);
    let pairs = left.iter().zip(right);
    pairs.map(|(left, right)| Some((pick(local, *left)?, pick(remote, *right)?))).collect()
}

fn keeps_the_rules(plan: &Plan, options: &PlanOptions, pairs: &[(Span, Span)]) {
    // What is cut stays together, so that offsets are in order where no remote spans overlap.
    let mut places: Vec<Span> = pairs.iter().map(|(_, remote)| *remote).collect();
    places.retain(|span| span.len > 0);
    places.sort_by_key(|span| (span.region, span.offset));
    let meet = |pair: &[Span]| {
        pair[0].region == pair[1].region && pair[0].offset + pair[0].len > pair[1].offset
    };
    let apart = !places.windows(2).any(meet);
    let place = |i: usize| (plan.run(i).remote, if apart { plan.run(i).remote_offset } else { 0 });
    assert!((1..plan.len()).all(|i| place(i - 1) <= place(i)), "out of order");
    assert!(plan.runs(0..plan.len()).all(|run| (1..=options.max_run).contains(&run.len)));
    let apart = pairs.iter().map(|(local, _)| local.len.div_ceil(options.max_run.into()));
    let apart = apart.sum::<u64>() as usize;
    match options.merge {
        true => assert!(plan.len() <= apart),
        false => assert_eq!(plan.len(), apart),
    }
    let highest = |regions: Vec<u32>| regions.last().map_or(0, |last| *last as usize + 1);
    assert_eq!(plan.local_regions(), highest(plan.used_local()));
    assert_eq!(plan.remote_regions(), highest(plan.used_remote()));
}

/// A WRITE by the plan and one span after the other lead to the same memory, but for bytes that
/// more than one span writes: there it is open which one stays.
fn moves_the_same(plan: &Plan, pairs: &[(Span, Span)]) {
    let memory = |salt: u8| -> Vec<Vec<u8>> {
        let byte = |region: usize, i: u64| (i as u8).wrapping_mul(7) ^ (region as u8) << 6 ^ salt;
        (0..REGIONS).map(|region| (0..LEN).map(|i| byte(region, i)).collect()).collect()
    };
    let source = memory(0x55);
    let (mut planned, mut naive) = (memory(0xaa), memory(0xaa));
    let mut writers = vec![vec![0; LEN as usize]; REGIONS];
    let (mut local, mut remote) = (Spans::new(), Spans::new());
    for (from, to) in pairs.iter().filter(|(from, _)| from.len > 0) {
        local.push(*from);
        remote.push(*to);
        let range = to.offset as usize..(to.offset + to.len) as usize;
        writers[to.region as usize][range].iter_mut().for_each(|count| *count += 1);
    }
    oracle::write(plan, &source, &mut planned);
    oracle::copy_spans(&local, &source, &remote, &mut naive);
    for (region, counts) in writers.iter().enumerate() {
        for (byte, count) in counts.iter().enumerate() {
            let same = planned[region][byte] == naive[region][byte];
            assert!(same || *count > 1, "byte {byte} of region {region} differs");
        }
    }
}
