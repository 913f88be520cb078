//! Peers that are none, or talk nonsense.
