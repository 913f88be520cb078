//! The hello of a call: names sender and addressee. Checks whether a call is accepted.

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

/// A member's identity in its calls to peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub ordinal: Ordinal,
    pub boot: u64,
    pub home: String,
}

impl From<&Identity> for PeerIdentity {
    fn from(identity: &Identity) -> PeerIdentity {
        PeerIdentity {
            cluster: identity.cluster,
            member: identity.member,
            ordinal: identity.ordinal,
            boot: identity.boot,
            home: identity.home.clone(),
        }
    }
}

impl PeerIdentity {
    pub fn hello(&self, to: MemberId) -> peer::Hello {
        peer::Hello {
            cluster_id: self.cluster.0,
            from: self.member.0,
            from_ordinal: self.ordinal.0,
            to: to.0,
            boot: self.boot,
            home: self.home.clone(),
            address: String::new(),
        }
    }

    /// Accepts a call only from this cluster, and only for this incarnation.
    pub fn check(&self, hello: &peer::Hello) -> Result<(), HelloRejection> {
        if hello.cluster_id != self.cluster.0 {
            return Err(HelloRejection::Cluster {
                theirs: ClusterId(hello.cluster_id),
                ours: self.cluster,
            });
        }
        if hello.home != self.home {
            return Err(HelloRejection::Home {
                theirs: hello.home.clone(),
                ours: self.home.clone(),
            });
        }
        if hello.from == 0 {
            return Err(HelloRejection::Removed(MemberId(0)));
        }
        if hello.to != self.member.0 {
            return Err(HelloRejection::Incarnation {
                meant: MemberId(hello.to),
                ours: self.member,
            });
        }
        Ok(())
    }
}

/// The reason why a hello was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloRejection {
    #[error("the call has no hello")]
    Missing,
    #[error("the call is from cluster {theirs}, this is cluster {ours}")]
    Cluster { theirs: ClusterId, ours: ClusterId },
    #[error("the call is from {theirs:?}, this is {ours:?}")]
    Home { theirs: String, ours: String },
    #[error("the call is for member {meant}, this is member {ours}")]
    Incarnation { meant: MemberId, ours: MemberId },
    #[error("member {0} was removed")]
    Removed(MemberId),
    #[error(
        "member {member} started {boot} times, but {seen} times before: its volume was rolled back"
    )]
    RolledBack { member: MemberId, boot: u64, seen: u64 },
}

impl From<HelloRejection> for Status {
    fn from(rejection: HelloRejection) -> Status {
        tracing::warn!(reason = %rejection, "peer call rejected");
        Status::failed_precondition(rejection.to_string())
    }
}

/// The highest boot counter seen from each member.
#[derive(Debug, Default)]
pub struct BootCounters {
    seen: Mutex<BTreeMap<MemberId, u64>>,
}

impl BootCounters {
    /// Rejects a counter below the highest one seen. `published` is the counter that the member published to
    /// the cluster; unlike the counters seen, it survives a restart of this process.
    pub fn check(&self, hello: &peer::Hello, published: u64) -> Result<(), HelloRejection> {
        let member = MemberId(hello.from);
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(member).or_default();
        *seen = published.max(*seen);
        if hello.boot < *seen {
            return Err(HelloRejection::RolledBack { member, boot: hello.boot, seen: *seen });
        }
        *seen = hello.boot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> PeerIdentity {
        PeerIdentity {
            cluster: ClusterId(7),
            member: MemberId(2),
            ordinal: Ordinal(1),
            boot: 1,
            home: "default/kv".into(),
        }
    }

    #[test]
    fn calls_for_another_incarnation_of_this_ordinal_are_refused() {
        let other = PeerIdentity { member: MemberId(1), ..identity() };
        assert_eq!(identity().check(&other.hello(MemberId(2))), Ok(()));
        assert!(matches!(
            identity().check(&other.hello(MemberId(3))),
            Err(HelloRejection::Incarnation { .. })
        ));
        let foreign = PeerIdentity { cluster: ClusterId(8), ..other };
        assert!(matches!(
            identity().check(&foreign.hello(MemberId(2))),
            Err(HelloRejection::Cluster { .. })
        ));
    }

    #[test]
    fn a_volume_that_was_rolled_back_is_noticed() {
        let boots = BootCounters::default();
        let at = |boot| PeerIdentity { boot, ..identity() }.hello(MemberId(1));
        boots.check(&at(3), 0).unwrap();
        boots.check(&at(3), 3).unwrap();
        boots.check(&at(4), 3).unwrap();
        assert!(matches!(boots.check(&at(3), 3), Err(HelloRejection::RolledBack { seen: 4, .. })));
        assert!(matches!(boots.check(&at(5), 6), Err(HelloRejection::RolledBack { seen: 6, .. })));
    }
}
