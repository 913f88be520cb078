//! Who calls whom, and why a call is refused.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tonic::Status;

use crate::{
    membership::Identity,
    proto::peer,
    types::{ClusterId, MemberId, Ordinal},
};

/// This member, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub ordinal: Ordinal,
    pub boot: u64,
    pub home: String,
}

impl From<&Identity> for Me {
    fn from(identity: &Identity) -> Me {
        Me {
            cluster: identity.cluster,
            member: identity.member,
            ordinal: identity.ordinal,
            boot: identity.boot,
            home: identity.home.clone(),
        }
    }
}

impl Me {
    pub(super) fn hello(&self, to: MemberId) -> peer::Hello {
        peer::Hello {
            cluster_id: self.cluster.0,
            from: self.member.0,
            from_ordinal: self.ordinal.0,
            to: to.0,
            boot: self.boot,
            home: self.home.clone(),
        }
    }

    /// Whether this is a call from our cluster to this very incarnation.
    pub(super) fn check(&self, hello: &peer::Hello) -> Result<(), Refused> {
        if hello.cluster_id != self.cluster.0 {
            return Err(Refused::Cluster {
                theirs: ClusterId(hello.cluster_id),
                ours: self.cluster,
            });
        }
        if hello.home != self.home {
            return Err(Refused::Home { theirs: hello.home.clone(), ours: self.home.clone() });
        }
        if hello.from == 0 {
            return Err(Refused::Dead(MemberId(0)));
        }
        if hello.to != self.member.0 {
            return Err(Refused::Incarnation { meant: MemberId(hello.to), ours: self.member });
        }
        Ok(())
    }
}

/// Why a hello was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the call does not say who makes it")]
    NoHello,
    #[error("the call is from cluster {theirs}, this is cluster {ours}")]
    Cluster { theirs: ClusterId, ours: ClusterId },
    #[error("the call is from {theirs:?}, this is {ours:?}")]
    Home { theirs: String, ours: String },
    #[error("the call is for member {meant}, this is member {ours}")]
    Incarnation { meant: MemberId, ours: MemberId },
    #[error("member {0} is no member any more")]
    Dead(MemberId),
    #[error(
        "member {member} started {boot} times, but {seen} times before: its volume was rolled back"
    )]
    RolledBack { member: MemberId, boot: u64, seen: u64 },
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        tracing::warn!(why = %refused, "a peer's call was refused");
        Status::failed_precondition(refused.to_string())
    }
}

/// The highest boot counter seen of each member.
#[derive(Debug, Default)]
pub(super) struct Boots {
    seen: Mutex<BTreeMap<MemberId, u64>>,
}

impl Boots {
    /// `told` is what the cluster was told by the member itself: known after a restart, too.
    pub(super) fn check(&self, hello: &peer::Hello, told: u64) -> Result<(), Refused> {
        let member = MemberId(hello.from);
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(member).or_default();
        *seen = told.max(*seen);
        if hello.boot < *seen {
            return Err(Refused::RolledBack { member, boot: hello.boot, seen: *seen });
        }
        *seen = hello.boot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Me {
        Me {
            cluster: ClusterId(7),
            member: MemberId(2),
            ordinal: Ordinal(1),
            boot: 1,
            home: "default/kv".into(),
        }
    }

    #[test]
    fn calls_for_another_life_of_this_place_are_refused() {
        let other = Me { member: MemberId(1), ..me() };
        assert_eq!(me().check(&other.hello(MemberId(2))), Ok(()));
        assert!(matches!(me().check(&other.hello(MemberId(3))), Err(Refused::Incarnation { .. })));
        let foreign = Me { cluster: ClusterId(8), ..other };
        assert!(matches!(me().check(&foreign.hello(MemberId(2))), Err(Refused::Cluster { .. })));
    }

    #[test]
    fn a_volume_that_was_rolled_back_is_noticed() {
        let boots = Boots::default();
        let at = |boot| Me { boot, ..me() }.hello(MemberId(1));
        boots.check(&at(3), 0).unwrap();
        boots.check(&at(3), 3).unwrap();
        boots.check(&at(4), 3).unwrap();
        assert!(matches!(boots.check(&at(3), 3), Err(Refused::RolledBack { seen: 4, .. })));
        assert!(matches!(boots.check(&at(5), 6), Err(Refused::RolledBack { seen: 6, .. })));
    }
}
