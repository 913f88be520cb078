//! The sizes of one member that must fit each other: quota, volume and memory. Pure; docs/sizing.md has
//! the same table for readers.
//!
//! The quota counts live bytes: what a compaction would keep. A member needs more than that:
//!
//! | on the volume | at most | because |
//! |---|---|---|
//! | blocks | 2 × quota | a block is rewritten once less than half of it is live |
//! | dead blocks that the last snapshot holds | quota / 2 | beyond, the next snapshot is taken early |
//! | a snapshot that is being received | quota | it is beside the old data until it is complete |
//! | the log behind the snapshot | quota, or `keep_log_bytes` if that is more | a follower that lags by more gets a snapshot instead |
//! | segments of the log | 3 | a partial first one, the active one, and the next one, preallocated |
//!
//! | in memory | bytes | because |
//! |---|---|---|
//! | index | quota / 2 | 100 bytes and the key for each record; a record of average size has 300 live bytes |
//! | values | `cache_bytes` | the cache |
//! | all else | 256 MiB | the log's tail, changes that are not in blocks yet, requests, watches, the process |
//!
//! A store of many small records needs more memory: with keys of 32 bytes and values of 32, the index
//! takes 1.2 × quota. No flag can know that, so the check assumes the average.

use std::fmt;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Memory beside index and cache.
const BASE_MEMORY_BYTES: u64 = 256 * MIB;
const SEGMENTS: u64 = 3;

/// The sizes of a member, as configured and as measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub quota_bytes: u64,
    pub cache_bytes: u64,
    pub keep_log_bytes: u64,
    pub segment_bytes: u64,
    /// Unknown: not checked.
    pub volume_bytes: Option<u64>,
    /// `None`: there is no limit.
    pub memory_limit_bytes: Option<u64>,
}

/// A size that is too small for the quota. The text says what to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    Volume { quota: u64, needs: u64, has: u64, quota_max: u64 },
    Memory { quota: u64, cache: u64, needs: u64, has: u64, quota_max: u64 },
}

impl Sizes {
    /// The volume that the quota may fill.
    pub fn volume_needed(&self) -> u64 {
        let quota = self.quota_bytes;
        let blocks = quota.saturating_mul(2).saturating_add(quota / 2).saturating_add(quota);
        blocks.saturating_add(quota.max(self.keep_log_bytes)).saturating_add(self.segments())
    }

    /// The memory that a store of average records takes at its quota.
    pub fn memory_needed(&self) -> u64 {
        self.memory_beside_index().saturating_add(self.quota_bytes / 2)
    }

    /// The sizes that do not fit the quota.
    pub fn misfits(&self) -> Vec<Misfit> {
        let Sizes { quota_bytes: quota, cache_bytes: cache, .. } = *self;
        let volume = self.volume_bytes.filter(|has| *has < self.volume_needed());
        let volume = volume.map(|has| Misfit::Volume {
            quota,
            needs: self.volume_needed(),
            has,
            quota_max: self.quota_for_volume(has),
        });
        let memory = self.memory_limit_bytes.filter(|has| *has < self.memory_needed());
        let memory = memory.map(|has| Misfit::Memory {
            quota,
            cache,
            needs: self.memory_needed(),
            has,
            quota_max: has.saturating_sub(self.memory_beside_index()).saturating_mul(2),
        });
        volume.into_iter().chain(memory).collect()
    }

    /// The largest quota that fits a volume.
    fn quota_for_volume(&self, volume: u64) -> u64 {
        let rest = volume.saturating_sub(self.segments());
        let with_long_log = rest / 9 * 2;
        if with_long_log >= self.keep_log_bytes {
            with_long_log
        } else {
            rest.saturating_sub(self.keep_log_bytes) / 7 * 2
        }
    }

    fn segments(&self) -> u64 {
        self.segment_bytes.saturating_mul(SEGMENTS)
    }

