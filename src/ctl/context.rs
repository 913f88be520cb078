//! What a command runs in: the process around it, and the cluster that it addresses. A leaf.

use std::{
    fmt,
    io::{BufRead, Write},
};

use crate::client::{Client, Endpoint, Timeouts};

/// The parts of the process that a command may use.
pub struct Environment<'a> {
    pub stdin: Box<dyn BufRead + Send>,
    pub stdout: &'a mut dyn Write,
    pub stderr: &'a mut dyn Write,
    /// Reads an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// `stderr` is a terminal.
    pub interactive: bool,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("interactive", &self.interactive)
            .finish_non_exhaustive()
    }
}

/// The endpoints to call, in this order, and the time limits of a call.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub endpoints: Vec<Endpoint>,
    pub timeouts: Timeouts,
}

impl ClientConfig {
    pub fn client(&self) -> Client {
        Client::new(self.endpoints.clone(), self.timeouts)
    }
}
