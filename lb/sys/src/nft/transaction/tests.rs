//! Transactions as bytes, and what of them was refused.

use super::*;
use crate::nft::{Expression, Queues, Register};

const QUEUES: Queues = Queues { first: 2, count: 4, bypass: true };

fn table() -> TableId {
    TableId { family: TableFamily::Inet, name: "t".into() }
}

fn written(expression: &Expression) -> Vec<u8> {
    let rule = Rule { comment: String::new(), expressions: vec![expression.clone()] };
    let mut transaction = Transaction::new(&table());
    transaction.add_rule("c", &rule);
    let bytes = transaction.messages.bytes();
    let attributes = &bytes[20 + 20..];
    let list = attribute::attribute(attributes, 4).unwrap();
    let element = attribute::attribute(list, 1).unwrap();
    assert_eq!(attribute::attribute(element, EXPR_NAME).and_then(attribute::text), {
        Some(expression.name())
    });
    attribute::attribute(element, 2).unwrap().to_vec()
}

#[test]
fn queues_are_written_for_both_worlds() {
    let native = [6, 0, 1, 0, 0, 2, 0, 0, 6, 0, 2, 0, 0, 4, 0, 0, 6, 0, 3, 0, 0, 1, 0, 0];
    assert_eq!(written(&Expression::Queue(QUEUES)), native);
    let target = [
        12, 0, 1, 0, b'N', b'F', b'Q', b'U', b'E', b'U', b'E', 0, // name
        8, 0, 2, 0, 0, 0, 0, 3, // revision
        12, 0, 3, 0, 2, 0, 4, 0, 1, 0, 0, 0, // numbers in the machine's order
    ];
    assert_eq!(written(&Expression::QueueTarget(QUEUES)), target);
}

#[test]
fn a_hash_is_written_with_its_registers() {
    let [from, to] = [0, 4].map(Register);
    let hash = Expression::Hash { from, len: 16, seed: 7, modulus: 997, to };
    let expected = [
        8, 0, 1, 0, 0, 0, 0, 8, 8, 0, 2, 0, 0, 0, 0, 12, // registers
        8, 0, 3, 0, 0, 0, 0, 16, 8, 0, 4, 0, 0, 0, 3, 229, // length, modulus
        8, 0, 5, 0, 0, 0, 0, 7, 8, 0, 7, 0, 0, 0, 0, 0, // seed, type
    ];
    assert_eq!(written(&hash), expected);
}

#[test]
fn what_was_refused_is_named() {
    let comment = "IPv4 TCP".to_string();
    let expressions = vec![Expression::NoTrack, Expression::Queue(QUEUES)];
    let mut transaction = Transaction::new(&table());
    transaction.add_table("made");
    transaction.add_rule("c", &Rule { comment, expressions });
    let start = transaction.parts[1].start;
    let message = &transaction.messages.bytes()[start..];
    let place = message.windows(6).position(|bytes| bytes == b"queue\0").unwrap();
    // The element of the list begins before the name's and its own header.
    let refused = transaction.refused(2, Some(place - 8));
    assert_eq!(refused.what, "add rule 'IPv4 TCP'");
    assert_eq!(refused.expression.as_deref(), Some("queue"));
    assert_eq!(refused.family, Some(TableFamily::Inet));
    assert_eq!(transaction.refused(1, Some(20)).what, "add table");
    for sequence in [0, 3, u32::MAX] {
        assert_eq!(transaction.refused(sequence, None).family, None);
    }
    for offset in [0, 1, 21, 100_000, usize::MAX] {
        assert_eq!(transaction.refused(2, Some(offset)).expression, None);
    }
}

#[test]
fn many_elements_are_several_messages_none_too_long() {
    let mut transaction = Transaction::new(&table());
    let elements: Vec<(u32, [u8; 4])> = (0..5000).map(|slot| (slot, [1; 4])).collect();
    transaction.add_elements("m", MapValue::Mark, &elements);
    assert_eq!(transaction.sequence(), 3);
    let lengths = transaction.parts.windows(2).map(|pair| pair[1].start - pair[0].start);
    assert!(lengths.into_iter().all(|len| len < 65_535 + 40));
    transaction.delete_elements("m", &[]);
    assert_eq!(transaction.sequence(), 3);
    let hops: Vec<(u32, [u8; 20])> = (0..4000).map(|mark| (mark, [1; 20])).collect();
    transaction.add_elements("h", MapValue::NextHop6, &hops);
    transaction.go_to(&table());
    assert_eq!(transaction.sequence(), 6);
    assert!(transaction.messages.bytes().len() - transaction.parts[5].start < 65_535 + 40);
}

#[test]
fn sets_of_a_transaction_have_numbers_of_their_own() {
    let mut transaction = Transaction::new(&table());
    transaction.add_map("m", 7, MapValue::Mark);
    transaction.add_counters_by_mark("s", 9);
    let ids: Vec<u32> = transaction
        .parts
        .iter()
        .map(|part| {
            let attributes = &transaction.messages.bytes()[part.start + 20..];
            attribute::attribute(attributes, 10).and_then(attribute::number).unwrap()
        })
        .collect();
    assert_eq!(ids, [1, 2]);
    let attributes = &transaction.messages.bytes()[transaction.parts[1].start + 20..];
    let counter = attribute::attribute(attributes, 17).unwrap();
    let name = attribute::attribute(counter, EXPR_NAME).and_then(attribute::text);
    assert_eq!(name, Some("counter"));
}
