//! An interval tree: a set of key intervals that finds those containing a given key.
//!
//! An AVL tree ordered by the start of the intervals. Every node knows the interval in its subtree that
//! ends last, so a search skips subtrees that end too early. It costs O(log intervals + results),
//! whatever the intervals are.

use std::{cmp::Ordering, sync::Arc};

/// No node: the absence of a child.
const NIL: u32 = u32::MAX;

/// A set of distinct intervals, each with an ID.
#[derive(Debug)]
pub struct IntervalTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
}

#[derive(Debug)]
struct Node {
    interval: Interval,
    id: u32,
    left: u32,
    right: u32,
    /// The node in this subtree whose interval ends last.
    last: u32,
    height: u8,
}

/// The keys from `start` to `end`, exclusive. Without `end`: to the last key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    pub start: Arc<[u8]>,
    pub end: Option<Arc<[u8]>>,
}

impl Interval {
    fn ends_before(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| **end <= *key)
    }

    fn compare(&self, other: &Interval) -> Ordering {
        self.start.cmp(&other.start).then_with(|| self.compare_ends(other))
    }

    fn compare_ends(&self, other: &Interval) -> Ordering {
        match (&self.end, &other.end) {
            (Some(end), Some(other)) => end.cmp(other),
            (end, other) => end.is_none().cmp(&other.is_none()),
        }
    }
}

impl Default for IntervalTree {
    fn default() -> Self {
        IntervalTree { nodes: Vec::new(), free: Vec::new(), root: NIL }
    }
}

