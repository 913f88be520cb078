//! A member that was removed, or has an older copy of its volume, or is fenced by the bootstrap record, must
//! not answer in its name again.

use anyhow::Context as _;

use super::context::MemberContext;
use crate::membership::{
    Fenced, Identity, LocalIndexes, MemberStatus, STARTUP_STATUS_TIMEOUT, ask_member_status,
    last_leader,
};

const REMOVED: &str = "this member was removed from its cluster, or its volume is an older copy: started \
    again, it sets its data aside (in `archive`) and joins as a new member";

/// Asks the other members whether this volume holds everything that it acknowledged. Raft would rely on
/// entries that a volume lost when it was rolled back.
pub async fn check_volume(
    context: &MemberContext,
    identity: &Identity,
    last_index: u64,
) -> anyhow::Result<()> {
    let indexes = LocalIndexes { last_index, membership_index: 0 };
    let mut others = context.config.known_ordinals();
    // Only the leader knows about some removals, and it may have any ordinal.
    if let Some(pod) = &context.config.pod {
        others.extend(last_leader(&*pod.orchestrator).await);
    }
    let status =
        ask_member_status(&context.peers, identity, indexes, others, STARTUP_STATUS_TIMEOUT).await;
    if status.is_dead() {
        return Err(mark_removed(context, status).await);
    }
    Ok(())
}

/// Records on the volume that its member is removed. Returns the error to end the process with.
pub async fn mark_removed(context: &MemberContext, status: MemberStatus) -> anyhow::Error {
    tracing::error!(?status, "{REMOVED}");
    let bootstrap = context.bootstrap.clone();
    let written = async {
        let written = context.lanes.run("identity", move || bootstrap.mark_removed()).await?;
        anyhow::Ok(written.context("writing the identity panicked")??)
    };
    match written.await {
        Ok(_) => anyhow::anyhow!(REMOVED),
        Err(error) => error,
    }
}

/// Returns the error to end the process with: the connections of clients end with it. The volume stays as it
/// is, because the record may be wrong.
pub fn fence(fenced: Fenced) -> anyhow::Error {
    tracing::error!("{fenced}");
    fenced.into()
}
