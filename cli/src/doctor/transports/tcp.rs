//! What TCP needs of the machine: buffers that hold what a fast path holds. Not whether a port can be
//! bound, which starting an engine shows.

use super::super::files::{Files, parsed};
use super::super::finding::Finding;
use super::super::numbers::number;
use crate::text::bytes_text;

/// What is on its way at 100 Gb/s over a path of 0.3 ms, about. One lane need not fill that alone.
const SMALL: u64 = 4 << 20;

pub(super) fn findings(files: &dyn Files) -> Vec<Finding> {
    vec![
        automatic(files, "tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem"),
        automatic(files, "tcp_wmem", "/proc/sys/net/ipv4/tcp_wmem"),
        fixed(files, "rmem_max", "/proc/sys/net/core/rmem_max"),
        fixed(files, "wmem_max", "/proc/sys/net/core/wmem_max"),
    ]
}

/// The buffers that the kernel sizes by what the path holds, as kvx has it do.
fn automatic(files: &dyn Files, name: &'static str, path: &str) -> Finding {
    let max = match parsed(files, path, largest) {
        Ok(max) => max,
        Err(why) => return Finding::unknown(name, why),
    };
    let found = format!("buffers grow up to {}", bytes_text(max));
    if max >= SMALL {
        return Finding::ok(name, found);
    }
    let advice = format!(
        "For networks of 10 Gb/s and more, raise the third number of net.ipv4.{name} to 16777216 \
         (sysctl -w, on the host or in the container's network namespace)."
    );
    Finding::warning(name, format!("{found}, little for a fast network"), advice)
}

/// The third of the three numbers: least, first and largest size.
fn largest(text: &str) -> Option<u64> {
    let mut numbers = text.split_whitespace().map(number);
    let (_, _, largest) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(largest)
}

/// What a socket of fixed buffers may ask for. kvx asks for none.
fn fixed(files: &dyn Files, name: &'static str, path: &str) -> Finding {
    match parsed(files, path, number) {
        Ok(max) => {
            let found = format!("{}; no matter, for kvx fixes no buffers", bytes_text(max));
            Finding::ok(name, found)
        }
        Err(why) => Finding::unknown(name, why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::super::super::machines::{CONTAINER, NOTHING, ROOT_BOX};
    use super::*;

    #[test]
    fn the_kernel_s_defaults_are_enough_and_less_is_a_warning() {
        let found = |files: &dyn Files| -> Vec<_> {
            findings(files).into_iter().map(|finding| (finding.state(), finding.found)).collect()
        };
        let root = found(&ROOT_BOX);
        assert!(root.iter().all(|(state, _)| *state == State::Ok), "{root:?}");
        assert_eq!(root[0].1, "buffers grow up to 32.0 MiB");
        let container = found(&CONTAINER);
        assert_eq!(container[0].0, State::Warning);
        assert_eq!(container[0].1, "buffers grow up to 1.0 MiB, little for a fast network");
        // Older kernels do not show it in a network namespace.
        assert!(container[2].1.starts_with("unknown: "), "{container:?}");
        assert!(found(&NOTHING).iter().all(|(_, found)| found.starts_with("unknown: ")));
    }

    #[test]
    fn three_numbers_are_three_numbers() {
        assert_eq!(largest("4096\t131072\t33554432\n"), Some(33_554_432));
        for odd in ["", "1 2", "1 2 x", "1 2 3 4", "-1 2 3"] {
            assert_eq!(largest(odd), None, "{odd:?}");
        }
    }
}
