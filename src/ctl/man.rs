//! `kvctl man`: manual pages.

use std::path::PathBuf;

use clap::Command;

use super::error::CtlError;

/// Prints the manual page of kvctl, or writes the pages of all verbs.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl man | man -l -")]
pub struct ManArgs {
    /// Directory for the pages of kvctl and all its verbs
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ManArgs {
    /// The text to print.
    pub fn pages(&self, kvctl: Command) -> Result<Vec<u8>, CtlError> {
        let mut page = Vec::new();
        match &self.dir {
            None => clap_mangen::Man::new(kvctl).render(&mut page)?,
            Some(dir) => clap_mangen::generate_to(kvctl, dir).map_err(|error| {
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
        let kvctl = || Command::new("kvctl").subcommand(Command::new("keep-alive"));
        let dir = tempfile::tempdir().unwrap();
        ManArgs { dir: Some(dir.path().into()) }.pages(kvctl()).unwrap();
        for name in ["kvctl.1", "kvctl-keep-alive.1"] {
            assert!(dir.path().join(name).is_file(), "{name}");
        }
        let page = ManArgs { dir: None }.pages(kvctl()).unwrap();
        assert!(String::from_utf8(page).unwrap().contains(".SH SYNOPSIS"));
    }
}
