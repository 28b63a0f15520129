//! What all runs came to, for people.

use kvx_core::testing::Fault;

use crate::campaign::Total;

pub(crate) fn print(total: &Total) {
    let Total { runs, report, wall, largest: (longest, largest) } = total;
    println!("\n{:<48}{:>12}", "fault", "fired");
    for fault in Fault::ALL {
        println!("{:<48}{:>12}", fault.name(), report.count(*fault));
    }
    println!("\n{:<48}{:>12}", "end", "reached");
    for (end, count) in &report.ends {
        println!("{end:<48}{count:>12}");
    }
    println!(
        "\n{runs} runs: {} engines, {} transfers, {} bytes, {} happenings; {:.0} s simulated in {:.1} s",
        report.engines,
        report.transfers,
        report.bytes,
        report.happenings,
        report.nanos as f64 / 1e9,
        wall.as_secs_f64(),
    );
    println!(
        "the largest: {} engines, {} transfers, {} bytes, {} happenings; {:.0} s simulated in {:.1} s",
        largest.engines,
        largest.transfers,
        largest.bytes,
        largest.happenings,
        largest.nanos as f64 / 1e9,
        longest.as_secs_f64(),
    );
    println!("digest {:016x}", report.digest);
}
