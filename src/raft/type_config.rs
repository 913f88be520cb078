//! openraft's type configuration, and the payloads that travel through openraft.

use openraft::impls::leader_id_std::LeaderId;

use crate::types::{CommandError, MemberId, Ordinal, Reply};

openraft::declare_raft_types!(
    /// Standard Raft (one leader per term) with our ids. A node's only metadata is its ordinal.
    pub Types:
        D = EncodedCommands,
        R = EntryReplies,
        NodeId = MemberId,
        Node = Ordinal,
        Term = u64,
        LeaderId = LeaderId<u64, MemberId>,
);

/// An encoded `CommandBatch`: the payload of a normal entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedCommands(pub bytes::Bytes);

impl std::fmt::Display for EncodedCommands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The replies to one applied entry, one per command.
#[derive(Debug, Default)]
pub struct EntryReplies(pub Vec<Result<Reply, CommandError>>);
