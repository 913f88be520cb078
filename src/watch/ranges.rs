//! Ranges of keys, and which of them hold a given key.
//!
//! A balanced (AVL) tree of ranges by where they start, in which every node knows which range below
//! it ends last: so whole branches that end too early are passed over, and asking costs
//! O(log ranges + answers), whatever the ranges are.

use std::{cmp::Ordering, sync::Arc};

/// Marks the absence of a child.
const NONE: u32 = u32::MAX;

/// A set of distinct ranges, each with a number.
#[derive(Debug)]
pub(super) struct Ranges {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
}

#[derive(Debug)]
struct Node {
    range: Range,
    number: u32,
    left: u32,
    right: u32,
    /// The node of this subtree whose range ends last.
    last: u32,
    height: u8,
}

/// From a key up to, and without, another; without one: to the end of all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Arc<[u8]>,
    pub(super) end: Option<Arc<[u8]>>,
}

impl Range {
    fn is_before(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| **end <= *key)
    }

    fn order(&self, other: &Range) -> Ordering {
        self.start.cmp(&other.start).then_with(|| self.order_of_ends(other))
    }

    fn order_of_ends(&self, other: &Range) -> Ordering {
        match (&self.end, &other.end) {
            (Some(end), Some(other)) => end.cmp(other),
            (end, other) => end.is_none().cmp(&other.is_none()),
        }
    }
}

impl Default for Ranges {
    fn default() -> Self {
        Ranges { nodes: Vec::new(), free: Vec::new(), root: NONE }
    }
}

