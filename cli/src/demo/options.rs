//! The demo's options: what they are, whether they make sense together, and how they are handed on
//! to the processes.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use kvx::Config;
use kvx::config::UnknownVariable;
use kvx::error::Invalid;
use kvx::layout::{Attention, Layout, MAX_BLOCK_TOKENS, Placement, Preset};
use kvx::transport::TransportKind;

use crate::arguments::{lanes, transport};
use crate::available::available_memory;
use crate::text::bytes_text;

/// Layers may not come more slowly: an engine takes a peer of which nothing arrives for 10 s for
/// dead.
const SLOWEST_PACE: Duration = Duration::from_secs(2);

/// What a process needs beside its KV pools, roughly.
const OVERHEAD: u64 = 32 << 20;

/// Blocks of a pool that no prompt gets: one of 8, but at least so many.
const LEAST_SPARE: u32 = 4;

/// Shows a KV cache of a real model's shape on its way between processes
///
/// Prefill processes compute it and send each layer while they compute the next; decode processes
/// receive it into blocks of their own; at the end each digests its memory, and the digests are
/// compared. Each tensor-parallel rank is a process of its own, all on this host.
///
/// Exit status 0: everything is equal; 1: it is not, or something failed; 2: bad options.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The model whose KV cache is moved.
    #[arg(long, default_value = Preset::Qwen3_32B.name(), value_parser = model(), ignore_case = true)]
    pub(super) model: Preset,

    /// Tokens of each prompt.
    #[arg(long, default_value_t = 4096, value_parser = tokens)]
    pub(super) tokens: u32,

    /// Tensor-parallel size: so many pairs of a prefill and a decode process.
    #[arg(long, value_name = "RANKS", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) tp: u32,

    /// Prefill instances. Each computes a prompt of its own for the same decode ranks.
    #[arg(long, value_name = "INSTANCES", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(super) prefill: u32,

    /// Milliseconds that prefill takes to compute a layer; 0: as fast as memory is filled.
    #[arg(long, value_name = "MS", default_value = "5", value_parser = pace)]
    pub(super) pace: Duration,

    /// The transport; default: those of KVX_TRANSPORTS.
    #[arg(long, value_parser = transport())]
    pub(super) transport: Option<TransportKind>,

    /// Lanes between two engines; default: KVX_LANES, else what the transport likes best.
    #[arg(long, value_parser = lanes)]
    pub(super) lanes: Option<NonZeroU16>,

    /// Decides the content and where blocks lie.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,

    /// Tokens of a block; default: what serving engines use for the model.
    #[arg(long, value_name = "TOKENS",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BLOCK_TOKENS)))]
    pub(super) block_tokens: Option<u32>,

    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,

    /// Change a byte of decode rank 0 before it is looked at, to see that it is noticed.
    #[arg(long, hide = true)]
    pub(super) corrupt: Option<Corrupt>,
}

/// Which byte to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Corrupt {
    /// One that was received.
    Inside,
    /// One that nobody may write.
    Outside,
}

