//! What operators read about a founding that waits.
//!
//! The command that overrides the evidence abandons data. So an Event names it only once waiting is unlikely
//! to help: volumes attach within minutes. Where the claims are unknown, or a member answers, no Event names
//! it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    evidence::{FoundingObstacle, Unproven, named},
    state::{Blocked, Bootstrap, ObstacleKind},
};
use crate::{membership::orchestrator::FoundingOrder, types::Ordinal};

/// The pods that could prove these volumes empty do not exist, or answer otherwise. A person may still be
/// about to scale the set.
const UNPROVABLE_PATIENCE: Duration = Duration::from_secs(300);
/// A node may have to be added, and a volume detached from a dead one.
const SILENCE_PATIENCE: Duration = Duration::from_secs(900);
/// Every new cluster waits for its first pod for some seconds: that is no news.
const FIRST_POD_PATIENCE: Duration = Duration::from_secs(10);
/// An Event has 1 KiB.
const TEXT_BYTES_MAX: usize = 1000;

impl Bootstrap {
    /// Reports an obstacle; once waiting is unlikely to help, with the command that overrides it.
    pub fn report_obstacle(&self, obstacle: &FoundingObstacle) {
        let kind = kind(obstacle);
        let (is_new, since) = {
            let mut state = self.state();
            let before = state.blocked.filter(|blocked| blocked.kind == kind);
            let blocked = before.unwrap_or(Blocked { kind, since: Instant::now() });
            state.blocked = Some(blocked);
            (before.is_none(), blocked.since)
        };
        let waited = since.elapsed();
        if kind == ObstacleKind::FirstPod && waited < FIRST_POD_PATIENCE {
            if is_new {
                tracing::info!(ordinal = %self.config.ordinal, reason = %obstacle, "bootstrap waits");
            }
            return;
        }
        let due = patience(kind).is_some_and(|patience| waited >= patience);
        let hint = if due { self.override_hint(obstacle) } else { None };
        self.report_waiting(&format!("{obstacle}{}", hint.unwrap_or_default()));
    }

    /// What the command abandons, what to look at before, and the command to copy.
    fn override_hint(&self, obstacle: &FoundingObstacle) -> Option<String> {
        let (namespace, set) = self.config.home.split_once('/')?;
        let (abandoned, silent, order) = match obstacle {
            FoundingObstacle::FormerClaims { first, others } => {
                let all = || std::iter::once(first).chain(others);
                let silent = all().find(|unproven| unproven.answer == Unproven::Silent);
                let order = FoundingOrder::new(all().map(|unproven| &unproven.claim));
                (named(all()), silent.map(|unproven| unproven.claim.ordinal), order)
            }
            FoundingObstacle::NotFirst { unproven, .. } | FoundingObstacle::Recreated(unproven) => {
                (
                    format!("ordinal {unproven}, if it has any"),
                    Some(*unproven),
                    FoundingOrder::default(),
                )
            }
            FoundingObstacle::ClaimsUnknown { .. }
            | FoundingObstacle::MemberAnswers(_)
            | FoundingObstacle::Archived(_) => return None,
        };
        let look = silent.map(|ordinal: Ordinal| {
            format!(
                ". First find out why the pod is silent: kubectl describe -n {namespace} pod {set}-{ordinal}, \
                 and its claim"
            )
        });
        let command = format!(
            "{}. This ABANDONS the data of {abandoned}, and founds an empty cluster: kubectl exec -n \
             {namespace} {set}-{} -- kvctl cluster found --despite-volumes",
            look.unwrap_or_default(),
            self.config.ordinal
        );
        let by_hand = format!(" (by hand, in the data of the bootstrap record: `found: {order}`)");
        let fits = obstacle.to_string().len() + command.len() + by_hand.len() <= TEXT_BYTES_MAX;
        Some(if fits { command + &by_hand } else { command })
    }
}

fn kind(obstacle: &FoundingObstacle) -> ObstacleKind {
    match obstacle {
        FoundingObstacle::FormerClaims { first, others } => {
            let mut all = std::iter::once(first).chain(others);
            match all.any(|unproven| unproven.answer == Unproven::Silent) {
                true => ObstacleKind::Silence,
                false => ObstacleKind::Unprovable,
            }
        }
        FoundingObstacle::NotFirst { .. } => ObstacleKind::FirstPod,
        FoundingObstacle::Recreated(_) => ObstacleKind::Silence,
        // The Role is the remedy; a member, or a claim of one's own, is not passed by.
        FoundingObstacle::ClaimsUnknown { .. }
        | FoundingObstacle::MemberAnswers(_)
        | FoundingObstacle::Archived(_) => ObstacleKind::OtherRemedy,
    }
}

/// The time after which waiting is unlikely to help. `None`: the command is no remedy.
fn patience(kind: ObstacleKind) -> Option<Duration> {
    match kind {
        ObstacleKind::Unprovable => Some(UNPROVABLE_PATIENCE),
        ObstacleKind::Silence | ObstacleKind::FirstPod => Some(SILENCE_PATIENCE),
        ObstacleKind::OtherRemedy => None,
    }
}

#[cfg(test)]
impl Bootstrap {
    /// Lets the last obstacle be older.
    pub fn age_obstacle(&self, by: Duration) {
        let mut state = self.state();
        let blocked = state.blocked.as_mut().expect("an obstacle was reported");
        blocked.since = blocked.since.checked_sub(by).expect("a time after the machine's start");
    }
}
