//! Chance, from a seed that can be given again.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// From `KVD_CRASH_SEED`, or another one at each run; printed, so that a run can be repeated
    /// as far as the machine's own timing allows.
    pub(crate) fn from_env() -> Dice {
        let given = std::env::var("KVD_CRASH_SEED").ok();
        let seed = given.map(|text| text.parse().expect("KVD_CRASH_SEED is a number"));
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as u64
        });
        println!("KVD_CRASH_SEED={seed}");
        Dice(seed)
    }

    /// Another sequence, of its own.
    pub(crate) fn split(&mut self) -> Dice {
        Dice(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
