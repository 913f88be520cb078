//! The order of equal keys in a sorted range.
//!
//! etcd sorts with an unstable sort, so the order of equal keys depends on the algorithm. But the
//! algorithm is deterministic, and clients page through such results. This is the same algorithm,
//! pattern-defeating quicksort with Go's parameters: the same comparisons lead to the same swaps, and
//! so to the same order. Up to [`INSERTION_MAX`] elements the sort is stable.
//!
//! Any difference from etcd's choice of a pivot, a threshold or a seed changes results:
//! `tests/differential/scripts/range_sort_ties` compares both.

/// Maximum elements for insertion sort.
const INSERTION_MAX: usize = 12;
/// From this length on, the pivot is the median of three medians.
const NINTHER_MIN: usize = 50;
/// Swaps needed to sort nine samples in descending order.
const DESCENDING_SWAPS: usize = 12;
/// Misplaced elements that are repaired before a run no longer counts as nearly sorted.
const REPAIRS_MAX: usize = 5;
/// Shorter runs are not repaired.
const REPAIR_MIN: usize = 50;
/// Shorter runs are not shuffled.
const SHUFFLE_MIN: usize = 8;

/// Sorts by `less`, a strict weak order.
pub fn sort<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let bad_pivots_max = usize::BITS - items.len().leading_zeros();
    let end = items.len();
    Sorter { items, less }.quicksort(0, end, bad_pivots_max);
}

/// The pattern that the samples of a run show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Ascending,
    Descending,
    Unknown,
}

struct Sorter<'a, T, L> {
    items: &'a mut [T],
    less: L,
}

