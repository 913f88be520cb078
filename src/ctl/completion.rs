//! `kvctl completion`: shell completion.

use clap::Command;
use clap_complete::Shell;

/// Prints a script with which a shell completes verbs and flags.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  source <(kvctl completion bash)")]
pub struct CompletionArgs {
    shell: Shell,
}

impl CompletionArgs {
    pub fn script(&self, mut kvctl: Command) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut kvctl, "kvctl", &mut script);
        script
    }
}
