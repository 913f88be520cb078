//! Parsing of arguments as etcdctl parses them, with clap.

use std::ffi::OsString;

use clap::{ArgAction, Command, Parser, error::ErrorKind};

/// Parses arguments as those of `P`.
pub fn parse_as<P: Parser>(args: Vec<OsString>) -> Result<P, clap::Error> {
    let mut command = P::command();
    let separated = args.last().is_some_and(|last| last == "--");
    let parsed = P::try_parse_from(normalize_switches(args, &switches(&command)))?;
    if separated {
        let text = "bad number of arguments (found separator --, but no commands)";
        return Err(command.error(ErrorKind::WrongNumberOfValues, text));
    }
    Ok(parsed)
}

/// The error without clap's usage and tips.
pub fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").into()
}

/// etcdctl accepts `--prefix=true` and `--prefix=false`, and scripts use them; clap's switches take no
/// value. The former becomes the switch alone, the latter is dropped.
fn normalize_switches(
    args: impl IntoIterator<Item = OsString>,
    switches: &[String],
) -> impl Iterator<Item = OsString> {
    let mut only_values = false;
    args.into_iter().filter_map(move |arg| {
        only_values |= arg == "--";
        let assigned = arg.to_str().and_then(|arg| arg.split_once('='));
        let Some((switch, value)) = assigned.filter(|_| !only_values) else { return Some(arg) };
        if !switches.iter().any(|s| s == switch) {
            return Some(arg);
        }
        match value {
            "true" | "TRUE" | "True" | "t" | "T" | "1" => Some(switch.into()),
            "false" | "FALSE" | "False" | "f" | "F" | "0" => None,
            _ => Some(arg),
        }
    })
}

/// Every `--flag` without a value.
fn switches(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
    let own = own.filter_map(|arg| arg.get_long()).map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(switches)).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Get {
        #[arg(long)]
        prefix: bool,
        #[arg(long)]
        keys_only: bool,
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn switches_may_be_assigned_as_etcdctl_allows() {
        let line = "get --prefix=true --keys-only=false --limit=1 -- --prefix=true";
        let normalized: Vec<_> =
            normalize_switches(words(line), &switches(&Get::command())).collect();
        assert_eq!(normalized, words("get --prefix --limit=1 -- --prefix=true"));
    }
}
