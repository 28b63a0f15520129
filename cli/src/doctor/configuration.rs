//! The settings with their sources, and what is wrong with them. Nothing is opened here.
//!
//! A variable that does not parse is a finding, and is left out: the others are still shown.

use std::collections::BTreeMap;
use std::ffi::OsString;

use kvx::Config;
use kvx::config::Source;
use kvx::error::Invalid;

use super::finding::Finding;

const PREFIX: &str = "KVX_";

/// The environment's options.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    /// Every option, in the order of [`Config`]'s page.
    pub(super) settings: Vec<Shown>,
    /// Variables that name no option.
    pub(super) unknown: Vec<String>,
    /// The options that are valid, without the variables that are unknown.
    config: Config,
    findings: Vec<Finding>,
    is_valid: bool,
}

/// A setting as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) name: &'static str,
    pub(super) variable: &'static str,
    pub(super) value: String,
    /// `default`, `environment`, or `invalid` for a variable whose value is not taken.
    pub(super) source: &'static str,
}

impl Configuration {
    pub(super) fn from_env() -> Self {
        Self::from_vars(std::env::vars_os())
    }

    fn from_vars(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut findings = Vec::new();
        let (mut texts, mut refused) = (BTreeMap::new(), BTreeMap::new());
        let options: Vec<_> =
            Config::default().settings().into_iter().map(|setting| setting.variable).collect();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(texts.insert(name.to_owned(), value)),
                // Of a variable that names no option the name alone is of interest.
                Err(_) if !options.contains(&name) => {
                    texts.insert(name.to_owned(), String::new());
                }
                Err(value) => {
                    let value = value.to_string_lossy().into_owned();
                    findings.push(invalid(format!("{name}={value:?}: expected UTF-8")));
                    refused.insert(name.to_owned(), value);
                }
            }
        }
        let config = valid_part(&mut texts, &mut refused, &mut findings);
        if let Err(error) = config.validate() {
            findings.push(invalid(error.to_string()));
        }
        if let Err(why) = crate::log_filter(config.log_filter()) {
            findings.push(invalid(why));
        }
        let is_valid = findings.is_empty();
        if is_valid {
            findings.push(Finding::ok("settings", "valid"));
        }
        let mut unknown = Vec::new();
        for variable in config.unknown_variables() {
            unknown.push(variable.name.clone());
            let advice = "Correct the variable's name, or unset it: kvx does not look at it.";
            findings.push(Finding::warning("unknown variable", variable.to_string(), advice));
        }
        if config.settings().iter().any(|set| (set.name, &*set.value) == ("insecure", "1")) {
            let advice = "Set KVX_AUTH_KEY_FILE to a file of mode 0600 that all hosts share, and \
                          unset KVX_INSECURE, unless everyone who can reach the port is trusted.";
            let found = "anyone who can reach the port is let in";
            findings.push(Finding::warning("insecure", found, advice));
        }
        let settings = shown(&config, &refused);
        texts.retain(|name, _| !unknown.contains(name));
        // What was taken before is taken again.
        let config = Config::from_env_vars(texts).unwrap_or(config);
        Self { settings, unknown, config, findings, is_valid }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        self.findings.clone()
    }

    /// The options, if there is nothing wrong with them.
    pub(super) fn valid(&self) -> Option<&Config> {
        self.is_valid.then_some(&self.config)
    }

    /// Threads that move bytes.
    pub(super) fn io_threads(&self) -> Option<u64> {
        // One left open is shown in parentheses.
        self.value("io_threads")?.trim_matches(['(', ')']).parse().ok()
    }

    /// The value of a setting.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let shown = self.settings.iter().find(|shown| shown.name == name)?;
        Some(&shown.value)
    }
}

