//! `kvctl completion`: a script that completes commands at the shell's prompt.

use clap::CommandFactory;
use clap_complete::Shell;

use super::cli::Cli;

/// Prints a script that makes a shell complete kvctl's verbs and flags.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  source <(kvctl completion bash)")]
pub(crate) struct CompletionArgs {
    shell: Shell,
}

impl CompletionArgs {
    pub(crate) fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "kvctl", &mut script);
        script
    }
}
