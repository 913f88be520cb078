//! The replicated attributes of members, and their desired number.

use super::id::{MemberId, Ordinal};

/// The members that the StatefulSet asks for: `replicas` ordinals from `start` on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DesiredReplicas {
    /// The uid of the StatefulSet. Generations of different sets cannot be compared.
    pub set: String,
    /// `metadata.generation` of the set. It only grows, so a stale reading is recognized.
    pub generation: u64,
    pub start: u32,
    pub replicas: u32,
}

impl DesiredReplicas {
    /// The ordinals of the pods that the StatefulSet asks for.
    pub fn ordinals(&self) -> impl Iterator<Item = Ordinal> + use<> {
        (self.start..self.start.saturating_add(self.replicas)).map(Ordinal)
    }

    /// Whether the StatefulSet asks for a pod with this ordinal.
    pub fn includes(&self, ordinal: Ordinal) -> bool {
        ordinal.0 >= self.start && ordinal.0 - self.start < self.replicas
    }
}

/// A member's description of itself. Replicated state, not Raft metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberAttributes {
    pub member: MemberId,
    pub ordinal: Ordinal,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// Number of starts of its volume. Zero: unknown.
    pub boot: u64,
}
