use super::*;

fn parse(arguments: &[&str]) -> Result<Options, String> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    Options::parse(&arguments)
}

#[test]
fn the_command_line_takes_names_a_list_and_jobs() {
    let options = parse(&["one", "--jobs", "3", "two"]).unwrap();
    assert_eq!((options.names.len(), options.jobs, options.list), (2, 3, false));
    assert!(parse(&["--list"]).unwrap().list);
    for wrong in [&["--jobs"][..], &["--jobs", "0"], &["--jobs", "x"], &["--quiet"]] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_seed_chooses_the_same_again_and_each_once() {
    let all: Vec<u32> = (0..50).collect();
    let first = choose(all.clone(), 3, 20_000);
    assert_eq!(first, choose(all.clone(), 3, 20_000));
    assert_ne!(first, choose(all.clone(), 3, 20_001), "another day, others");
    let mut every = choose(all.clone(), 100, 7);
    every.sort_unstable();
    assert_eq!(every, all);
}

#[test]
fn the_list_can_be_read() {
    let list = List::load(&workspace_root().join("tests/mutations")).unwrap();
    assert!(list.all().count() >= 40);
}
