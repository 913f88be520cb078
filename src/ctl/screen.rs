//! Where verbs that last write, answer by answer.

use std::{
    future::pending,
    io::{self, Write},
};

use super::{
    CtlError,
    cli::Format,
    print::{self, Answer, Style},
};

/// Standard output and standard error, and how answers look on them.
pub(crate) struct Screen<'a> {
    pub(crate) stdout: &'a mut dyn Write,
    pub(crate) stderr: &'a mut dyn Write,
    pub(crate) format: Format,
    pub(crate) style: Style,
}

impl Screen<'_> {
    pub(crate) fn print(&mut self, answer: &Answer) -> Result<(), CtlError> {
        let printed = print::render(answer, self.format, self.style)?;
        self.stderr.write_all(&printed.stderr)?;
        self.stdout.write_all(&printed.stdout)?;
        // Whoever reads a pipe of ours waits for each answer.
        Ok(self.stdout.flush()?)
    }

    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stdout, "{line}")?;
        self.stdout.flush()
    }

    pub(crate) fn complain(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stderr, "{line}")
    }
}

/// Waits for Ctrl-C.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process by itself.
        pending::<()>().await;
    }
}
