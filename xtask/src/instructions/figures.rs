//! The recorded figures: a section for each architecture, with the compiler and the C library that
//! they hold for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

const HEAD: &str = "\
# Instructions of each case of benches/instructions, by architecture and for one version of rustc
# and of the C library.
# Counted, compared and (with --bless) recorded by `cargo xtask instructions`.
";

/// The figures of one architecture.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Figures {
    /// As `std::env::consts::ARCH` has it.
    #[serde(skip)]
    pub(super) architecture: String,
    /// The version of the compiler; `None`: nothing is recorded.
    pub(super) rustc: Option<String>,
    /// The C library and its version; `None` also where it does not tell.
    pub(super) libc: Option<String>,
    /// Instructions by case.
    #[serde(flatten)]
    pub(super) counts: BTreeMap<String, u64>,
}

impl Figures {
    /// No figures yet, for this machine, its compiler and its C library.
    pub(super) fn of_this_machine() -> Result<Self, String> {
        let output = Command::new("rustc").arg("--version").output();
        let output = output.map_err(|error| format!("rustc: {error}"))?;
        let version = String::from_utf8_lossy(&output.stdout);
        // `rustc 1.95.0 (59807616e 2026-04-14)`
        let rustc = version.split(' ').nth(1).map(str::to_owned);
        // `glibc 2.41`; other libraries do not know the name.
        let libc = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok();
        let libc = libc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let libc = libc.filter(|libc| !libc.is_empty());
        let architecture = std::env::consts::ARCH.to_owned();
        Ok(Self { architecture, rustc, libc, counts: BTreeMap::new() })
    }

    /// The recorded figures of an architecture; none where there is no file or no such section.
    pub(super) fn read(path: &Path, architecture: &str) -> Result<Self, String> {
        let all = read_all(path)?;
        let section = all.into_iter().find(|section| section.architecture == architecture);
        let none = || Self { architecture: architecture.to_owned(), ..Self::default() };
        Ok(section.unwrap_or_else(none))
    }

    /// Puts these figures in the place of the architecture's former ones.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let mut others = read_all(path)?;
        others.retain(|section| section.architecture != self.architecture);
        let mut all: Vec<&Self> = others.iter().chain([self]).collect();
        all.sort_by(|a, b| a.architecture.cmp(&b.architecture));
        let text: String = all.into_iter().map(Self::section).collect();
        fs::write(path, format!("{HEAD}{text}")).map_err(|error| format!("{path:?}: {error}"))
    }

    /// What the figures hold for, in words.
    pub(super) fn versions(&self) -> String {
        let [rustc, libc] =
            [&self.rustc, &self.libc].map(|version| version.as_deref().unwrap_or("(unknown)"));
        format!("rustc {rustc} with {libc}")
    }

    pub(super) fn get(&self, case: &str) -> Option<u64> {
        self.counts.get(case).copied()
    }

    fn section(&self) -> String {
        let mut text = format!("\n[{}]\n", self.architecture);
        for (name, version) in [("rustc", &self.rustc), ("libc", &self.libc)] {
            if let Some(version) = version {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name} = \"{version}\"");
            }
        }
        for (case, count) in &self.counts {
            let _ = writeln!(text, "\"{case}\" = {count}");
        }
        text
    }
}

fn read_all(path: &Path) -> Result<Vec<Figures>, String> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The sections of a file.
fn parse(text: &str) -> Result<Vec<Figures>, toml::de::Error> {
    let sections: BTreeMap<String, Figures> = toml::from_str(text)?;
    let named = |(architecture, section)| Figures { architecture, ..section };
    Ok(sections.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_other_architectures_stay() {
        let text = "# head\n\n[aarch64]\nrustc = \"1.95.0\"\nlibc = \"glibc 2.41\"\n\
                    \"plan/pair\" = 12\n\n[x86_64]\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections[0].get("plan/pair"), Some(12));
        assert_eq!(sections[0].rustc.as_deref(), Some("1.95.0"));
        assert_eq!(sections[0].libc.as_deref(), Some("glibc 2.41"));
        assert_eq!((sections[1].rustc.as_deref(), sections[1].counts.len()), (None, 0));
        for section in sections {
            assert_eq!(parse(&section.section()), Ok(vec![section]));
        }
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        for (text, line) in [
            ("# x\nkey = 1\n", "line 2"),
            ("[x86_64]\n\"a\" = many\n", "line 2"),
            ("[x86_64]\n\n???\n", "line 3"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
