//! A row as text: a line of a table whose columns users of nixlbench know, or a JSON object.

use std::time::Duration;

use super::figures::{Limit, Row, micros};
use super::messages::op_name;

/// The columns of the table and their widths, numbers to the right.
const COLUMNS: [(&str, usize); 17] = [
    ("Workload", 8),
    ("Op", 5),
    ("Memory", 6),
    ("Limit", 16),
    ("Block Size (B)", 14),
    ("Batch Size", 10),
    ("B/W (GB/Sec)", 12),
    ("Avg Lat. (us)", 13),
    ("P50 Lat. (us)", 13),
    ("P99 Lat. (us)", 13),
    ("Limit (GB/Sec)", 14),
    ("Limit P50 (us)", 14),
    ("Limit P99 (us)", 14),
    ("Ratio", 5),
    ("memcpy (GB/Sec)", 15),
    ("CPU (s/GiB)", 11),
    ("Transport", 9),
];

/// Columns of words, which begin to the left.
const WORDS: usize = 4;

/// What a cell says where there is nothing to say.
const NOTHING: &str = "-";

/// The table's first line.
pub(super) fn heads() -> String {
    aligned(COLUMNS.map(|(head, _)| head.to_owned()))
}

/// A row as a line of the table.
pub(super) fn line(row: &Row) -> String {
    let (limit, memcpy) = (row.limits.limit.as_ref(), row.limits.memcpy.as_ref());
    let micros = |time: Duration| format!("{:.1}", micros(time));
    let number = |number: Option<f64>| number.map_or(NOTHING.to_owned(), |of| format!("{of:.3}"));
    let time = |time: Option<Duration>| time.map_or(NOTHING.to_owned(), micros);
    aligned([
        row.task.workload.to_owned(),
        op_name(row.task.op).to_owned(),
        row.owner.name().to_owned(),
        limit.map_or(NOTHING, |limit| limit.by.name()).to_owned(),
        row.task.shape.block_bytes.to_string(),
        row.task.shape.block_count().to_string(),
        number(Some(row.gbps())),
        micros(row.transfers.average()),
        micros(row.transfers.p50()),
        micros(row.transfers.p99()),
        number(limit.map(Limit::gbps)),
        time(limit.map(|limit| limit.reps.p50())),
        time(limit.map(|limit| limit.reps.p99())),
        row.ratio().map_or(NOTHING.to_owned(), |ratio| format!("{ratio:.2}")),
        number(memcpy.map(Limit::gbps)),
        number(Some(row.cpu_a_gib())),
        row.transport.to_string(),
    ])
}

/// A row as a JSON object on one line. What was not measured is null.
pub(super) fn json(row: &Row) -> String {
    let (limit, memcpy) = (row.limits.limit.as_ref(), row.limits.memcpy.as_ref());
    let number = |number: Option<f64>| number.map_or(null(), |of| of.to_string());
    let time = |time: Option<Duration>| number(time.map(micros));
    let text = |text: &str| format!("\"{text}\"");
    let shape = row.task.shape;
    let fields = [
        ("workload", text(row.task.workload)),
        ("op", text(op_name(row.task.op))),
        ("transport", text(&row.transport.to_string())),
        ("lanes", row.lanes.to_string()),
        ("memory", text(row.owner.name())),
        ("pools", shape.pools.to_string()),
        ("blocks", shape.block_count().to_string()),
        ("block_bytes", shape.block_bytes.to_string()),
        ("bytes", shape.bytes().to_string()),
        ("runs", row.runs.to_string()),
        ("reps", row.reps.to_string()),
        ("rounds_checked", row.rounds.to_string()),
        ("gbps", number(Some(row.gbps()))),
        ("limit_gbps", number(limit.map(Limit::gbps))),
        ("ratio", number(row.ratio())),
        ("limit", limit.map_or(null(), |of| text(of.by.name()))),
        ("limit_threads", limit.map_or(null(), |of| of.threads.to_string())),
        ("limit_refused", row.limits.refused.as_deref().map_or(null(), |why| text(&plain(why)))),
        ("memcpy_gbps", number(memcpy.map(Limit::gbps))),
        ("memcpy_threads", memcpy.map_or(null(), |of| of.threads.to_string())),
        ("avg_us", time(Some(row.transfers.average()))),
        ("p50_us", time(Some(row.transfers.p50()))),
        ("p99_us", time(Some(row.transfers.p99()))),
        ("limit_p50_us", time(limit.map(|limit| limit.reps.p50()))),
        ("limit_p99_us", time(limit.map(|limit| limit.reps.p99()))),
        ("prep_us", time(Some(row.prep))),
        ("post_p50_us", time(Some(row.posts.p50()))),
        ("post_p99_us", time(Some(row.posts.p99()))),
        ("cpu_s_per_gib", number(Some(row.cpu_a_gib()))),
        ("spread", number(Some(row.transfers.spread()))),
        ("limit_spread", number(limit.map(|limit| limit.reps.spread()))),
    ];
    let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}", fields.join(","))
}

fn null() -> String {
    "null".to_owned()
}

/// A system's message without what JSON would have to escape.
fn plain(message: &str) -> String {
    message.chars().filter(|letter| !letter.is_control() && !"\"\\".contains(*letter)).collect()
}

fn aligned(cells: [String; COLUMNS.len()]) -> String {
    let columns = cells.into_iter().zip(COLUMNS).enumerate();
    let cells = columns.map(|(column, (cell, (_, width)))| match column {
        ..WORDS => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ")
}