impl Options {
    /// Whether the options make sense together and on this machine.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_ranks()?;
        self.config().and_then(|config| config.validate()).map_err(|error| error.to_string())?;
        let too_many = |error: Invalid| format!("--tokens {}: {error}", self.tokens);
        self.prefill_layout(0).map_err(too_many)?;
        self.decode_layout(0).map_err(too_many)?;
        let needed = self.memory();
        match available_memory() {
            Some(available) if needed > available => Err(format!(
                "this needs {} of memory, and {} are available; fewer --tokens (now {}) need less",
                bytes_text(needed),
                bytes_text(available),
                self.tokens,
            )),
            _ => Ok(()),
        }
    }

    fn check_ranks(&self) -> Result<(), String> {
        let (model, heads) = (self.model, self.model.heads());
        if self.layout(0, 1).is_ok() {
            return Ok(());
        }
        let fitting = (1..=heads).filter(|tp| heads.is_multiple_of(*tp));
        let fitting: Vec<_> = fitting.map(|tp| tp.to_string()).collect();
        let fitting = fitting.join(", ");
        Err(format!(
            "--tp {}: the {heads} KV heads of {model} do not spread evenly over as many ranks; \
             expected {fitting} or a multiple of {heads}",
            self.tp
        ))
    }

    /// The engine's options: the environment's, but on loopback, where nothing of the demo can be
    /// reached from outside.
    pub(super) fn config(&self) -> Result<Config, Invalid> {
        let mut config =
            Config::from_env()?.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).advertise([]);
        if let Some(transport) = self.transport {
            config = config.transports([transport]);
        }
        if let Some(lanes) = self.lanes {
            config = config.lanes(lanes);
        }
        Ok(config)
    }

    /// `KVX_` variables that name no option.
    pub(super) fn unknown_variables(&self) -> Vec<UnknownVariable> {
        self.config().map(|config| config.unknown_variables().to_vec()).unwrap_or_default()
    }

    /// Blocks of each prompt.
    pub(super) fn blocks(&self) -> u32 {
        self.tokens.div_ceil(self.block_tokens())
    }

    pub(super) fn block_tokens(&self) -> u32 {
        self.block_tokens.unwrap_or(self.model.block_tokens())
    }

    /// The KV pool of a prefill rank.
    pub(super) fn prefill_layout(&self, rank: u32) -> Result<Layout, Invalid> {
        self.layout(rank, self.with_spare(1))
    }

    /// The KV pool of a decode rank, which holds the prompts of all prefill instances.
    pub(super) fn decode_layout(&self, rank: u32) -> Result<Layout, Invalid> {
        self.layout(rank, self.with_spare(self.prefill))
    }

    fn layout(&self, rank: u32, blocks: u32) -> Result<Layout, Invalid> {
        // vLLM's way: a tensor for each layer, keys before values.
        self.model.layout(self.tp, rank, self.block_tokens(), blocks, Placement::RegionPerLayer)
    }

    fn with_spare(&self, prompts: u32) -> u32 {
        let spare = (self.blocks() / 8).max(LEAST_SPARE);
        // A pool of u32::MAX blocks is more than any memory.
        self.blocks().saturating_mul(prompts).saturating_add(spare)
    }

    /// Bytes of a prompt's KV cache on one rank.
    pub(super) fn prompt_bytes(&self) -> u64 {
        let token_bytes = self.layout(0, 1).map_or(0, |layout| layout.token_bytes());
        token_bytes.saturating_mul(u64::from(self.tokens))
    }

    /// Bytes that move in all.
    pub(super) fn total_bytes(&self) -> u64 {
        self.prompt_bytes().saturating_mul(u64::from(self.tp * self.prefill))
    }

    /// Bytes that all processes need together.
    pub(super) fn memory(&self) -> u64 {
        let pools = |layout: Result<Layout, Invalid>| {
            let lens = layout.map(|layout| layout.region_lens()).unwrap_or_default();
            lens.into_iter().fold(OVERHEAD, u64::saturating_add)
        };
        pools(self.prefill_layout(0))
            .saturating_mul(u64::from(self.prefill))
            .saturating_add(pools(self.decode_layout(0)))
            .saturating_mul(u64::from(self.tp))
    }

    /// The arguments from which another process parses these options.
    pub(super) fn to_arguments(&self) -> Vec<OsString> {
        let Self {
            model,
            tokens,
            tp,
            prefill,
            pace,
            transport,
            lanes,
            seed,
            block_tokens,
            json: _,
            corrupt,
        } = self;
        let corrupt = corrupt.and_then(|corrupt| corrupt.to_possible_value());
        let pairs = [
            ("--model", Some(model.to_string())),
            ("--tokens", Some(tokens.to_string())),
            ("--tp", Some(tp.to_string())),
            ("--prefill", Some(prefill.to_string())),
            ("--pace", Some((pace.as_secs_f64() * 1e3).to_string())),
            ("--transport", transport.map(|transport| transport.to_string())),
            ("--lanes", lanes.map(|lanes| lanes.to_string())),
            ("--seed", Some(seed.to_string())),
            ("--block-tokens", block_tokens.map(|tokens| tokens.to_string())),
            ("--corrupt", corrupt.map(|corrupt| corrupt.get_name().to_owned())),
        ];
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.flat_map(|(name, value)| [name.into(), value.into()]).collect()
    }

    /// One line that says what will happen.
    pub(super) fn summary(&self) -> String {
        let Self { model, tokens, tp, prefill, .. } = self;
        let what = match model.attention() {
            Attention::KeyValue => "keys and values",
            Attention::Latent => "latent vectors",
        };
        let instances = if *prefill == 1 { "instance" } else { "instances" };
        format!(
            "{model}, {tokens} tokens, {prefill} prefill {instances}, TP {tp}: {} of {what} in {} \
             layers for each rank pair, {} in all",
            bytes_text(self.prompt_bytes()),
            model.layers(),
            bytes_text(self.total_bytes()),
        )
    }
}

/// Takes a model's name; clap lists the names where another is given.
fn model() -> impl TypedValueParser<Value = Preset> {
    let names = PossibleValuesParser::new(Preset::ALL.map(Preset::name));
    names.try_map(|name| name.parse::<Preset>())
}

fn tokens(text: &str) -> Result<u32, String> {
    let tokens = text.parse().ok().filter(|tokens| *tokens > 0);
    tokens.ok_or_else(|| "expected a number of at least 1".to_owned())
}

fn pace(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map(|millis| millis / 1e3).ok();
    let pace = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    pace.filter(|pace| *pace <= SLOWEST_PACE)
        .ok_or_else(|| format!("expected 0 to {} milliseconds", SLOWEST_PACE.as_millis()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Options {
        let line = std::iter::once("demo").chain(arguments.iter().copied());
        Line::try_parse_from(line).unwrap().options
    }

    #[test]
    fn a_process_parses_the_options_it_is_handed() {
        let given = [
            "--model=deepseek-v3",
            "--tokens=17",
            "--tp=4",
            "--prefill=2",
            "--pace=0.5",
            "--transport=tcp",
            "--lanes=3",
            "--seed=9",
            "--block-tokens=8",
            "--corrupt=outside",
        ];
        for options in [parse(&given), parse(&[])] {
            let handed = options.to_arguments();
            let handed: Vec<_> = handed.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(format!("{:?}", parse(&handed)), format!("{options:?}"));
        }
    }

    #[test]
    fn the_default_moves_512_mib_a_rank() {
        let options = parse(&[]);
        assert_eq!(options.prompt_bytes(), 512 << 20);
        assert_eq!(options.total_bytes(), 1 << 30);
    }

    #[test]
    fn ranks_that_heads_do_not_spread_over_are_refused_with_those_that_fit() {
        let why = parse(&["--tp=3"]).check().unwrap_err();
        assert!(why.contains("--tp 3") && why.contains("1, 2, 4, 8 or a multiple of 8"), "{why}");
        assert!(parse(&["--tp=16", "--tokens=16"]).check().is_ok());
        assert!(parse(&["--tp=3", "--tokens=16", "--model=deepseek-v3"]).check().is_ok());
    }

    #[test]
    fn more_than_the_machine_has_is_refused_before_anything_is_allocated() {
        for tokens in ["100000000", "4294967295"] {
            let why = parse(&["--tokens", tokens]).check().unwrap_err();
            assert!(why.contains("tokens") && why.contains("memory"), "{why}");
        }
    }
}
