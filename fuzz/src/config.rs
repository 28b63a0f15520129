//! Options from environment variables.

use std::net::{IpAddr, SocketAddr};

use arbitrary::Arbitrary;
use kvx::Config;
use kvx::config::Source;

/// Some variables, in the order in which they are set.
#[derive(Arbitrary, Debug)]
struct Variables<'a>(Vec<(u8, Value<'a>)>);

/// Text, most of it of the kinds that options take.
#[derive(Arbitrary, Debug)]
enum Value<'a> {
    Any(&'a str),
    Number(u16, Option<u8>, u8),
    Address([u8; 4], Option<u16>),
    List(Vec<&'a str>),
    Flag(bool),
}

impl Value<'_> {
    fn text(&self) -> String {
        match self {
            Self::Any(text) => (*text).to_owned(),
            Self::Number(whole, Some(part), _) => format!("{whole}.{part}"),
            Self::Number(whole, None, unit) => {
                format!("{whole}{}", ["", "K", "M", "G", "m"][usize::from(*unit) % 5])
            }
            Self::Address(ip, None) => format!("{}", IpAddr::from(*ip)),
            Self::Address(ip, Some(port)) => format!("{}", SocketAddr::from((*ip, *port))),
            Self::List(items) => items.join(","),
            Self::Flag(flag) => u8::from(*flag).to_string(),
        }
    }
}

/// What is accepted is shown as it would be set again, and setting that changes nothing.
pub fn run(bytes: &[u8]) {
    let Some(Variables(list)) = crate::structured(bytes) else { return };
    let names: Vec<String> =
        Config::default().settings().iter().map(|setting| setting.variable.to_owned()).collect();
    let text = list.into_iter().map(|(name, value)| (name, value.text()));
    let variables = text.map(|(name, value)| {
        // Beyond the names: one that nobody knows, and one that is not ours.
        let index = usize::from(name) % (names.len() + 2);
        match names.get(index) {
            Some(name) => (name.clone(), value),
            None if index == names.len() => (format!("KVX_{value}"), "1".to_owned()),
            None => (value, "1".to_owned()),
        }
    });
    let Ok(config) = Config::from_env_vars(variables) else { return };
    let valid = config.validate().is_ok();
    let settings = config.settings();
    // What is left open is shown in parentheses, and set by nobody.
    let shown = settings
        .iter()
        .filter(|setting| setting.source == Source::Environment)
        .map(|setting| (setting.variable.to_owned(), setting.value.clone()));
    let again = Config::from_env_vars(shown).expect("what is shown can be set");
    assert_eq!(again.validate().is_ok(), valid);
    for (setting, again) in settings.iter().zip(again.settings()) {
        assert_eq!((setting.variable, &setting.value), (again.variable, &again.value));
    }
    for unknown in config.unknown_variables() {
        assert!(unknown.to_string().starts_with(&unknown.name));
    }
}
