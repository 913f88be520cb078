//! `kvctl watch`: prints the events of keys.

mod answer;
mod args;
mod command;
mod follow;
mod line;

pub use self::{
    args::{WatchArgs, WatchSource},
    follow::follow,
};
