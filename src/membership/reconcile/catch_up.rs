//! Which members have kept up with the log for a while.

use std::collections::BTreeMap;

use crate::types::MemberId;

/// A member is caught up after keeping up in this many observations in a row.
const OBSERVATIONS: u32 = 3;

/// For each member, the number of consecutive observations in which it kept up with the log.
#[derive(Debug, Default)]
pub struct CatchUp(BTreeMap<MemberId, u32>);

impl CatchUp {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.0.retain(|id, _| is_member(*id));
    }

    pub fn record(&mut self, member: MemberId, keeps_up: bool) {
        let count = self.0.entry(member).or_default();
        *count = if keeps_up { count.saturating_add(1) } else { 0 };
    }

    pub fn is_caught_up(&self, member: MemberId) -> bool {
        self.0.get(&member).is_some_and(|&count| count >= OBSERVATIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_falls_behind_starts_over() {
        let mut catch_up = CatchUp::default();
        let member = MemberId(7);
        for (keeps_up, is_caught_up) in
            [(true, false), (true, false), (true, true), (false, false), (true, false)]
        {
            catch_up.record(member, keeps_up);
            assert_eq!(catch_up.is_caught_up(member), is_caught_up);
        }
    }
}