impl<T, L: Fn(&T, &T) -> bool> Sorter<'_, T, L> {
    fn less(&self, a: usize, b: usize) -> bool {
        (self.less)(&self.items[a], &self.items[b])
    }

    /// Sorts `start..end`; everything before `start` is in its place. After
    /// `bad_pivots_max` bad pivots the heap sort takes the rest, which bounds the time.
    fn quicksort(&mut self, mut start: usize, mut end: usize, mut bad_pivots_max: u32) {
        let (mut balanced, mut partitioned) = (true, true);
        while end - start > INSERTION_MAX {
            let length = end - start;
            if bad_pivots_max == 0 {
                return self.heap_sort(start, end);
            }
            if !balanced {
                self.shuffle(start, end);
                bad_pivots_max -= 1;
            }
            let (mut pivot, mut pattern) = self.choose_pivot(start, end);
            if pattern == Pattern::Descending {
                self.items[start..end].reverse();
                pivot = (end - 1) - (pivot - start);
                pattern = Pattern::Ascending;
            }
            let nearly_sorted = balanced && partitioned && pattern == Pattern::Ascending;
            if nearly_sorted && self.repair(start, end) {
                return;
            }
            if start > 0 && !self.less(start - 1, pivot) {
                start = self.skip_equal(start, end, pivot);
                continue;
            }
            let middle;
            (middle, partitioned) = self.partition(start, end, pivot);
            let (left, right) = (middle - start, end - middle);
            balanced = left.min(right) >= length / 8;
            // The shorter side first, so that the depth is logarithmic.
            if left < right {
                self.quicksort(start, middle, bad_pivots_max);
                start = middle + 1;
            } else {
                self.quicksort(middle + 1, end, bad_pivots_max);
                end = middle;
            }
        }
        self.insertion_sort(start, end);
    }

    fn insertion_sort(&mut self, start: usize, end: usize) {
        for at in start + 1..end {
            self.sink(at, start);
        }
    }

    /// Moves an element down, before all greater ones from `floor` on.
    fn sink(&mut self, mut at: usize, floor: usize) {
        while at > floor && self.less(at, at - 1) {
            self.items.swap(at, at - 1);
            at -= 1;
        }
    }

    /// Tries to sort a run that looks sorted. Returns whether it is sorted now.
    fn repair(&mut self, start: usize, end: usize) -> bool {
        let mut at = start + 1;
        for _ in 0..REPAIRS_MAX {
            while at < end && !self.less(at, at - 1) {
                at += 1;
            }
            if at == end {
                return true;
            }
            if end - start < REPAIR_MIN {
                return false;
            }
            self.items.swap(at, at - 1);
            if at - start >= 2 {
                // Elements before the run are not greater, so the element stops there.
                self.sink(at - 1, 0);
            }
            if end - at >= 2 {
                self.float(at + 1, end);
            }
        }
        false
    }

    /// Moves the element before `at` up, behind all smaller ones.
    fn float(&mut self, mut at: usize, end: usize) {
        while at < end && self.less(at, at - 1) {
            self.items.swap(at, at - 1);
            at += 1;
        }
    }

    /// Splits the run into elements less than the pivot and the rest. Returns the new position of the
    /// pivot, and whether no elements were swapped.
    fn partition(&mut self, start: usize, end: usize, pivot: usize) -> (usize, bool) {
        self.items.swap(start, pivot);
        let (mut low, mut high) = (start + 1, end - 1);
        let mut swapped = false;
        loop {
            while low <= high && self.less(low, start) {
                low += 1;
            }
            while low <= high && !self.less(high, start) {
                high -= 1;
            }
            if low > high {
                break;
            }
            self.items.swap(low, high);
            swapped = true;
            low += 1;
            high -= 1;
        }
        self.items.swap(high, start);
        (high, !swapped)
    }

    /// In a run without an element less than the pivot: moves those equal to it to the front, and
    /// returns where the rest begins.
    fn skip_equal(&mut self, start: usize, end: usize, pivot: usize) -> usize {
        self.items.swap(start, pivot);
        let (mut low, mut high) = (start + 1, end - 1);
        loop {
            while low <= high && !self.less(start, low) {
                low += 1;
            }
            while low <= high && self.less(start, high) {
                high -= 1;
            }
            if low > high {
                return low;
            }
            self.items.swap(low, high);
            low += 1;
            high -= 1;
        }
    }

    fn choose_pivot(&self, start: usize, end: usize) -> (usize, Pattern) {
        let length = end - start;
        let quarter = length / 4;
        let mut samples = [1, 2, 3].map(|nth| start + nth * quarter);
        let mut swaps = 0;
        if length >= NINTHER_MIN {
            samples = samples.map(|at| self.median([at - 1, at, at + 1], &mut swaps));
        }
        let pivot = self.median(samples, &mut swaps);
        let pattern = match swaps {
            0 => Pattern::Ascending,
            DESCENDING_SWAPS => Pattern::Descending,
            _ => Pattern::Unknown,
        };
        (pivot, pattern)
    }

    /// The index of the median. Adds the swaps that sorting the three takes to `swaps`.
    fn median(&self, [mut a, mut b, mut c]: [usize; 3], swaps: &mut usize) -> usize {
        let mut order = |low: &mut usize, high: &mut usize| {
            if self.less(*high, *low) {
                std::mem::swap(low, high);
                *swaps += 1;
            }
        };
        order(&mut a, &mut b);
        order(&mut b, &mut c);
        order(&mut a, &mut b);
        b
    }

    /// Scatters some elements that may have caused bad pivots. The seed is the length, so it
    /// is the same on every member.
    fn shuffle(&mut self, start: usize, end: usize) {
        let length = end - start;
        if length < SHUFFLE_MIN {
            return;
        }
        let mut random = length as u64;
        let mask = (1_u64 << (u64::BITS - random.leading_zeros())) - 1;
        let first = start + length / 4 * 2 - 1;
        for nth in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let other = (random & mask) as usize;
            let other = if other >= length { other - length } else { other };
            self.items.swap(first + nth, start + other);
        }
    }

    fn heap_sort(&mut self, start: usize, end: usize) {
        let length = end - start;
        for root in (0..=(length - 1) / 2).rev() {
            self.sift_down(start, root, length);
        }
        for last in (0..length).rev() {
            self.items.swap(start, start + last);
            self.sift_down(start, 0, last);
        }
    }

    fn sift_down(&mut self, start: usize, mut root: usize, length: usize) {
        loop {
            let mut child = 2 * root + 1;
            if child >= length {
                return;
            }
            if child + 1 < length && self.less(start + child, start + child + 1) {
                child += 1;
            }
            if !self.less(start + root, start + child) {
                return;
            }
            self.items.swap(start + root, start + child);
            root = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn sorted<T: Clone>(items: &[T], less: impl Fn(&T, &T) -> bool) -> Vec<T> {
        let mut items = items.to_vec();
        sort(&mut items, less);
        items
    }

    #[test]
    fn a_few_equal_elements_stay_in_order_whichever_way_they_are_sorted() {
        let items: Vec<(u32, usize)> = (0..INSERTION_MAX).map(|at| (at as u32 % 3, at)).collect();
        let mut stable = items.clone();
        stable.sort_by_key(|item| item.0);
        assert_eq!(sorted(&items, |a, b| a.0 < b.0), stable);
        stable.sort_by_key(|item| std::cmp::Reverse(item.0));
        assert_eq!(sorted(&items, |a, b| b.0 < a.0), stable);
    }

    fn saw(at: u64, _: u64) -> u64 {
        at * 7 % 5
    }

    fn descending(at: u64, length: u64) -> u64 {
        (length - at) / 3
    }

    fn organ_pipe(at: u64, length: u64) -> u64 {
        at.min(length - at) / 2
    }

    fn scattered(at: u64, _: u64) -> u64 {
        (at * at * 31 + at * 17) % 11
    }

    /// An adversary decides a value only when two undecided ones are compared: pivots are as bad as
    /// can be, and the heap sort takes over. Each value of the upper half comes three times.
    fn killer(length: usize) -> Vec<u64> {
        const UNDECIDED: u64 = u64::MAX;
        let values = RefCell::new((0, vec![UNDECIDED; length]));
        let mut items: Vec<usize> = (0..length).collect();
        sort(&mut items, |a, b| {
            let (next, values) = &mut *values.borrow_mut();
            if values[*a] == UNDECIDED && values[*b] == UNDECIDED {
                values[*a] = *next;
                *next += 1;
            }
            values[*a] < values[*b]
        });
        let (_, values) = values.into_inner();
        let threefold = |value| if value < length as u64 / 2 { value } else { value / 3 * 3 };
        values.into_iter().map(|value| threefold(value.min(length as u64))).collect()
    }

    /// A checksum of where each element went; and how many comparisons that took.
    fn order(values: &[u64], less: impl Fn(u64, u64) -> bool) -> (u32, usize) {
        let comparisons = Cell::new(0);
        let places: Vec<u32> = (0..).take(values.len()).collect();
        let places = sorted(&places, |a, b| {
            comparisons.set(comparisons.get() + 1);
            less(values[*a as usize], values[*b as usize])
        });
        let bytes: Vec<u8> = places.iter().flat_map(|place| place.to_be_bytes()).collect();
        (crc32fast::hash(&bytes), comparisons.get())
    }

    type Values = fn(u64, u64) -> u64;

    /// etcd 3.6.16's answers to a range of such values, sorted by value: ascending, descending.
    const ETCDS: &[(Values, u64, u32, u32)] = &[
        (saw, 13, 0x9d06_199e, 0xc11c_d96c),
        (saw, 130, 0xe6e5_171a, 0xb605_dbeb),
        (saw, 2000, 0x7a4a_23f4, 0xeb1c_4061),
        (descending, 50, 0x7ba0_b079, 0xdf3d_a087),
        (descending, 2000, 0x7eca_a8b2, 0x7e0e_b1b5),
        (organ_pipe, 50, 0xe375_7ac7, 0x97b3_13f6),
        (organ_pipe, 2000, 0x86d4_cbc1, 0x19a6_5ee8),
        (scattered, 50, 0x2f73_a6ab, 0xc239_f7a2),
        (scattered, 130, 0x4c78_6062, 0x0e5c_d358),
        (scattered, 2000, 0x5f3b_2a55, 0x7088_7091),
    ];

    #[test]
    fn equal_elements_come_in_etcds_order() {
        for (value, length, ascending, falling) in ETCDS.iter().copied() {
            let values: Vec<u64> = (0..length).map(|at| value(at, length)).collect();
            assert_eq!(order(&values, |a, b| a < b).0, ascending, "{length} {values:?}");
            assert_eq!(order(&values, |a, b| b < a).0, falling, "{length} {values:?}");
        }
    }

    #[test]
    fn the_worst_that_comes_is_sorted_as_etcd_does_and_in_n_log_n() {
        for (length, ascending, descending) in [
            (100, 0x9168_c474, 0x7638_8ef7),
            (300, 0xacc1_e414, 0x942f_c0b8),
            (2000, 0xf0fe_0d5b, 0xbf18_cfb0),
        ] {
            let values = killer(length);
            let bound = 4 * length * (length.ilog2() as usize + 1);
            let (order_up, comparisons) = order(&values, |a, b| a < b);
            assert_eq!(order_up, ascending);
            assert!(comparisons <= bound, "{comparisons} comparisons of {length}");
            assert_eq!(order(&values, |a, b| b < a).0, descending);
        }
    }

    proptest! {
        #[test]
        fn everything_is_sorted_and_nothing_lost(items in vec(0u16..40, 0..400)) {
            let mut expected = items.clone();
            expected.sort_unstable();
            prop_assert_eq!(sorted(&items, |a, b| a < b), expected.clone());
            expected.reverse();
            prop_assert_eq!(sorted(&items, |a, b| b < a), expected);
        }

        #[test]
        fn heap_sort_sorts_a_part_and_leaves_the_rest(
            mut items in vec(0u16..40, 2..100),
            start in any::<prop::sample::Index>(),
        ) {
            let start = start.index(items.len() - 1);
            let mut expected = items.clone();
            expected[start..].sort_unstable();
            let end = items.len();
            Sorter { items: &mut items, less: |a: &u16, b: &u16| a < b }.heap_sort(start, end);
            prop_assert_eq!(items, expected);
        }
    }
}
