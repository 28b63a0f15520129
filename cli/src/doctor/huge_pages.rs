//! Huge pages: whether memory gets them by itself, and what lies ready in pools. Facts only: kvx
//! asks for none.

use super::files::{Files, parsed};
use super::finding::Finding;
use super::numbers::number;
use crate::text::{bytes_text, count_text};

const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage";
const POOLS: &str = "/sys/kernel/mm/hugepages";

pub(super) fn findings(files: &dyn Files) -> Vec<Finding> {
    vec![transparent(files), pools(files)]
}

fn transparent(files: &dyn Files) -> Finding {
    const NAME: &str = "THP";
    let chosen = |file| parsed(files, &format!("{TRANSPARENT}/{file}"), chosen);
    let shared = chosen("shmem_enabled").unwrap_or("unknown".to_owned());
    match chosen("enabled") {
        Ok(private) => {
            Finding::ok(NAME, format!("{private}; for shared memory, as kvx allocates: {shared}"))
        }
        Err(_) if !files.exists(TRANSPARENT) && files.exists("/sys/kernel/mm") => {
            Finding::ok(NAME, "this kernel has none")
        }
        Err(why) => Finding::unknown(NAME, why),
    }
}

/// The word in brackets, which is the one that holds.
fn chosen(text: &str) -> Option<String> {
    let word =
        text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    Some(word.to_owned())
}

fn pools(files: &dyn Files) -> Finding {
    const NAME: &str = "huge page pools";
    let names = match files.names(POOLS) {
        Ok(names) => names,
        Err(_) if !files.exists(POOLS) && files.exists("/sys/kernel/mm") => {
            return Finding::ok(NAME, "this kernel has none");
        }
        Err(why) => return Finding::unknown(NAME, why),
    };
    let mut pools = Vec::new();
    for name in names {
        let Some(bytes) = page_bytes(&name) else { continue };
        let pages = |file| parsed(files, &format!("{POOLS}/{name}/{file}"), number);
        match (pages("nr_hugepages"), pages("free_hugepages")) {
            (Ok(all), Ok(free)) => pools.push((bytes, all, free)),
            (Err(why), _) | (_, Err(why)) => return Finding::unknown(NAME, why),
        }
    }
    pools.sort_unstable();
    let text = |(bytes, all, free): (u64, u64, u64)| {
        format!("{} of {} ({} free)", count_text(all), bytes_text(bytes), count_text(free))
    };
    match pools.iter().any(|(_, all, _)| *all > 0) {
        true => Finding::ok(NAME, pools.into_iter().map(text).collect::<Vec<_>>().join(", ")),
        false => Finding::ok(NAME, "empty; kvx needs none"),
    }
}

/// The size in a name such as `hugepages-2048kB`.
fn page_bytes(name: &str) -> Option<u64> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::machines::{CONTAINER, NOTHING, ROOT_BOX};
    use super::*;

    #[test]
    fn the_word_in_brackets_holds() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        for odd in ["", "always", "[always", "]["] {
            assert_eq!(chosen(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn pools_are_told_by_size_of_page() {
        assert_eq!(pools(&ROOT_BOX).found, "512 of 2.0 MiB (12 free), 0 of 1.0 GiB (0 free)");
        assert_eq!(pools(&CONTAINER).found, "empty; kvx needs none");
        let transparent = transparent(&ROOT_BOX).found;
        assert_eq!(transparent, "madvise; for shared memory, as kvx allocates: never");
    }

    #[test]
    fn without_sys_they_are_unknown() {
        for finding in findings(&NOTHING) {
            assert!(finding.found.starts_with("unknown: "), "{finding:?}");
        }
        assert_eq!((page_bytes("hugepages-4kB"), page_bytes("hugepages-x")), (Some(4096), None));
    }
}
