//! Which kernel, and which pid namespace, this process lives in. Two processes for which both are
//! equal know each other by the same pids.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Where pids mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of the running kernel, random at each boot.
    pub(crate) boot: [u8; 16],
    /// Device and inode of the pid namespace.
    pub(crate) pids: (u64, u64),
}

impl Place {
    /// This process's.
    ///
    /// # Errors
    /// /proc is not what it should be.
    pub(crate) fn here() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = parse_boot_id(&text).ok_or(io::ErrorKind::InvalidData)?;
        let namespace = fs::metadata("/proc/self/ns/pid")?;
        Ok(Self { boot, pids: (namespace.dev(), namespace.ino()) })
    }
}

/// A UUID as the kernel writes it: 32 hex digits in groups.
fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    let is_hex = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| is_hex)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_sixteen_bytes() {
        let parsed = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(parsed[..4], [0, 0x11, 0x22, 0x33]);
        assert_eq!(parsed[15], 0xff);
        for odd in
            ["", "00112233", "0011223344556677+899aabbccddeeff", "zz112233445566778899aabbccddeeff"]
        {
            assert_eq!(parse_boot_id(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_process_is_where_it_is() {
        assert_eq!(Place::here().unwrap(), Place::here().unwrap());
    }
}
