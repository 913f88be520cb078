//! `kvctl man`: manual pages.

use std::path::PathBuf;

use clap::CommandFactory;

use super::{CtlError, cli::Cli};

/// Prints the manual page of kvctl, or writes one for each verb.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl man | man -l -")]
pub(crate) struct ManArgs {
    /// Write the pages of kvctl and of all its verbs into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ManArgs {
    /// What to print.
    pub(crate) fn pages(&self) -> Result<Vec<u8>, CtlError> {
        let mut page = Vec::new();
        match &self.dir {
            None => clap_mangen::Man::new(Cli::command()).render(&mut page)?,
            Some(dir) => clap_mangen::generate_to(Cli::command(), dir).map_err(|error| {
                CtlError::Malformed(format!(
                    "cannot write manual pages into {}: {error}",
                    dir.display()
                ))
            })?,
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        ManArgs { dir: Some(dir.path().into()) }.pages().unwrap();
        for name in ["kvctl.1", "kvctl-lease-keep-alive.1", "kvctl-bench-watch.1"] {
            assert!(dir.path().join(name).is_file(), "{name}");
        }
        let page = ManArgs { dir: None }.pages().unwrap();
        assert!(String::from_utf8(page).unwrap().contains(".SH SYNOPSIS"));
    }
}
