//! Consensus: the only importer of openraft.
