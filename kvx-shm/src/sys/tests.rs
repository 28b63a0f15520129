use kvx_core::region::Leases;

use super::*;

fn span(bytes: &[u8]) -> HostSpan {
    HostSpan { address: bytes.as_ptr().expose_provenance() as u64, len: bytes.len() as u64 }
}

fn target(bytes: &mut [u8]) -> HostSpan {
    HostSpan { address: bytes.as_mut_ptr().expose_provenance() as u64, len: bytes.len() as u64 }
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

/// A token of this process.
fn token(value: &[u8; 16]) -> Token {
    Token { address: value.as_ptr().expose_provenance() as u64, value: *value }
}

fn no_leases() -> Leases<'static> {
    Leases::enter([]).unwrap()
}

#[test]
fn bytes_come_in_the_order_of_both_sides_however_they_are_cut() {
    let source: Vec<u8> = (0..=255).collect();
    let mut landed = vec![0_u8; 256];
    let value = [7; 16];
    let (first, rest) = source.split_at(100);
    let sources = [span(rest), span(first)];
    {
        let (left, right) = landed.split_at_mut(17);
        let places = [target(left), target(right)];
        let copied = pull(own_pid(), &no_leases(), &places, &sources, 256, token(&value)).unwrap();
        assert_eq!(copied, 256);
    }
    assert_eq!(landed, [rest, first].concat());
}

#[test]
fn no_more_is_copied_than_the_limit() {
    let source = [1_u8; 64];
    let mut landed = [0_u8; 64];
    let value = [7; 16];
    let place = [target(&mut landed)];
    let copied = pull(own_pid(), &no_leases(), &place, &[span(&source)], 10, token(&value));
    assert_eq!(copied.unwrap(), 10);
    assert_eq!(landed.iter().filter(|byte| **byte == 1).count(), 10);
}

#[test]
fn a_call_names_as_many_bytes_on_both_sides_though_its_vectors_are_full() {
    let source = vec![1_u8; 4096];
    let mut landed = vec![0_u8; 4096];
    let value = [7; 16];
    let sources: Vec<HostSpan> = source.chunks(2).map(span).collect();
    let place = [target(&mut landed)];
    let copied = pull(own_pid(), &no_leases(), &place, &sources, 4096, token(&value)).unwrap();
    assert_eq!(copied, 2 * (VECTOR_LEN - 1));
    assert!(
        landed[..copied].iter().all(|byte| *byte == 1) && landed[copied..].iter().all(|b| *b == 0)
    );
}

#[test]
fn nothing_counts_where_the_token_is_another() {
    let (source, mut landed, value) = ([1_u8; 8], [0_u8; 8], [7; 16]);
    let mut wrong = token(&value);
    wrong.value[15] = 8;
    let place = [target(&mut landed)];
    let error = pull(own_pid(), &no_leases(), &place, &[span(&source)], 8, wrong).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn memory_that_is_not_there_is_no_byte_and_no_crash() {
    let (source, mut landed, value) = ([1_u8; 8], [0_u8; 8], [7; 16]);
    let nowhere = HostSpan { address: 8, len: 8 };
    let place = [target(&mut landed)];
    let from_nowhere = pull(own_pid(), &no_leases(), &place, &[nowhere], 8, token(&value));
    assert_eq!(from_nowhere.unwrap(), 0);
    let to_nowhere = pull(own_pid(), &no_leases(), &[nowhere], &[span(&source)], 8, token(&value));
    assert_eq!(to_nowhere.unwrap(), 0);
    let token_nowhere = Token { address: 8, value };
    let unproved = pull(own_pid(), &no_leases(), &place, &[span(&source)], 8, token_nowhere);
    assert_eq!(unproved.unwrap(), 0);
}
