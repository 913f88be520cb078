//! The length and the rate of a run.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub length: RunLength,
    /// Requests per second. `None`: each client sends its next request after the response.
    pub rate: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
pub enum RunLength {
    Requests(u64),
    Time(Duration),
}

#[derive(Debug, Clone, Copy)]
pub struct Elapsed {
    pub time: Duration,
    /// Ended by Ctrl-C.
    pub interrupted: bool,
}
