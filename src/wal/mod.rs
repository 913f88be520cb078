//! The write-ahead log: entries, vote, commit mark, truncations and purges of one Raft member.