/// The options without those that are refused, which are moved and told of.
fn valid_part(
    texts: &mut BTreeMap<String, String>,
    refused: &mut BTreeMap<String, String>,
    findings: &mut Vec<Finding>,
) -> Config {
    loop {
        match Config::from_env_vars(texts.clone()) {
            Ok(config) => return config,
            Err(error) => {
                findings.push(invalid(error.to_string()));
                // Each turn takes a variable away, so that there is a last one.
                let Invalid::Setting { name, .. } = error else { return Config::default() };
                let Some(value) = texts.remove(name) else { return Config::default() };
                refused.insert(name.to_owned(), value);
            }
        }
    }
}

fn invalid(why: String) -> Finding {
    let advice = "Set it to what is expected, or unset it: no engine starts with this.";
    Finding::problem("settings", why, advice)
}

fn shown(config: &Config, refused: &BTreeMap<String, String>) -> Vec<Shown> {
    let shown = config.settings().into_iter().map(|setting| {
        let (value, source) = match (refused.get(setting.variable), setting.source) {
            (Some(value), _) => (format!("{value:?}"), "invalid"),
            (None, Source::Environment) => (setting.value, "environment"),
            (None, Source::Default | Source::Builder) => (setting.value, "default"),
        };
        Shown { name: setting.name, variable: setting.variable, value, source }
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::finding::State;
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Configuration {
        Configuration::from_vars(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn problems(configuration: &Configuration) -> Vec<String> {
        let findings = configuration.findings().into_iter();
        let problems = findings.filter(|finding| finding.state() == State::Problem);
        problems.map(|finding| finding.found).collect()
    }

    #[test]
    fn every_variable_that_does_not_parse_is_told_of_and_the_others_count() {
        let variables =
            [("KVX_LANES", "x"), ("KVX_DEADLINE", "3"), ("KVX_BIND", "nowhere"), ("PATH", "/")];
        let configuration = from(&variables);
        let problems = problems(&configuration);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("KVX_BIND=\"nowhere\""), "{problems:?}");
        assert!(problems[1].starts_with("KVX_LANES=\"x\""), "{problems:?}");
        let shown = |name| {
            let found = configuration.settings.iter().find(|shown| shown.name == name);
            found.map(|shown| (shown.value.as_str(), shown.source)).unwrap()
        };
        assert_eq!(shown("deadline"), ("3", "environment"));
        assert_eq!(shown("lanes"), ("\"x\"", "invalid"));
        assert_eq!(shown("insecure"), ("0", "default"));
        assert!(configuration.valid().is_none());
    }

    #[test]
    fn settings_that_contradict_each_other_are_a_problem() {
        let configuration = from(&[("KVX_INSECURE", "1"), ("KVX_AUTH_KEY_FILE", "/key")]);
        assert!(problems(&configuration)[0].contains("contradicts"));
        let configuration = from(&[("KVX_LOG", "kvx=loudly")]);
        assert!(problems(&configuration)[0].starts_with("KVX_LOG=\"kvx=loudly\""));
    }

    #[test]
    fn what_is_not_utf_8_is_a_problem_in_an_option_and_nothing_elsewhere() {
        let odd = || OsString::from_vec(vec![0xff]);
        let configuration = Configuration::from_vars([("KVX_NAME".into(), odd())]);
        assert!(problems(&configuration)[0].ends_with("expected UTF-8"));
        let configuration = Configuration::from_vars([("KVX_NAMES".into(), odd()), (odd(), odd())]);
        assert_eq!(problems(&configuration), Vec::<String>::new());
        assert_eq!(configuration.unknown, ["KVX_NAMES"]);
    }

    #[test]
    fn an_unknown_variable_is_named_and_its_value_is_not() {
        let configuration = from(&[("KVX_AUTH_KEY", "hunter2"), ("KVX_LANES", "3")]);
        let text = format!("{:?} {:?}", configuration.findings, configuration.settings);
        assert!(text.contains("KVX_AUTH_KEY is not an option") && !text.contains("hunter2"));
        let config = configuration.valid().unwrap();
        assert!(config.unknown_variables().is_empty());
        assert!(config.settings().iter().any(|set| (set.name, &*set.value) == ("lanes", "3")));
    }
}
