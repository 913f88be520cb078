//! Pseudo-random numbers from a seed that can be given again.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Seeded from `KVD_CRASH_SEED`, or from the time. The seed is printed, so a run can be
    /// repeated as far as the machine's timing allows.
    pub fn from_env() -> Rng {
        let given = std::env::var("KVD_CRASH_SEED").ok();
        let seed = given.map(|text| text.parse().expect("KVD_CRASH_SEED is a number"));
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as u64
        });
        println!("KVD_CRASH_SEED={seed}");
        Rng(seed)
    }

    /// An independent sequence.
    pub fn split(&mut self) -> Rng {
        Rng(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