impl Ranges {
    /// The number of exactly this range.
    pub(super) fn get(&self, range: &Range) -> Option<u32> {
        let mut at = self.root;
        while let Some(node) = self.node(at) {
            at = match range.order(&node.range) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(node.number),
            };
        }
        None
    }

    /// Adds a range that is not in the set.
    pub(super) fn insert(&mut self, range: Range, number: u32) {
        let node = Node { range, number, left: NONE, right: NONE, last: NONE, height: 1 };
        let new = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.root = self.insert_below(self.root, new);
    }

    pub(super) fn remove(&mut self, range: &Range) {
        let (root, removed) = self.remove_below(self.root, range);
        self.root = root;
        self.free.extend(removed);
        if self.root == NONE {
            *self = Ranges::default();
        }
    }

    /// Gives the number of every range that holds `key`, in order of the ranges.
    pub(super) fn holding(&self, key: &[u8], each: &mut impl FnMut(u32)) {
        self.holding_below(self.root, key, each);
    }

    fn holding_below(&self, at: u32, key: &[u8], each: &mut impl FnMut(u32)) {
        let Some(node) = self.node(at) else { return };
        if self.at(node.last).range.is_before(key) {
            return;
        }
        self.holding_below(node.left, key, each);
        if *node.range.start <= *key {
            if !node.range.is_before(key) {
                each(node.number);
            }
            self.holding_below(node.right, key, each);
        }
    }

    fn insert_below(&mut self, at: u32, new: u32) -> u32 {
        if at == NONE {
            return self.balanced(new);
        }
        match self.at(new).range.order(&self.at(at).range) {
            Ordering::Less => {
                let left = self.insert_below(self.at(at).left, new);
                self.at_mut(at).left = left;
            }
            Ordering::Greater => {
                let right = self.insert_below(self.at(at).right, new);
                self.at_mut(at).right = right;
            }
            Ordering::Equal => unreachable!("ranges of a set differ"),
        }
        self.balanced(at)
    }

    /// The new root of the subtree, and the node that is no longer in it.
    fn remove_below(&mut self, at: u32, range: &Range) -> (u32, Option<u32>) {
        let Some(node) = self.node(at) else { return (NONE, None) };
        let (left, right) = (node.left, node.right);
        let removed = match range.order(&node.range) {
            Ordering::Less => {
                let (left, removed) = self.remove_below(left, range);
                self.at_mut(at).left = left;
                removed
            }
            Ordering::Greater => {
                let (right, removed) = self.remove_below(right, range);
                self.at_mut(at).right = right;
                removed
            }
            Ordering::Equal if left == NONE => return (right, Some(at)),
            Ordering::Equal if right == NONE => return (left, Some(at)),
            Ordering::Equal => {
                let (right, next) = self.take_first(right);
                let node = self.at_mut(next);
                (node.left, node.right) = (left, right);
                return (self.balanced(next), Some(at));
            }
        };
        (self.balanced(at), removed)
    }

    /// The new root of the subtree, and its first node.
    fn take_first(&mut self, at: u32) -> (u32, u32) {
        if self.at(at).left == NONE {
            return (self.at(at).right, at);
        }
        let (left, first) = self.take_first(self.at(at).left);
        self.at_mut(at).left = left;
        (self.balanced(at), first)
    }

    /// Makes a subtree whose children are in order so itself, and returns its root.
    fn balanced(&mut self, at: u32) -> u32 {
        let (left, right) = (self.at(at).left, self.at(at).right);
        let lean = i16::from(self.height(left)) - i16::from(self.height(right));
        if lean > 1 {
            if self.height(self.at(left).left) < self.height(self.at(left).right) {
                let left = self.lift_right(left);
                self.at_mut(at).left = left;
            }
            return self.lift_left(at);
        }
        if lean < -1 {
            if self.height(self.at(right).right) < self.height(self.at(right).left) {
                let right = self.lift_left(right);
                self.at_mut(at).right = right;
            }
            return self.lift_right(at);
        }
        self.note(at);
        at
    }

    /// Puts the left child in the place of its parent.
    fn lift_left(&mut self, at: u32) -> u32 {
        let child = self.at(at).left;
        self.at_mut(at).left = self.at(child).right;
        self.at_mut(child).right = at;
        self.note(at);
        self.note(child);
        child
    }

    /// Puts the right child in the place of its parent.
    fn lift_right(&mut self, at: u32) -> u32 {
        let child = self.at(at).right;
        self.at_mut(at).right = self.at(child).left;
        self.at_mut(child).left = at;
        self.note(at);
        self.note(child);
        child
    }

    /// Notes what a node knows of those below it.
    fn note(&mut self, at: u32) {
        let (left, right) = (self.at(at).left, self.at(at).right);
        let mut last = at;
        for child in [left, right] {
            if let Some(child) = self.node(child)
                && self.at(child.last).range.order_of_ends(&self.at(last).range).is_gt()
            {
                last = child.last;
            }
        }
        let height = 1 + self.height(left).max(self.height(right));
        let node = self.at_mut(at);
        (node.last, node.height) = (last, height);
    }

    fn height(&self, at: u32) -> u8 {
        self.node(at).map_or(0, |node| node.height)
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    /// A node that is there.
    fn at(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn at_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn range(start: u8, end: Option<u8>) -> Range {
        Range { start: [start].into(), end: end.map(|end| [end].into()) }
    }

    fn holding(ranges: &Ranges, key: u8) -> Vec<u32> {
        let mut found = Vec::new();
        ranges.holding(&[key], &mut |number| found.push(number));
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_a_list_finds(
            steps in vec((any::<bool>(), 0u8..40, prop::option::of(0u8..40)), 1..200),
        ) {
            let (mut tree, mut list) = (Ranges::default(), Vec::new());
            for (number, (add, start, end)) in steps.into_iter().enumerate() {
                let range = range(start, end);
                let known = list.iter().position(|(known, _)| *known == range);
                prop_assert_eq!(tree.get(&range), known.map(|at| list[at].1));
                match (add, known) {
                    (true, None) => {
                        tree.insert(range.clone(), number as u32);
                        list.push((range, number as u32));
                    }
                    (false, known) => {
                        tree.remove(&range);
                        known.map(|at| list.remove(at));
                    }
                    (true, Some(_)) => {}
                }
                let height = f64::from(tree.height(tree.root));
                prop_assert!(height <= 1.45 * (list.len() as f64 + 2.0).log2());
            }
            for key in 0..41 {
                let held = list.iter().filter(|(range, _)| {
                    *range.start <= [key][..] && !range.is_before(&[key])
                });
                prop_assert_eq!(holding(&tree, key), held.map(|(_, n)| *n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn ten_thousand_ranges_in_order_make_no_deep_tree() {
        let mut ranges = Ranges::default();
        for number in 0..10_000u32 {
            let start = number.to_be_bytes();
            ranges.insert(Range { start: start.into(), end: None }, number);
        }
        assert!(ranges.height(ranges.root) <= 20);
        let mut count = 0;
        ranges.holding(&99u32.to_be_bytes(), &mut |_| count += 1);
        assert_eq!(count, 100);
    }
}
