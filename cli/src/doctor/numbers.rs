//! Numbers as the kernel's files hold them.

/// A number alone on its line.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// What follows `name` on the line that begins with it.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// How many a list such as `0-3,8` names.
pub(super) fn list_len(text: &str) -> Option<u64> {
    let mut len = 0_u64;
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        len = len.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_and_anything_else_is_not_a_list() {
        assert_eq!(list_len("0-1\n"), Some(2));
        assert_eq!(list_len("0-3,8,64-127"), Some(69));
        for odd in ["", "\n", "3-1", "a", "0-", "0-18446744073709551615"] {
            assert_eq!(list_len(odd), None, "{odd:?}");
        }
    }
}
