//! The decision table of a graceful shutdown: a pure function from an observation to an action.
//!
//! | phase | observation | action |
//! |---|---|---|
//! | terminating | no replicas, or the StatefulSet is gone | stop: hibernate |
//! | | the permission to read the StatefulSet is revoked | stop: revoked |
//! | | this ordinal is excluded | leave |
//! | | this ordinal is included, or no answer | restart |
//! | leaving, restarting | no replicas, or the StatefulSet is gone | stop: hibernate |
//! | | the permission to read the StatefulSet is revoked | stop: revoked |
//! | leaving | this ordinal is included again | restart |
//! | | no other member needs this one | stop: left |
//! | | the cluster has removed this member | stop: removed |
//! | | this member does not vote, and the quorum is lost | stop: no quorum |
//! | restarting | permitted, and this member leads | hand over |
//! | | permitted | stop: permitted |
//! | | the quorum is lost, in two observations in a row | stop: no quorum |
//! | drained | removed | mark the volume as removed |
//! | | this member votes again | restart |
//! | | not removed in time | finish |
//!
//! Any other observation: poll again.

/// Whether the member will return to its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownKind {
    /// All members stop, and return together.
    Hibernate,
    /// This member returns.
    Restart,
    /// This member does not return.
    Leave,
}

/// The StatefulSet's request for this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Request {
    /// The orchestrator did not answer.
    #[default]
    Unknown,
    /// No pods at all.
    Hibernate,
    /// The orchestrator refuses a request that it granted before: it is deleting the manifests.
    Revoked,
    Included,
    Excluded,
}

