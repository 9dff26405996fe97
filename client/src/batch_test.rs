//! Tests of `batch`: how items are cut into parts.

use super::*;

fn put(bytes: usize) -> Request {
    Request::Put(v1::PutRequest { value: vec![0; bytes].into(), ..Default::default() })
}

#[test]
fn parts_hold_as_many_items_as_the_wire_allows_in_order() {
    let items: Vec<_> = (0..2500).map(|index| (index, put(1))).collect();
    let parts = split(items);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    let order: Vec<usize> = parts.into_iter().flatten().map(|(index, _)| index).collect();
    assert_eq!(order, (0..2500).collect::<Vec<_>>());
}

#[test]
fn large_values_make_small_parts_and_none_is_left_out() {
    let items: Vec<_> = (0..7).map(|index| (index, put(1 << 20))).collect();
    assert_eq!(split(items).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 1]);
    assert!(split(Vec::new()).is_empty());
}
