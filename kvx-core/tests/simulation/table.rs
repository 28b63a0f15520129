//! What all runs came to, for people.

use std::fmt::Write as _;
use std::io::Write as _;

use kvx_core::testing::Fault;

use crate::campaign::Total;

/// Prints it past the test harness, which keeps to itself what a test that passes prints.
pub(crate) fn print(total: &Total) {
    let mut text = String::new();
    // To a string nothing fails; and who reads no table does not fail the test.
    let _ = write_table(&mut text, total);
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn write_table(out: &mut String, total: &Total) -> std::fmt::Result {
    let Total { runs, report, wall, largest: (longest, largest) } = total;
    writeln!(out, "\n{:<48}{:>12}", "fault", "fired")?;
    for fault in Fault::ALL {
        writeln!(out, "{:<48}{:>12}", fault.name(), report.count(*fault))?;
    }
    writeln!(out, "\n{:<48}{:>12}", "end", "reached")?;
    for (end, count) in &report.ends {
        writeln!(out, "{end:<48}{count:>12}")?;
    }
    writeln!(
        out,
        "\n{runs} runs: {} engines, {} transfers, {} bytes, {} happenings; {:.0} s simulated in {:.1} s",
        report.engines,
        report.transfers,
        report.bytes,
        report.happenings,
        report.nanos as f64 / 1e9,
        wall.as_secs_f64(),
    )?;
    writeln!(
        out,
        "the largest: {} engines, {} transfers, {} bytes, {} happenings; {:.0} s simulated in {:.1} s",
        largest.engines,
        largest.transfers,
        largest.bytes,
        largest.happenings,
        largest.nanos as f64 / 1e9,
        longest.as_secs_f64(),
    )?;
    writeln!(out, "digest {:016x}", report.digest)
}