/// The facts that one decision depends on, by phase. Facts that cannot matter are left at their default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// Right after the signal.
    Terminating(Request),
    Leaving(Leaving),
    Restarting(Restarting),
    /// After a leaving member has served its last request.
    Drained(Drained),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leaving {
    pub request: Request,
    /// The committed membership does not need this member, and the target does not include it.
    pub has_left: bool,
    /// Another member answered that this one was removed.
    pub is_removed: bool,
    pub votes: bool,
    pub quorum_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restarting {
    pub request: Request,
    /// The leader permits this member to stop.
    pub is_permitted: bool,
    pub leads: bool,
    pub quorum_lost: bool,
    /// The same in the previous observation. After a pause of this process the first one is stale.
    pub quorum_was_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    pub is_removed: bool,
    pub votes: bool,
    pub timed_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Enters the phase `Leaving`.
    Leave,
    /// Enters the phase `Restarting`.
    Restart,
    HandOver,
    /// Marks the volume as a removed member's.
    MarkRemoved,
    /// Ends the removal: the next start of this volume finds out.
    Finish,
    Stop(StopReason),
    PollAgain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Hibernating,
    Revoked,
    Left,
    Removed,
    Permitted,
    NoQuorum,
}

impl StopReason {
    pub fn kind(self) -> ShutdownKind {
        match self {
            StopReason::Hibernating | StopReason::Revoked => ShutdownKind::Hibernate,
            StopReason::Left | StopReason::Removed => ShutdownKind::Leave,
            StopReason::Permitted | StopReason::NoQuorum => ShutdownKind::Restart,
        }
    }
}

pub fn next(observation: Observation) -> Action {
    match observation {
        Observation::Terminating(request) => match request {
            Request::Hibernate => Action::Stop(StopReason::Hibernating),
            Request::Revoked => Action::Stop(StopReason::Revoked),
            Request::Excluded => Action::Leave,
            Request::Included | Request::Unknown => Action::Restart,
        },
        Observation::Leaving(leaving) => next_leaving(leaving),
        Observation::Restarting(restarting) => next_restarting(restarting),
        Observation::Drained(drained) => match drained {
            Drained { is_removed: true, .. } => Action::MarkRemoved,
            Drained { votes: true, .. } => Action::Restart,
            Drained { timed_out: true, .. } => Action::Finish,
            _ => Action::PollAgain,
        },
    }
}

fn next_leaving(leaving: Leaving) -> Action {
    match leaving {
        Leaving { request: Request::Hibernate, .. } => Action::Stop(StopReason::Hibernating),
        Leaving { request: Request::Revoked, .. } => Action::Stop(StopReason::Revoked),
        Leaving { request: Request::Included, .. } => Action::Restart,
        Leaving { has_left: true, .. } => Action::Stop(StopReason::Left),
        Leaving { is_removed: true, .. } => Action::Stop(StopReason::Removed),
        Leaving { votes: false, quorum_lost: true, .. } => Action::Stop(StopReason::NoQuorum),
        _ => Action::PollAgain,
    }
}

fn next_restarting(restarting: Restarting) -> Action {
    match restarting {
        Restarting { request: Request::Hibernate, .. } => Action::Stop(StopReason::Hibernating),
        Restarting { request: Request::Revoked, .. } => Action::Stop(StopReason::Revoked),
        Restarting { is_permitted: true, leads: true, .. } => Action::HandOver,
        Restarting { is_permitted: true, .. } => Action::Stop(StopReason::Permitted),
        Restarting { quorum_lost: true, quorum_was_lost: true, .. } => {
            Action::Stop(StopReason::NoQuorum)
        }
        _ => Action::PollAgain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(table: &[(Observation, Action)]) {
        for (observation, action) in table {
            assert_eq!(next(*observation), *action, "{observation:?}");
        }
    }

    #[test]
    fn the_signal_is_followed_by_the_phase_that_the_statefulset_asks_for() {
        check(&[
            (Observation::Terminating(Request::Hibernate), Action::Stop(StopReason::Hibernating)),
            (Observation::Terminating(Request::Revoked), Action::Stop(StopReason::Revoked)),
            (Observation::Terminating(Request::Excluded), Action::Leave),
            (Observation::Terminating(Request::Included), Action::Restart),
            (Observation::Terminating(Request::Unknown), Action::Restart),
        ]);
    }

    #[test]
    fn a_leaving_member_stops_once_it_has_left_or_was_removed() {
        let excluded = Leaving { request: Request::Excluded, votes: true, ..Leaving::default() };
        let unknown = Leaving { request: Request::Unknown, ..excluded };
        let left = Leaving { has_left: true, votes: false, ..excluded };
        check(&[
            (Observation::Leaving(excluded), Action::PollAgain),
            (Observation::Leaving(unknown), Action::PollAgain),
            (Observation::Leaving(left), Action::Stop(StopReason::Left)),
            (
                Observation::Leaving(Leaving { is_removed: true, ..excluded }),
                Action::Stop(StopReason::Removed),
            ),
            // The last answer of the StatefulSet decides.
            (Observation::Leaving(Leaving { request: Request::Included, ..left }), Action::Restart),
            (
                Observation::Leaving(Leaving { request: Request::Hibernate, ..left }),
                Action::Stop(StopReason::Hibernating),
            ),
            (
                Observation::Leaving(Leaving { request: Request::Revoked, ..excluded }),
                Action::Stop(StopReason::Revoked),
            ),
            // Without an answer the previous request holds.
            (
                Observation::Leaving(Leaving { request: Request::Unknown, ..left }),
                Action::Stop(StopReason::Left),
            ),
        ]);
    }

    #[test]
    fn a_leaving_voter_stays_although_the_quorum_is_lost() {
        let voter = Leaving {
            request: Request::Excluded,
            votes: true,
            quorum_lost: true,
            ..Leaving::default()
        };
        let learner = Leaving { votes: false, ..voter };
        check(&[
            (Observation::Leaving(voter), Action::PollAgain),
            (Observation::Leaving(learner), Action::Stop(StopReason::NoQuorum)),
        ]);
    }

    #[test]
    fn a_restarting_member_stops_with_a_permit_or_without_a_quorum() {
        let waiting = Restarting::default();
        let permitted = Restarting { is_permitted: true, ..waiting };
        let lost = Restarting { quorum_lost: true, ..waiting };
        check(&[
            (Observation::Restarting(waiting), Action::PollAgain),
            (Observation::Restarting(Restarting { leads: true, ..waiting }), Action::PollAgain),
            (Observation::Restarting(permitted), Action::Stop(StopReason::Permitted)),
            (Observation::Restarting(Restarting { leads: true, ..permitted }), Action::HandOver),
            (Observation::Restarting(lost), Action::PollAgain),
            (
                Observation::Restarting(Restarting { quorum_was_lost: true, ..waiting }),
                Action::PollAgain,
            ),
            (
                Observation::Restarting(Restarting { quorum_was_lost: true, ..lost }),
                Action::Stop(StopReason::NoQuorum),
            ),
        ]);
    }

    #[test]
    fn a_restarting_member_stops_at_once_when_the_set_is_deleted() {
        for permitted in [false, true] {
            let waiting = Restarting { is_permitted: permitted, leads: true, ..Default::default() };
            let with = |request| Observation::Restarting(Restarting { request, ..waiting });
            let waits = if permitted { Action::HandOver } else { Action::PollAgain };
            check(&[
                (with(Request::Hibernate), Action::Stop(StopReason::Hibernating)),
                (with(Request::Revoked), Action::Stop(StopReason::Revoked)),
                (with(Request::Unknown), waits),
                (with(Request::Included), waits),
                // The others remove a member that has stopped.
                (with(Request::Excluded), waits),
            ]);
        }
    }

    #[test]
    fn a_drained_member_waits_for_its_removal() {
        let waiting = Drained::default();
        let late = Drained { timed_out: true, ..waiting };
        check(&[
            (Observation::Drained(waiting), Action::PollAgain),
            (Observation::Drained(late), Action::Finish),
            (Observation::Drained(Drained { votes: true, ..late }), Action::Restart),
            (
                Observation::Drained(Drained { is_removed: true, votes: true, ..late }),
                Action::MarkRemoved,
            ),
        ]);
    }

    #[test]
    fn only_a_member_that_has_left_or_was_removed_does_not_return() {
        for (reason, kind) in [
            (StopReason::Hibernating, ShutdownKind::Hibernate),
            (StopReason::Revoked, ShutdownKind::Hibernate),
            (StopReason::Left, ShutdownKind::Leave),
            (StopReason::Removed, ShutdownKind::Leave),
            (StopReason::Permitted, ShutdownKind::Restart),
            (StopReason::NoQuorum, ShutdownKind::Restart),
        ] {
            assert_eq!(reason.kind(), kind);
        }
    }
}