    fn memory_beside_index(&self) -> u64 {
        BASE_MEMORY_BYTES.saturating_add(self.cache_bytes)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Misfit::Volume { quota, needs, has, quota_max } => {
                let (quota, has) = (size(quota), size(has));
                write!(
                    f,
                    "the volume has {has}, and a quota of {quota} may fill {}: use a volume of {}",
                    size(needs),
                    at_least(needs),
                )?;
                or_lower_quota(f, quota_max)
            }
            Misfit::Memory { quota, cache, needs, has, quota_max } => {
                let (quota, cache, has) = (size(quota), size(cache), size(has));
                write!(
                    f,
                    "the memory limit is {has}, and a quota of {quota} with a cache of {cache} may take \
                     {}: set the memory limit to {}",
                    size(needs),
                    at_least(needs),
                )?;
                or_lower_quota(f, quota_max)
            }
        }
    }
}

/// Omitted where no useful quota fits.
fn or_lower_quota(f: &mut fmt::Formatter<'_>, quota_max: u64) -> fmt::Result {
    match quota_max / MIB {
        0 => Ok(()),
        mib => write!(f, ", or --quota-backend-bytes to {mib}MiB"),
    }
}

/// For people: 1.5GiB.
fn size(bytes: u64) -> String {
    let (unit, name) = if bytes >= GIB { (GIB, "GiB") } else { (MIB, "MiB") };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    match tenths % 10 {
        0 => format!("{}{name}", tenths / 10),
        tenth => format!("{}.{tenth}{name}", tenths / 10),
    }
}

/// A size to set: whole units, rounded up.
fn at_least(bytes: u64) -> String {
    let (unit, name) = if bytes > GIB { (GIB, "GiB") } else { (MIB, "MiB") };
    format!("{}{name}", bytes.div_ceil(unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(quota_bytes: u64, volume: u64, memory: u64) -> Sizes {
        Sizes {
            quota_bytes,
            cache_bytes: 64 * MIB,
            keep_log_bytes: 256 * MIB,
            segment_bytes: 64 * MIB,
            volume_bytes: Some(volume),
            memory_limit_bytes: Some(memory),
        }
    }

    fn texts(sizes: Sizes) -> Vec<String> {
        sizes.misfits().iter().map(Misfit::to_string).collect()
    }

    #[test]
    fn each_misfit_says_what_to_set() {
        assert_eq!(
            texts(sizes(8 * GIB, 10 * GIB, 2 * GIB)),
            [
                "the volume has 10GiB, and a quota of 8GiB may fill 36.1GiB: use a volume of 37GiB, or \
                 --quota-backend-bytes to 2232MiB",
                "the memory limit is 2GiB, and a quota of 8GiB with a cache of 64MiB may take 4.3GiB: \
                 set the memory limit to 5GiB, or --quota-backend-bytes to 3456MiB",
            ]
        );
    }

    #[test]
    fn nothing_is_said_where_no_quota_would_fit() {
        let texts = texts(sizes(GIB, 200 * MIB, 100 * MIB));
        assert!(texts.iter().all(|text| !text.contains("--quota")), "{texts:?}");
    }

    #[test]
    fn what_is_unknown_or_unlimited_fits() {
        let unknown =
            Sizes { volume_bytes: None, memory_limit_bytes: None, ..sizes(u64::MAX, 0, 0) };
        assert_eq!(unknown.misfits(), []);
    }

    proptest! {
        /// The advice is right: what it says to set fits, and a little less does not.
        #[test]
        fn what_a_misfit_advises_fits(
            quota in MIB..1000 * GIB,
            volume in 500 * MIB..1000 * GIB,
            memory in 400 * MIB..100 * GIB,
        ) {
            let told = sizes(quota, volume, memory);
            let enough = Sizes {
                volume_bytes: Some(told.volume_needed()),
                memory_limit_bytes: Some(told.memory_needed()),
                ..told
            };
            prop_assert_eq!(enough.misfits(), []);
            for misfit in told.misfits() {
                let (Misfit::Volume { quota_max, .. } | Misfit::Memory { quota_max, .. }) = misfit;
                let same = |other: &Misfit| {
                    std::mem::discriminant(other) == std::mem::discriminant(&misfit)
                };
                let with = |quota_bytes| Sizes { quota_bytes, ..told };
                prop_assert!(quota_max < quota);
                prop_assert!(!with(quota_max).misfits().iter().any(same));
                prop_assert!(with(quota_max + 20).misfits().iter().any(same));
            }
        }
    }
}
