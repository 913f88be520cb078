//! `kvctl`: commands, flags and output.
