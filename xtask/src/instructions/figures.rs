//! The recorded figures: a section for each architecture, with the compiler that they hold for.
//!
//! The file is TOML of the plainest kind, and no more of TOML is understood here than is written:
//! `[section]`, `"key" = number`, `key = "text"` and comments, each on a line of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

const HEAD: &str = "\
# Instructions of each case of benches/instructions, by architecture and for one version of rustc.
# Counted, compared and (with --bless) recorded by `cargo xtask instructions`.
";

/// The figures of one architecture.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// As `std::env::consts::ARCH` has it.
    pub(super) architecture: String,
    /// The version of the compiler; `None`: nothing is recorded.
    pub(super) rustc: Option<String>,
    /// Instructions by case.
    pub(super) counts: Vec<(String, u64)>,
}

impl Figures {
    /// No figures yet, for this machine and its compiler.
    pub(super) fn of_this_machine() -> Result<Self, String> {
        let output = Command::new("rustc").arg("--version").output();
        let output = output.map_err(|error| format!("rustc: {error}"))?;
        let version = String::from_utf8_lossy(&output.stdout);
        // `rustc 1.95.0 (59807616e 2026-04-14)`
        let rustc = version.split(' ').nth(1).map(str::to_owned);
        let architecture = std::env::consts::ARCH.to_owned();
        Ok(Self { architecture, rustc, counts: Vec::new() })
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

    pub(super) fn get(&self, case: &str) -> Option<u64> {
        self.counts.iter().find(|(known, _)| known == case).map(|(_, count)| *count)
    }

    fn section(&self) -> String {
        let rustc = self.rustc.as_deref().unwrap_or_default();
        let mut text = format!("\n[{}]\nrustc = \"{rustc}\"\n", self.architecture);
        for (case, count) in &self.counts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\"{case}\" = {count}");
        }
        text
    }
}

fn read_all(path: &Path) -> Result<Vec<Figures>, String> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|line| format!("{}: line {line}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The sections of a file, or the number of the first line that is not understood.
fn parse(text: &str) -> Result<Vec<Figures>, usize> {
    let mut sections: Vec<Figures> = Vec::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push(Figures { architecture: name.to_owned(), ..Figures::default() });
            continue;
        }
        let section = sections.last_mut().ok_or(number)?;
        let (key, value) = line.split_once(" = ").ok_or(number)?;
        if key == "rustc" {
            section.rustc = Some(value.trim_matches('"').to_owned());
        } else {
            let count = value.parse().map_err(|_| number)?;
            section.counts.push((key.trim_matches('"').to_owned(), count));
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_other_architectures_stay() {
        let text = "# head\n\n[aarch64]\nrustc = \"1.95.0\"\n\"plan/pair\" = 12\n\n[x86_64]\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections[0].get("plan/pair"), Some(12));
        assert_eq!(sections[0].rustc.as_deref(), Some("1.95.0"));
        assert_eq!((sections[1].rustc.as_deref(), sections[1].counts.len()), (None, 0));
        assert_eq!(parse(&sections[0].section()), Ok(vec![sections.into_iter().next().unwrap()]));
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        assert_eq!(parse("# x\nkey = 1\n"), Err(2));
        assert_eq!(parse("[x86_64]\n\"a\" = many\n"), Err(2));
        assert_eq!(parse("[x86_64]\n\n???\n"), Err(3));
    }
}
