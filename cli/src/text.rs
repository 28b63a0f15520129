//! Figures as people read them.

/// Bytes in the largest unit that leaves at least 1.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A number with a comma after each thousand.
pub(crate) fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        assert_eq!(bytes_text(512 << 20), "512.0 MiB");
        assert_eq!((bytes_text(1 << 30), bytes_text(1023)), ("1.0 GiB".into(), "1023 B".into()));
        assert_eq!((count_text(32_768), count_text(12)), ("32,768".into(), "12".into()));
        assert_eq!(count_text(1_000_000), "1,000,000");
    }
}
