//! A tree against a model that knows every key, through random histories.

use super::*;
use crate::anti_entropy::leaf::{self, Share};
use crate::event::Record;
use crate::version::Digest;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, VecDeque};

const SLOT: Slot = Slot(0x1234);

/// A disk that takes batches in order: keys, and the leaf's record.
#[derive(Clone, Default)]
struct Disk {
    keys: BTreeMap<u8, Digest>,
    leaf: Option<Record>,
}

/// One batch: a key's new state and the leaf's merge, or a leaf's put.
enum Batch {
    Key(u8, Digest, Option<LeafRecord>),
    Leaf(LeafRecord),
}

impl Disk {
    fn apply(&mut self, batch: &Batch) {
        match batch {
            Batch::Key(key, digest, record) => {
                self.keys.insert(*key, *digest);
                if let Some(record) = record {
                    let fragments: Vec<Record> =
                        [Some(record.record()), self.leaf.clone()].into_iter().flatten().collect();
                    self.leaf = Some(leaf::fold(&fragments).unwrap());
                }
            }
            Batch::Leaf(record) => self.leaf = Some(record.record()),
        }
    }

    fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        self.keys.iter().for_each(|(key, digest)| sum.add(Share::new(&[*key], *digest)));
        sum
    }
}

/// What the node remembers of a key between its writes, as an active key does.
#[derive(Default)]
struct Known {
    share: BTreeMap<u8, Share>,
    under_way: BTreeMap<u8, u32>,
}

#[test]
fn a_fresh_leaf_is_what_a_rebuild_finds_whatever_fails_and_whenever_power_goes() {
    let (mut fresh, mut settled, mut crashes) = (0, 0, 0);
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let registers = rng.random_bool(0.3);
        let mut disk = Disk::default();
        let mut tree = Tree::new();
        let mut known = Known::default();
        let mut queue: VecDeque<(Batch, LeafWrite)> = VecDeque::new();
        let mut rescan: Option<(u64, Sum)> = None;
        for step in 0..300u32 {
            match rng.random_range(0..100) {
                0..45 => {
                    let key = rng.random_range(0..6u8);
                    let waits = known.under_way.get(&key).is_some_and(|count| *count > 0);
                    // A key that must be read waits for its writes.
                    let Some(old) = known.share.get(&key).copied().or_else(|| {
                        (!waits).then(|| disk.keys.get(&key).map_or(Share::NONE, |d| Share::new(&[key], *d)))
                    }) else {
                        continue;
                    };
                    let mut bytes = [0; 16];
                    bytes[..4].copy_from_slice(&step.to_be_bytes());
                    let digest = Digest(bytes);
                    let new = Share::new(&[key], digest);
                    let change = (!registers).then(|| Sum::change(old, new));
                    let (record, write) = tree.change(SLOT, change);
                    known.share.insert(key, new);
                    *known.under_way.entry(key).or_default() += 1;
                    queue.push_back((Batch::Key(key, digest, record), write));
                }
                45..80 => {
                    // A group commit: all or nothing.
                    let count = rng.random_range(0..=queue.len());
                    let is_ok = rng.random_bool(0.9);
                    let group: Vec<_> = queue.drain(..count).collect();
                    if is_ok {
                        group.iter().for_each(|(batch, _)| disk.apply(batch));
                    }
                    for (batch, write) in group {
                        tree.done(write, is_ok);
                        if let Batch::Key(key, ..) = batch {
                            *known.under_way.get_mut(&key).unwrap() -= 1;
                            if !is_ok {
                                known.share.remove(&key);
                            }
                        }
                    }
                }
                80..90 => rescan = tree.begin_rescan(SLOT).map(|begun| (begun, disk.sum())),
                90..96 => {
                    if let Some((begun, sum)) = rescan.take() {
                        match tree.settle(SLOT, begun, sum) {
                            Settled::Fresh(record, write) => {
                                settled += 1;
                                queue.push_back((Batch::Leaf(record), write));
                            }
                            Settled::Corrected(..) => panic!("seed {seed}: a fresh leaf was wrong"),
                            Settled::AsKnown | Settled::Disturbed => {}
                        }
                    }
                }
                96 => {
                    // Power goes: a prefix of what was submitted is there.
                    crashes += 1;
                    let count = rng.random_range(0..=queue.len());
                    queue.drain(..count).for_each(|(batch, _)| disk.apply(&batch));
                    queue.clear();
                    (tree, known, rescan) = (Tree::new(), Known::default(), None);
                    if let Some(record) = &disk.leaf {
                        tree.load(SLOT, LeafRecord::decode(record).unwrap());
                    }
                }
                _ => {
                    if queue.is_empty()
                        && let Some(sum) = tree.sum(SLOT)
                    {
                        fresh += 1;
                        assert_eq!(sum, disk.sum(), "seed {seed} step {step}");
                    }
                }
            }
            assert_eq!(tree.stale(), usize::from(tree.sum(SLOT).is_none()));
            assert_eq!(tree.branch_sum(branch_of(SLOT)), tree.sum(SLOT), "the only leaf of its branch");
        }
        // What a restart would load is right, or known to be stale.
        queue.drain(..).for_each(|(batch, _)| disk.apply(&batch));
        if let Some(record) = &disk.leaf {
            let record = LeafRecord::decode(record).unwrap();
            assert!(record.stale || record.from != 0 || record.sum == disk.sum(), "seed {seed}");
        }
    }
    assert!(fresh > 100 && settled > 100 && crashes > 100, "{fresh} {settled} {crashes}");
}

#[test]
fn a_registers_leaf_is_marked_once_and_then_costs_nothing() {
    let mut tree = Tree::new();
    let (record, first) = tree.change(SLOT, None);
    assert!(record.is_some_and(|record| record.stale));
    let (again, second) = tree.change(SLOT, None);
    assert!(again.is_some(), "until the disk has it");
    tree.done(first, true);
    tree.done(second, true);
    let (record, third) = tree.change(SLOT, None);
    assert_eq!(record, None);
    tree.done(third, true);
    let begun = tree.begin_rescan(SLOT).unwrap();
    let Settled::Fresh(_, write) = tree.settle(SLOT, begun, Sum(5)) else { panic!("it was stale") };
    assert_eq!((tree.sum(SLOT), tree.stale()), (Some(Sum(5)), 0));
    assert!(tree.change(SLOT, None).0.is_some(), "it is fresh on disk now");
    tree.done(write, true);
}

#[test]
fn a_rescan_with_writes_in_it_counts_for_nothing() {
    let mut tree = Tree::new();
    let (_, early) = tree.change(SLOT, None);
    assert_eq!(tree.begin_rescan(SLOT), None);
    tree.done(early, true);
    let begun = tree.begin_rescan(SLOT).unwrap();
    let (_, late) = tree.change(SLOT, None);
    tree.done(late, true);
    assert_eq!(tree.settle(SLOT, begun, Sum(1)), Settled::Disturbed);
    assert_eq!(tree.sum(SLOT), None);
}
