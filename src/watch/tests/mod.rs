//! Tests of the layer as a whole, on a state machine in memory, with its lanes as tasks.

mod properties;
mod rig;
mod scripts;
