//! Tests of the layer as a whole, on [`MemoryStorage`].
//!
//! [`MemoryStorage`]: super::MemoryStorage

mod concurrent;
mod examples;
mod grammar;
mod model;
mod properties;
mod recovery;
mod scale;
mod scripts;
