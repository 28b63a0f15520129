use super::*;

/// As `cargo test` prints it, with a lib, an integration test that dies, and docs.
const OUTPUT: &str = "
   Compiling kvx-engine v0.1.0 (/src/kvx)
    Finished `test` profile [unoptimized + debuginfo] target(s) in 1.00s
     Running unittests src/lib.rs (target/debug/deps/kvx_core-e771398d0e810b8f)

running 4 tests
test plan::tests::a ... ok
test plan::tests::b ... FAILED
test plan::tests::c ... ignored
test plan::tests::d ... ignored, takes an hour

failures:
    plan::tests::b

test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.75s

error: test failed, to rerun pass `-p kvx-core --lib`
     Running tests/loopback.rs (target/debug/deps/loopback-0123456789abcdef)

running 2 tests
error: test failed, to rerun pass `--test loopback`
   Doc-tests kvx

running 7 tests
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

fn count(output: &str, success: bool) -> Vec<(String, usize, usize)> {
    let mut counter = Counter::default();
    for line in output.lines() {
        counter.line(line);
    }
    let suites = counter.finish(success).into_iter();
    suites.map(|suite| (suite.name.clone(), suite.passed, suite.failures())).collect()
}

#[test]
fn every_binary_is_a_suite_and_one_that_dies_has_failed() {
    let expected = [
        ("kvx_core src/lib.rs".to_owned(), 1, 1),
        ("loopback tests/loopback.rs".to_owned(), 0, 1),
        ("kvx examples in docs".to_owned(), 7, 0),
    ];
    assert_eq!(count(OUTPUT, false), expected);
}

#[test]
fn tests_that_do_not_build_are_a_failure() {
    let output = "   Compiling kvx v0.1.0\nerror: expected `;`\nerror: could not compile `kvx`\n";
    assert_eq!(count(output, false), [("cargo test".to_owned(), 0, 1)]);
    assert_eq!(count(output, true), []);
}

#[test]
fn the_lines_of_a_command_are_seen_and_the_tests_that_passed_are_counted() {
    let mut command = Command::new("sh");
    let result = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured";
    command.args(["-c", "echo \"$0\"; echo \"$0\" >&2; echo 3 passed; exit 4", result]);
    let mut sum = 0;
    let status = run_lines(command, |line| sum += passed(line)).unwrap();
    assert_eq!((status.code(), sum), (Some(4), 6));
}

#[test]
fn a_failure_without_a_name_is_counted_all_the_same() {
    let output =
        "   Doc-tests kvx\ntest result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured\n";
    assert_eq!(count(output, false), [("kvx examples in docs".to_owned(), 1, 2)]);
}

#[test]
fn ignored_tests_are_skipped_with_their_reason() {
    assert_eq!(ignored_test("test a::b ... ignored"), Some(("a::b", "ignored")));
    assert_eq!(ignored_test("test a::b ... ignored, no GPU"), Some(("a::b", "no GPU")));
    assert_eq!(ignored_test("test a::b ... ok"), None);
    assert_eq!(
        ignored_test("test src/a.rs - A (line 3) ... ignored"),
        Some(("src/a.rs - A (line 3)", "ignored"))
    );
}

#[test]
fn a_test_that_skipped_itself_counts_as_skipped_and_not_as_passed() {
    let mut suite = Suite::new("suite");
    suite.passed = 3;
    apply_skips(
        &mut suite,
        "KVX-SKIP net::cut: nft is missing\nnoise\nKVX-SKIP net::cut: nft is missing\nKVX-SKIP gpu: none\n",
    );
    assert_eq!(suite.passed, 1);
    assert!(suite.has_skipped("net::cut") && suite.has_skipped("gpu"));
}

#[test]
fn lines_of_tests_themselves_are_not_taken_for_cargos() {
    for line in
        ["Running away", "     Running x (y)", "test result: what", "test result: ok. x passed"]
    {
        assert_eq!((suite_name(line), result(line)), (None, None));
    }
}
