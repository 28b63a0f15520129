//! What a person sees while the demo runs: a bar for each rank pair on a terminal, else a few
//! lines.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::options::Options;
use super::role::Role;
use super::workers::Workers;
use crate::text::bytes_text;

/// Without a terminal, so many lines tell of the layers.
const LINES: u32 = 4;

/// Shows how far the demo is, on stderr.
pub(super) struct Progress {
    tp: u32,
    layers: u32,
    /// Layers that have arrived, for each rank pair; those of an instance lie together.
    arrived: Vec<u32>,
    /// Layers that had arrived everywhere when the last line was written.
    told: u32,
    /// On a terminal.
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    /// Before layers move.
    preparing: ProgressBar,
    /// Of each rank pair.
    pairs: Vec<ProgressBar>,
}

impl Progress {
    /// Says what will happen.
    pub(super) fn new(options: &Options, workers: &Workers) -> Self {
        for unknown in options.unknown_variables() {
            say(format_args!("warning: {unknown}"));
        }
        say(options.summary());
        let allocating = format!("allocating {}", bytes_text(options.memory()));
        let bars = std::io::stderr().is_terminal().then(|| Bars::new(options, allocating.clone()));
        if bars.is_none() {
            let processes = workers.processes().map(|(role, id)| format!("{role} {id}"));
            say(format_args!("processes: {}", processes.collect::<Vec<_>>().join(", ")));
            say(allocating);
        }
        let pairs = (options.prefill * options.tp) as usize;
        let layers = options.model.layers();
        Self { tp: options.tp, layers, arrived: vec![0; pairs], told: 0, bars }
    }

    /// Prefill begins.
    pub(super) fn begin(&mut self) {
        match &mut self.bars {
            Some(bars) => bars.begin(),
            None => say("prefill begins"),
        }
    }

    /// So many layers of a rank pair have arrived.
    pub(super) fn arrived(&mut self, instance: u32, rank: u32, layers: u32) {
        let pair = (instance * self.tp + rank) as usize;
        let Some(arrived) = self.arrived.get_mut(pair) else { return };
        *arrived = layers;
        if let Some(bars) = &self.bars {
            bars.pairs[pair].set_position(u64::from(layers));
            return;
        }
        let everywhere = self.arrived.iter().copied().min().unwrap_or(0);
        let step = self.layers.div_ceil(LINES);
        if everywhere / step > self.told / step || everywhere == self.layers {
            say(format_args!("{everywhere} of {} layers have arrived", self.layers));
            self.told = everywhere;
        }
    }

    /// All went well; the bars stay.
    pub(super) fn finish(self) {
        if let Some(bars) = self.bars {
            bars.pairs.iter().for_each(ProgressBar::abandon);
        }
    }

    /// Something failed; the bars show how far it was.
    pub(super) fn abandon(self) {
        if let Some(bars) = self.bars {
            bars.preparing.finish_and_clear();
            bars.pairs.iter().for_each(ProgressBar::abandon);
        }
    }
}

impl Bars {
    fn new(options: &Options, allocating: String) -> Self {
        let all = MultiProgress::new();
        let preparing = all.add(ProgressBar::new_spinner().with_message(allocating));
        preparing.enable_steady_tick(Duration::from_millis(100));
        let of = "{prefix} {bar:40.green/dim} {pos:>3}/{len} layers";
        // Every placeholder is one that indicatif knows; a bar of its own would do too.
        let style =
            ProgressStyle::with_template(of).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.progress_chars("━╸─");
        let layers = u64::from(options.model.layers());
        let instances = 0..options.prefill;
        let pairs =
            instances.flat_map(|instance| (0..options.tp).map(move |rank| (instance, rank)));
        let bar = |(instance, rank)| {
            let prefix = pair_name(instance, rank);
            ProgressBar::new(layers).with_style(style.clone()).with_prefix(prefix)
        };
        Self { all, preparing, pairs: pairs.map(bar).collect() }
    }

    fn begin(&mut self) {
        self.preparing.finish_and_clear();
        self.pairs.iter_mut().for_each(|bar| *bar = self.all.add(bar.clone()));
    }
}

/// How people are told of a rank pair.
pub(super) fn pair_name(instance: u32, rank: u32) -> String {
    format!("{} → {}", Role::Prefill { instance, rank }, Role::Decode { rank })
}

/// There is nobody to tell if that fails.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
