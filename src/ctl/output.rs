//! Standard output and standard error, and the format of answers on them.

use std::{
    future::pending,
    io::{self, Write},
};

use super::{
    error::CtlError,
    print::{Answer, Format, ValueStyle},
};

pub struct Output<'a> {
    pub stdout: &'a mut dyn Write,
    pub stderr: &'a mut dyn Write,
    pub format: Format,
    pub style: ValueStyle,
}

impl Output<'_> {
    pub fn print(&mut self, answer: &dyn Answer) -> Result<(), CtlError> {
        let rendered = answer.render(self.format, self.style)?;
        self.stderr.write_all(&rendered.stderr)?;
        self.stdout.write_all(&rendered.stdout)?;
        // The reader of a pipe gets each answer at once.
        Ok(self.stdout.flush()?)
    }

    pub fn print_line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stdout, "{line}")?;
        self.stdout.flush()
    }

    pub fn print_error(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stderr, "{line}")
    }
}

/// Waits for Ctrl-C.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process.
        pending::<()>().await;
    }
}