impl IntervalTree {
    /// The ID of exactly this interval.
    pub fn get(&self, interval: &Interval) -> Option<u32> {
        let mut at = self.root;
        while let Some(node) = self.node(at) {
            at = match interval.compare(&node.interval) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(node.id),
            };
        }
        None
    }

    /// Adds an interval that is not in the set.
    pub fn insert(&mut self, interval: Interval, id: u32) {
        let node = Node { interval, id, left: NIL, right: NIL, last: NIL, height: 1 };
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

    pub fn remove(&mut self, interval: &Interval) {
        let (root, removed) = self.remove_below(self.root, interval);
        self.root = root;
        self.free.extend(removed);
        if self.root == NIL {
            *self = IntervalTree::default();
        }
    }

    /// Calls `each` with the ID of every interval that contains `key`, in order of the intervals.
    pub fn for_each_containing(&self, key: &[u8], each: &mut impl FnMut(u32)) {
        self.for_each_below(self.root, key, each);
    }

    fn for_each_below(&self, at: u32, key: &[u8], each: &mut impl FnMut(u32)) {
        let Some(node) = self.node(at) else { return };
        if self.at(node.last).interval.ends_before(key) {
            return;
        }
        self.for_each_below(node.left, key, each);
        if *node.interval.start <= *key {
            if !node.interval.ends_before(key) {
                each(node.id);
            }
            self.for_each_below(node.right, key, each);
        }
    }

    fn insert_below(&mut self, at: u32, new: u32) -> u32 {
        if at == NIL {
            return self.rebalance(new);
        }
        match self.at(new).interval.compare(&self.at(at).interval) {
            Ordering::Less => {
                let left = self.insert_below(self.at(at).left, new);
                self.at_mut(at).left = left;
            }
            Ordering::Greater => {
                let right = self.insert_below(self.at(at).right, new);
                self.at_mut(at).right = right;
            }
            Ordering::Equal => unreachable!("the intervals of a set differ"),
        }
        self.rebalance(at)
    }

    /// Returns the new root of the subtree, and the removed node.
    fn remove_below(&mut self, at: u32, interval: &Interval) -> (u32, Option<u32>) {
        let Some(node) = self.node(at) else { return (NIL, None) };
        let (left, right) = (node.left, node.right);
        let removed = match interval.compare(&node.interval) {
            Ordering::Less => {
                let (left, removed) = self.remove_below(left, interval);
                self.at_mut(at).left = left;
                removed
            }
            Ordering::Greater => {
                let (right, removed) = self.remove_below(right, interval);
                self.at_mut(at).right = right;
                removed
            }
            Ordering::Equal if left == NIL => return (right, Some(at)),
            Ordering::Equal if right == NIL => return (left, Some(at)),
            Ordering::Equal => {
                let (right, next) = self.remove_first(right);
                let node = self.at_mut(next);
                (node.left, node.right) = (left, right);
                return (self.rebalance(next), Some(at));
            }
        };
        (self.rebalance(at), removed)
    }

    /// Removes the first node of the subtree. Returns the new root and the removed node.
    fn remove_first(&mut self, at: u32) -> (u32, u32) {
        if self.at(at).left == NIL {
            return (self.at(at).right, at);
        }
        let (left, first) = self.remove_first(self.at(at).left);
        self.at_mut(at).left = left;
        (self.rebalance(at), first)
    }

    /// Restores the balance of a subtree whose children are balanced. Returns its new root.
    fn rebalance(&mut self, at: u32) -> u32 {
        let (left, right) = (self.at(at).left, self.at(at).right);
        let balance = i16::from(self.height(left)) - i16::from(self.height(right));
        if balance > 1 {
            if self.height(self.at(left).left) < self.height(self.at(left).right) {
                let left = self.rotate_left(left);
                self.at_mut(at).left = left;
            }
            return self.rotate_right(at);
        }
        if balance < -1 {
            if self.height(self.at(right).right) < self.height(self.at(right).left) {
                let right = self.rotate_right(right);
                self.at_mut(at).right = right;
            }
            return self.rotate_left(at);
        }
        self.update(at);
        at
    }

    /// Makes the left child the root of the subtree.
    fn rotate_right(&mut self, at: u32) -> u32 {
        let child = self.at(at).left;
        self.at_mut(at).left = self.at(child).right;
        self.at_mut(child).right = at;
        self.update(at);
        self.update(child);
        child
    }

    /// Makes the right child the root of the subtree.
    fn rotate_left(&mut self, at: u32) -> u32 {
        let child = self.at(at).right;
        self.at_mut(at).right = self.at(child).left;
        self.at_mut(child).left = at;
        self.update(at);
        self.update(child);
        child
    }

    /// Updates the fields of a node that depend on its children.
    fn update(&mut self, at: u32) {
        let (left, right) = (self.at(at).left, self.at(at).right);
        let mut last = at;
        for child in [left, right] {
            if let Some(child) = self.node(child)
                && self.at(child.last).interval.compare_ends(&self.at(last).interval).is_gt()
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

    /// A node that exists.
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

    fn interval(start: u8, end: Option<u8>) -> Interval {
        Interval { start: [start].into(), end: end.map(|end| [end].into()) }
    }

    fn containing(tree: &IntervalTree, key: u8) -> Vec<u32> {
        let mut found = Vec::new();
        tree.for_each_containing(&[key], &mut |id| found.push(id));
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn the_tree_finds_the_same_as_a_list(
            steps in vec((any::<bool>(), 0u8..40, prop::option::of(0u8..40)), 1..200),
        ) {
            let (mut tree, mut list) = (IntervalTree::default(), Vec::new());
            for (id, (add, start, end)) in steps.into_iter().enumerate() {
                let interval = interval(start, end);
                let known = list.iter().position(|(known, _)| *known == interval);
                prop_assert_eq!(tree.get(&interval), known.map(|at| list[at].1));
                match (add, known) {
                    (true, None) => {
                        tree.insert(interval.clone(), id as u32);
                        list.push((interval, id as u32));
                    }
                    (false, known) => {
                        tree.remove(&interval);
                        known.map(|at| list.remove(at));
                    }
                    (true, Some(_)) => {}
                }
                let height = f64::from(tree.height(tree.root));
                prop_assert!(height <= 1.45 * (list.len() as f64 + 2.0).log2());
            }
            for key in 0..41 {
                let held = list.iter().filter(|(interval, _)| {
                    *interval.start <= [key][..] && !interval.ends_before(&[key])
                });
                prop_assert_eq!(containing(&tree, key), held.map(|(_, n)| *n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn ten_thousand_intervals_in_order_make_no_deep_tree() {
        let mut tree = IntervalTree::default();
        for id in 0..10_000u32 {
            let start = id.to_be_bytes();
            tree.insert(Interval { start: start.into(), end: None }, id);
        }
        assert!(tree.height(tree.root) <= 20);
        let mut count = 0;
        tree.for_each_containing(&99u32.to_be_bytes(), &mut |_| count += 1);
        assert_eq!(count, 100);
    }
}
