use super::super::BULK;
use super::*;

fn condition(gbps: f64, ping_p99: u64) -> Condition {
    Condition {
        gbps,
        bulk_p50: Duration::from_millis(10),
        bulk_p99: Duration::from_millis(12),
        ping_p50: Duration::from_micros(20),
        ping_p99: Duration::from_micros(ping_p99),
        cpu_a_gib: 0.5,
        bytes_checked: 1000,
    }
}

fn round(alone: (f64, u64), beside: (f64, u64)) -> Round {
    Round {
        alone: condition(alone.0, alone.1),
        beside: condition(beside.0, beside.1),
        report: Report { attacks: 6, blows: 100, surprises: 1, cpu: Duration::from_millis(20) },
        attacked: Duration::from_secs(2),
    }
}

fn three_rounds() -> Neighbours {
    Neighbours {
        transport: TransportKind::Tcp,
        lanes: 2,
        rate: 50,
        bulk: BULK,
        transfers: 3,
        pings: 10,
        rounds: vec![
            round((2.0, 40), (1.0, 120)),
            round((4.0, 80), (3.8, 120)),
            round((1.0, 100), (0.9, 110)),
        ],
    }
}

#[test]
fn ratios_are_medians_of_what_was_measured_close_together() {
    let found = three_rounds();
    // 0.5, 0.95 and 0.9; 3, 1.5 and 1.1.
    assert!((found.ratio(|of| of.gbps) - 0.9).abs() < 1e-9);
    assert!((found.ratio(|of| micros(of.ping_p99)) - 1.5).abs() < 1e-9);
    assert!((found.median(|round| round.alone.gbps) - 2.0).abs() < 1e-9);
    assert!((found.blows_a_second() - 50.0).abs() < 1e-9);
    assert!((found.hostile_share() - 0.01).abs() < 1e-9);
    assert_eq!(found.surprises(), 3);
    assert_eq!(found.bytes_checked(), 6 * 1000);
}

#[test]
fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
    let mut found = three_rounds();
    found.rounds.push(round((8.0, 10), (8.0, 10)));
    assert!((found.median(|round| round.alone.gbps) - 3.0).abs() < 1e-9);
    found.rounds.truncate(1);
    assert!((found.median(|round| round.alone.gbps) - 2.0).abs() < 1e-9);
}

#[test]
fn an_attack_that_was_played_twice_counts_once() {
    let mut found = three_rounds();
    assert_eq!(found.attacks(), 18);
    found.rounds.push(round((8.0, 10), (8.0, 10)));
    assert_eq!(found.attacks(), 20);
}

#[test]
fn the_table_says_what_the_neighbours_are_and_both_bars() {
    let table = three_rounds().table();
    for text in ["alone", "beside", "GB/s", "0.90", "1.50", "50 at most", "18 attacks", "1.0 %"] {
        assert!(table.contains(text), "{text}: {table}");
    }
}
