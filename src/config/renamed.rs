//! Environment variables of flags that were renamed: the old one holds where the new one is not set.
//! (The old names of the flags themselves are hidden aliases, at each flag.)

use clap::{Arg, Command};

/// The variable of a flag today, and the one before.
const RENAMED: [(&str, &str); 8] = [
    ("KVD_ADVERTISE_CLIENT_URLS", "KVD_ADVERTISE_CLIENT"),
    ("KVD_BOOTSTRAP_CONFIGMAP", "KVD_CLAIM"),
    ("KVD_HEARTBEAT_INTERVAL", "KVD_HEARTBEAT"),
    ("KVD_LISTEN_CLIENT_URLS", "KVD_LISTEN_CLIENT"),
    ("KVD_LISTEN_PEER_URLS", "KVD_LISTEN_PEER"),
    ("KVD_QUOTA_BACKEND_BYTES", "KVD_QUOTA_BYTES"),
    ("KVD_TERMINATION_GRACE_PERIOD", "KVD_GRACE"),
    ("KVD_WATCH_PROGRESS_NOTIFY_INTERVAL", "KVD_WATCH_PROGRESS"),
];

/// Lets each flag of each subcommand read its old variable where only that is set. Warns about an old
/// variable without effect: an overlay may set it beside manifests that set the new one.
pub fn with_renamed_variables(command: Command) -> Command {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    for (new, old) in RENAMED.into_iter().filter(|(new, old)| is_set(new) && is_set(old)) {
        eprintln!("kvd: {old} has no effect, since {new} is set, too: {old} is its old name");
    }
    read_old_variables(command, &is_set)
}

fn read_old_variables(command: Command, is_set: &dyn Fn(&str) -> bool) -> Command {
    let command = command.mut_args(|arg| {
        let old = old_variable(&arg, is_set);
        match old {
            Some(old) => arg.env(old),
            None => arg,
        }
    });
    command.mut_subcommands(|subcommand| read_old_variables(subcommand, is_set))
}

fn old_variable(arg: &Arg, is_set: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let new = arg.get_env()?;
    let (new, old) = RENAMED.into_iter().find(|(name, _)| new == *name)?;
    (is_set(old) && !is_set(new)).then_some(old)
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::config::Serve;

    fn variables(set: &[&str]) -> Vec<String> {
        let command = Command::new("kvd").subcommand(Serve::augment_args(Command::new("serve")));
        let command = read_old_variables(command, &|name| set.contains(&name));
        let serve = command.find_subcommand("serve").unwrap();
        let names = serve.get_arguments().filter_map(Arg::get_env);
        names.map(|name| name.to_str().unwrap().to_owned()).collect()
    }

    /// A build without Kubernetes lacks the flags of Kubernetes.
    fn renamed() -> impl Iterator<Item = (&'static str, &'static str)> {
        let is_there = |new: &str| cfg!(feature = "k8s") || new != "KVD_BOOTSTRAP_CONFIGMAP";
        RENAMED.into_iter().filter(move |(new, _)| is_there(new))
    }

    #[test]
    fn every_renamed_variable_is_that_of_a_flag() {
        let all = variables(&[]);
        for (new, old) in renamed() {
            assert!(all.iter().any(|name| name == new), "{new}");
            assert!(!all.iter().any(|name| name == old), "{old}");
        }
    }

    #[test]
    fn an_old_variable_holds_where_the_new_one_is_not_set() {
        for (new, old) in renamed() {
            let has = |set: &[&str], name: &str| variables(set).iter().any(|n| n == name);
            assert!(has(&[old], old) && !has(&[old], new), "{old}");
            assert!(has(&[old, new], new) && !has(&[old, new], old), "{new}");
            assert!(has(&[new], new), "{new}");
        }
    }
}
