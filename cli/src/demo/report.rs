//! The result of a demo as text: a table for people, JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use super::progress::pair_name;
use super::tally::{Figures, Row, Tally};
use crate::text::{bytes_text, count_text};

/// Hexadecimal digits of a digest that people are shown.
const DIGITS: usize = 8;

/// The table's columns after the first.
const HEADS: [&str; 8] =
    ["bytes", "blocks", "runs", "GB/s", "first layer", "exposed", "CPU s/GiB", "digest"];

/// The table and what it means.
pub(super) fn table(tally: &Tally<'_>) -> String {
    let rows = tally.rows();
    let mut lines = vec![cells("rank pair".to_owned(), HEADS.map(str::to_owned))];
    lines.extend(rows.iter().map(|row| line(pair_name(row.instance, row.rank), &row.figures, row)));
    if rows.len() > 1 {
        lines.push(total(tally));
    }
    let mut text = String::from("\n");
    for line in aligned(&lines) {
        let _ = writeln!(text, "{line}");
    }
    text + &conclusion(tally)
}

fn conclusion(tally: &Tally<'_>) -> String {
    let pace = tally.options.pace;
    let mut text = format!(
        "\n\
         GB/s         from the first layer written until all was there; prefill took {} a layer{}\n\
         first layer  from the beginning of prefill until the first layer was there\n\
         exposed      from the end of prefill until all was there\n\
         CPU s/GiB    user and system time of both processes meanwhile, without computing content\n\
         \n",
        if pace.is_zero() { "no time".to_owned() } else { time_text(pace) },
        if pace.is_zero() { "" } else { " (--pace 0 for the engine alone)" },
    );
    let unequal = tally.rows().iter().filter(|row| !row.figures.equal).count();
    let sentence = match (unequal, tally.outside) {
        (0, 0) => "All digests are equal, and no byte outside of the granted blocks was touched.",
        (0, _) => "Digests are equal, BUT MEMORY OUTSIDE OF THE GRANTED BLOCKS WAS TOUCHED.",
        _ => "DIGESTS DIFFER.",
    };
    let mut transports: Vec<_> =
        tally.rows().iter().filter_map(|row| row.transport).map(|kind| kind.to_string()).collect();
    transports.sort();
    transports.dedup();
    if !transports.is_empty() {
        let _ = write!(text, "The transport was {}. ", transports.join(" and "));
    }
    text += sentence;
    if tally.outside > 0 {
        let _ = write!(text, " Bytes touched outside: {}.", count_text(tally.outside));
    }
    text + "\n"
}

/// One object, with times in seconds.
pub(super) fn json(tally: &Tally<'_>) -> String {
    let options = tally.options;
    let rows = tally.rows();
    let pairs = rows.iter().map(|row| {
        let Row { instance, rank, figures, transport, digests: [prefill, decode] } = row;
        let transport = transport.map_or("null".to_owned(), |kind| format!("\"{kind}\""));
        format!(
            "{{\"prefill_instance\":{instance},\"rank\":{rank},\"transport\":{transport},{},\
             \"prefill_digest\":\"{prefill}\",\"decode_digest\":\"{decode}\"}}",
            json_figures(figures)
        )
    });
    format!(
        "{{\"model\":\"{}\",\"tokens\":{},\"tp\":{},\"prefill\":{},\"pace_seconds\":{},\
         \"pairs\":[{}],\"total\":{{{}}},\"bytes_touched_outside\":{}}}\n",
        options.model,
        options.tokens,
        options.tp,
        options.prefill,
        options.pace.as_secs_f64(),
        pairs.collect::<Vec<_>>().join(","),
        json_figures(&tally.total()),
        tally.outside,
    )
}

/// The fields of an object, without its braces.
fn json_figures(figures: &Figures) -> String {
    let Figures { bytes, blocks, runs, moving, first_layer, exposed, cpu, equal } = figures;
    let [moving, first_layer, exposed, cpu] =
        [moving, first_layer, exposed, cpu].map(Duration::as_secs_f64);
    format!(
        "\"bytes\":{bytes},\"blocks\":{blocks},\"runs\":{runs},\"seconds\":{moving},\
         \"gigabytes_per_second\":{},\"first_layer_seconds\":{first_layer},\
         \"exposed_seconds\":{exposed},\"cpu_seconds\":{cpu},\"cpu_seconds_per_gib\":{},\
         \"equal\":{equal}",
        figures.gigabytes_a_second(),
        figures.cpu_a_gib(),
    )
}

fn line(name: String, figures: &Figures, row: &Row<'_>) -> Vec<String> {
    let short = |digest: &str| digest.chars().take(DIGITS).collect::<String>();
    let [prefill, decode] = row.digests.map(short);
    let digest = match figures.equal {
        true => format!("equal {prefill}"),
        false => format!("NOT EQUAL {prefill} {decode}"),
    };
    cells(name, numbers(figures, digest))
}

fn total(tally: &Tally<'_>) -> Vec<String> {
    let figures = tally.total();
    let equal = tally.rows().iter().all(|row| row.figures.equal);
    let digests = if equal { "equal" } else { "NOT EQUAL" };
    cells("total".to_owned(), numbers(&figures, digests.to_owned()))
}

fn cells(name: String, others: [String; 8]) -> Vec<String> {
    std::iter::once(name).chain(others).collect()
}

fn numbers(figures: &Figures, digest: String) -> [String; 8] {
    [
        bytes_text(figures.bytes),
        count_text(figures.blocks),
        count_text(figures.runs),
        format!("{:.2}", figures.gigabytes_a_second()),
        time_text(figures.first_layer),
        time_text(figures.exposed),
        format!("{:.2}", figures.cpu_a_gib()),
        digest,
    ]
}

/// Lines whose columns stand below each other: the first and the last column to the left, numbers
/// to the right.
fn aligned(lines: &[Vec<String>]) -> Vec<String> {
    let columns = lines.first().map_or(0, Vec::len);
    let len = |cell: &String| cell.chars().count();
    let width = |column: usize| lines.iter().map(|line| len(&line[column])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let one = |line: &Vec<String>| {
        let cells =
            line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ if column + 1 == columns => cell.clone(),
                _ => format!("{cell:>width$}"),
            });
        cells.collect::<Vec<_>>().join("  ")
    };
    lines.iter().map(one).collect()
}

fn time_text(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        10.0..1000.0 => format!("{millis:.1} ms"),
        _ => format!("{:.2} s", millis / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_read_them() {
        let times = [9, 12_345, 2_000_000].map(|micros| time_text(Duration::from_micros(micros)));
        assert_eq!(times, ["0.01 ms", "12.3 ms", "2.00 s"]);
    }

    #[test]
    fn columns_stand_below_each_other() {
        let line = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let lines = aligned(&[line(["a → b", "10", "x"]), line(["a", "9", "y"])]);
        assert_eq!(lines, ["a → b  10  x", "a       9  y"]);
    }
}
