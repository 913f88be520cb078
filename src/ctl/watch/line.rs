//! The lines of `kvctl watch -i`.

use clap::Parser;

use super::{CtlError, Plan, WatchArgs};
use crate::{
    client::Keys,
    ctl::{cli, txn_grammar},
};

/// What a line asks for.
#[derive(Debug, Clone)]
pub(super) enum Line {
    Watch(Plan),
    Progress,
}

/// `watch [FLAGS] KEY [RANGE_END] [-- COMMAND…]`, as on the command line.
#[derive(Debug, Parser)]
#[command(name = "watch", no_binary_name = true, disable_help_flag = true)]
struct WatchLine {
    #[command(flatten)]
    args: WatchArgs,
}

/// Why a line asks for nothing, for people.
pub(super) fn parse(line: &str, from_env: Option<&Keys>) -> Result<Line, String> {
    let invalid = |why: &str| format!("Invalid command {line} ({why})");
    let words = txn_grammar::words(line).map_err(|why| invalid(&why))?;
    let Some((verb, rest)) = words.split_first() else {
        return Err(format!("Invalid command: {line} (watch and progress supported)"));
    };
    match verb.to_str() {
        Some("progress") => return Ok(Line::Progress),
        Some("watch") => {}
        _ => return Err(invalid("only support watch and progress")),
    }
    if rest.is_empty() && from_env.is_none() {
        return Err(invalid("command type or key is not provided"));
    }
    let parsed: Result<WatchLine, _> = cli::parse_as(rest.to_vec());
    let args = parsed.map_err(|error| invalid(&cli::first_line(&error)))?.args;
    match args.plan(from_env) {
        Ok(plan) => Ok(Line::Watch(plan)),
        Err(CtlError::BadArguments(why)) => Err(invalid(&why)),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(line: &str) -> String {
        parse(line, None).unwrap_err()
    }

    #[test]
    fn a_line_is_a_watch_as_on_the_command_line() {
        let line = parse("watch 'a b' --prefix=true --rev 4 -- echo \"x  y\"", None).unwrap();
        let Line::Watch(plan) = line else { panic!("{line:?}") };
        assert_eq!(plan.command, ["echo", "x  y"]);
        assert!(matches!(parse(" progress ", None), Ok(Line::Progress)));
    }

    #[test]
    fn a_wrong_line_says_why_and_ends_nothing() {
        assert_eq!(why(""), "Invalid command:  (watch and progress supported)");
        assert_eq!(why("get a"), "Invalid command get a (only support watch and progress)");
        assert_eq!(why("watch"), "Invalid command watch (command type or key is not provided)");
        assert_eq!(
            why("watch \"a"),
            "Invalid command watch \"a (a quote is not closed, or an escape in it is none)"
        );
        assert_eq!(
            why("watch a b --prefix"),
            "Invalid command watch a b --prefix (`range_end` and `--prefix` are mutually exclusive)"
        );
        assert!(why("watch a --bogus").contains("unexpected argument '--bogus'"));
        assert!(why("watch a --").contains("found separator --, but no commands"));
    }

    #[test]
    fn a_line_without_a_key_watches_what_the_environment_names() {
        let keys = Keys::one("a");
        assert!(parse("watch", Some(&keys)).is_ok());
        assert!(parse("watch b", Some(&keys)).unwrap_err().contains("conflicting environment key"));
    }
}
