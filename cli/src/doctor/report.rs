//! A diagnosis as text: lines for people, one JSON object for programs.

use std::fmt::Write;

use super::Diagnosis;
use super::finding::{Finding, Section, State};

/// Columns of a line at most.
const WIDTH: usize = 100;

/// Columns of a finding's state, with the space behind it.
const STATE: usize = 9;

const INDENT: usize = 2;

/// The settings, the findings, and how many of which are not ok.
pub(super) fn text(diagnosis: &Diagnosis) -> String {
    let mut text = format!("kvx {} on {}\n", env!("CARGO_PKG_VERSION"), diagnosis.host);
    text.push_str("\nSettings\n");
    let settings = &diagnosis.configuration.settings;
    let variable = settings.iter().map(|shown| shown.variable.len()).max().unwrap_or(0);
    let source = settings.iter().map(|shown| shown.source.len()).max().unwrap_or(0);
    for shown in settings {
        let head = format!("  {:<variable$}  {:<source$}  ", shown.variable, shown.source);
        push_wrapped(&mut text, &head, &shown.value);
    }
    let findings = diagnosis.sections.iter().flat_map(|section| &section.findings);
    let name = findings.map(|finding| finding.name.len()).max().unwrap_or(0);
    for section in &diagnosis.sections {
        let _ = write!(text, "\n{}\n", section.title);
        for finding in &section.findings {
            let head = format!(
                "{:INDENT$}{:<width$}{:<name$}  ",
                "",
                finding.state(),
                finding.name,
                width = STATE
            );
            push_wrapped(&mut text, &head, &finding.found);
            if let Some(advice) = finding.advice() {
                let head = format!("{:width$}-> ", "", width = INDENT + STATE + name + 2);
                push_wrapped(&mut text, &head, advice);
            }
        }
    }
    text + &conclusion(diagnosis)
}

fn conclusion(diagnosis: &Diagnosis) -> String {
    let counted = |state, one: &str| match diagnosis.count(state) {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let warnings = counted(State::Warning, "warning");
    let notes = counted(State::Note, "note");
    match diagnosis.count(State::Problem) {
        0 => format!("\nNo problem; {warnings}, {notes}.\n"),
        _ => format!("\n{}; {warnings}, {notes}.\n", counted(State::Problem, "problem")),
    }
}

/// Appends `text` behind `head`, in lines that begin below each other. A word that is longer than
/// a line has one of its own.
fn push_wrapped(to: &mut String, head: &str, text: &str) {
    let indent = head.chars().count();
    let mut column = indent;
    to.push_str(head);
    for word in printable(text).split(' ') {
        let len = word.chars().count();
        if column > indent && column + 1 + len > WIDTH {
            let _ = write!(to, "\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            to.push(' ');
            column += 1;
        }
        to.push_str(word);
        column += len;
    }
    to.push('\n');
}

/// The text without what a terminal might obey: it may come from the environment.
fn printable(text: &str) -> String {
    let mut printable = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => printable.extend(c.escape_default()),
            false => printable.push(c),
        }
    }
    printable
}

/// One object. `advice` is null exactly for what is ok.
pub(super) fn json(diagnosis: &Diagnosis) -> String {
    let settings = diagnosis.configuration.settings.iter().map(|shown| {
        let fields = [
            ("name", quoted(shown.name)),
            ("variable", quoted(shown.variable)),
            ("value", quoted(&shown.value)),
            ("source", quoted(shown.source)),
        ];
        object(&fields)
    });
    let unknown = diagnosis.configuration.unknown.iter().map(|name| quoted(name));
    let findings = diagnosis
        .sections
        .iter()
        .flat_map(|section| section.findings.iter().map(|finding| json_finding(section, finding)));
    let count = |state| diagnosis.count(state).to_string();
    let fields = [
        ("version", quoted(env!("CARGO_PKG_VERSION"))),
        ("host", quoted(&diagnosis.host)),
        ("settings", list(settings)),
        ("unknown_variables", list(unknown)),
        ("findings", list(findings)),
        ("problems", count(State::Problem)),
        ("warnings", count(State::Warning)),
        ("notes", count(State::Note)),
    ];
    object(&fields) + "\n"
}

fn json_finding(section: &Section, finding: &Finding) -> String {
    object(&[
        ("section", quoted(section.title)),
        ("name", quoted(finding.name)),
        ("state", quoted(&finding.state().to_string())),
        ("found", quoted(&finding.found)),
        ("advice", finding.advice().map_or("null".to_owned(), quoted)),
    ])
}

fn object(fields: &[(&str, String)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// A string of JSON (RFC 8259, 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_the_width_and_begin_below_each_other() {
        let mut text = String::new();
        push_wrapped(&mut text, "    ", &"word ".repeat(40));
        assert!(text.lines().count() > 1);
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.starts_with("    word")));
        let mut long = String::new();
        push_wrapped(&mut long, "  ", &format!("a {} b", "x".repeat(200)));
        assert_eq!(
            long.lines().collect::<Vec<_>>(),
            ["  a", &format!("  {}", "x".repeat(200)), "  b"]
        );
    }

    #[test]
    fn what_a_terminal_might_obey_is_shown() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn strings_of_json_come_back_as_they_were() {
        for text in ["", "a \"b\" \\ c", "\u{0}\n\t\u{7f}\u{85}", "→ ü 🦀"] {
            let back: String = serde_json::from_str(&quoted(text)).unwrap();
            assert_eq!(back, text);
        }
    }
}
