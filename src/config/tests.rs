use super::*;

fn from(variables: &[(&str, &str)]) -> Result<Config, Invalid> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_env_vars(owned)
}

fn setting(config: &Config, name: &str) -> (String, Source) {
    let setting = config.settings().into_iter().find(|setting| setting.name == name).unwrap();
    (setting.value, setting.source)
}

#[test]
fn a_setter_wins_over_the_environment_and_that_over_the_default() {
    assert_eq!(setting(&Config::default(), "deadline"), ("10".to_owned(), Source::Default));
    let config = from(&[("KVX_DEADLINE", "2.5")]).unwrap();
    assert_eq!(setting(&config, "deadline"), ("2.5".to_owned(), Source::Environment));
    let config = config.deadline(Duration::from_millis(100));
    assert_eq!(setting(&config, "deadline"), ("0.1".to_owned(), Source::Builder));
    assert_eq!(*config.deadline, Duration::from_millis(100));
}

/// A value for each variable, in the form in which `settings` shows it.
const EXAMPLES: [(&str, &str); 14] = [
    ("KVX_TRANSPORTS", "tcp"),
    ("KVX_BIND", "[::1]:8998"),
    ("KVX_ADVERTISE", "10.0.0.1,10.0.0.1:80,[fd00::1]:80,fd00::1,eth0"),
    ("KVX_AUTH_KEY_FILE", "/etc/kvx/key"),
    ("KVX_METADATA_AUTH", "1"),
    ("KVX_INSECURE", "1"),
    ("KVX_DEADLINE", "0.25"),
    ("KVX_TOTAL_DEADLINE", "60"),
    ("KVX_LANES", "8"),
    ("KVX_IO_THREADS", "3"),
    ("KVX_NAME", "decode-0"),
    ("KVX_PEER_MEMORY", "512M"),
    ("KVX_NOTIFICATION_WINDOW", "100K"),
    ("KVX_LOG", "kvx=debug"),
];

#[test]
fn every_option_can_be_set_in_the_environment_and_is_shown_as_it_was_set() {
    let config = from(&EXAMPLES).unwrap();
    let settings = config.settings();
    assert_eq!(settings.len(), EXAMPLES.len());
    for (setting, (variable, value)) in settings.iter().zip(EXAMPLES) {
        assert_eq!(setting.variable, variable);
        assert_eq!(setting.variable, format!("KVX_{}", setting.name.to_uppercase()));
        assert_eq!((setting.value.as_str(), setting.source), (value, Source::Environment));
    }
    assert_eq!(config.unknown_variables(), []);
}

#[test]
fn every_setter_sets_the_option_of_its_name() {
    let one = NonZeroU16::MIN;
    let config = Config::default()
        .transports([TransportKind::Tcp])
        .bind("10.0.0.1:5".parse().unwrap())
        .advertise(["eth0".parse().unwrap()])
        .auth_key_file("/key")
        .metadata_auth(true)
        .insecure(true)
        .deadline(Duration::from_secs(1))
        .total_deadline(Some(Duration::from_secs(2)))
        .lanes(one)
        .io_threads(one)
        .name("n")
        .peer_memory(3 << 30)
        .notification_window(1 << 20)
        .log("trace");
    let values: Vec<_> = config.settings().into_iter().map(|setting| setting.value).collect();
    let expected = "tcp 10.0.0.1:5 eth0 /key 1 1 1 2 1 1 n 3G 1M trace";
    assert_eq!(values.join(" "), expected);
    assert!(config.settings().iter().all(|setting| setting.source == Source::Builder));
}

#[test]
fn a_malformed_variable_is_an_error_that_says_what_was_expected() {
    let cases = [
        ("KVX_TRANSPORTS", "tcp,pigeon", "expected a list of: shm, tcp"),
        ("KVX_BIND", "localhost", "expected ip or ip:port"),
        ("KVX_BIND", "1.2.3.4:99999", "expected ip or ip:port"),
        ("KVX_ADVERTISE", "eth0,,eth1", "interface names"),
        ("KVX_ADVERTISE", "10.0.0", "interface names"),
        ("KVX_METADATA_AUTH", "true", "expected 1 or 0"),
        ("KVX_INSECURE", "yes", "expected 1 or 0"),
        ("KVX_DEADLINE", "-1", "expected seconds above 0"),
        ("KVX_DEADLINE", "NaN", "expected seconds above 0"),
        ("KVX_DEADLINE", "inf", "expected seconds above 0"),
        ("KVX_DEADLINE", "1e40", "expected seconds above 0"),
        ("KVX_DEADLINE", "0", "expected seconds above 0"),
        ("KVX_TOTAL_DEADLINE", "never", "or none"),
        ("KVX_LANES", "0", "at least 1"),
        ("KVX_IO_THREADS", "70000", "at least 1"),
        ("KVX_PEER_MEMORY", "1T", "K, M or G"),
        ("KVX_PEER_MEMORY", "99999999999G", "K, M or G"),
        ("KVX_PEER_MEMORY", "G", "K, M or G"),
        ("KVX_NOTIFICATION_WINDOW", "-5", "K, M or G"),
    ];
    for (variable, given, expected) in cases {
        match from(&[(variable, given)]) {
            Err(Invalid::Setting { name, value, why }) => {
                assert_eq!((name, value.as_str()), (variable, given));
                assert!(why.contains(expected), "{variable}={given}: {why}");
            }
            other => panic!("{variable}={given}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_variable_is_remembered_with_the_one_that_was_meant() {
    let variables = [("KVX_DEADLNIE", "1"), ("KVX_PORT_8998_TCP_PROTO", "tcp"), ("OTHER", "x")];
    let config = from(&variables).unwrap();
    let told: Vec<_> = config.unknown_variables().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "KVX_DEADLNIE is not an option of this version; did you mean KVX_DEADLINE?",
            "KVX_PORT_8998_TCP_PROTO is not an option of this version",
        ]
    );
    assert_eq!(setting(&config, "deadline").1, Source::Default);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let config = from(&[("KVX_BIND", ""), ("KVX_LANES", "")]).unwrap();
    assert_eq!(setting(&config, "bind"), ("127.0.0.1:0".to_owned(), Source::Default));
}

#[test]
fn values_out_of_bounds_or_in_contradiction_are_refused_by_name() {
    Config::default().validate().unwrap();
    let config = Config::default;
    let many = NonZeroU16::new(257).unwrap();
    let cases = [
        ("transports", config().transports([])),
        ("transports", config().transports([TransportKind::Tcp, TransportKind::Tcp])),
        ("insecure", config().insecure(true).auth_key_file("/key")),
        ("deadline", config().deadline(Duration::ZERO)),
        ("total_deadline", config().total_deadline(Some(Duration::ZERO))),
        ("lanes", config().lanes(many)),
        ("io_threads", config().io_threads(many)),
        ("name", config().name("")),
        ("name", config().name("a\nb")),
        ("name", config().name("x".repeat(256))),
        ("peer_memory", config().peer_memory((4 << 20) - 1)),
        ("notification_window", config().notification_window(1)),
        ("notification_window", config().peer_memory(8 << 20)),
    ];
    for (expected, config) in cases {
        match config.validate() {
            Err(Invalid::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}
