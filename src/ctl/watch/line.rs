//! The lines of `kvctl watch -i`.

use clap::Parser;

use super::args::{WatchArgs, WatchSpec};
use crate::{
    client::Keys,
    ctl::{args, error::CtlError, txn_grammar},
};

#[derive(Debug, Clone)]
pub enum Line {
    Watch(WatchSpec),
    Progress,
}

/// `watch [FLAGS] KEY [RANGE_END] [-- COMMAND…]`, as on the command line.
#[derive(Debug, Parser)]
#[command(name = "watch", no_binary_name = true, disable_help_flag = true)]
struct WatchLine {
    #[command(flatten)]
    args: WatchArgs,
}

/// The error is a text for the user.
pub fn parse(line: &str, env_keys: Option<&Keys>) -> Result<Line, String> {
    let invalid = |reason: &str| format!("Invalid command {line} ({reason})");
    let words = txn_grammar::words(line).map_err(|reason| invalid(&reason))?;
    let Some((verb, rest)) = words.split_first() else {
        return Err(format!("Invalid command: {line} (watch and progress supported)"));
    };
    match verb.to_str() {
        Some("progress") => return Ok(Line::Progress),
        Some("watch") => {}
        _ => return Err(invalid("only support watch and progress")),
    }
    if rest.is_empty() && env_keys.is_none() {
        return Err(invalid("command type or key is not provided"));
    }
    let parsed: Result<WatchLine, _> = args::parse_as(rest.to_vec());
    let watch = parsed.map_err(|error| invalid(&args::first_line(&error)))?.args;
    match watch.spec(env_keys) {
        Ok(spec) => Ok(Line::Watch(spec)),
        Err(CtlError::BadArguments(reason)) => Err(invalid(&reason)),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        parse(line, None).unwrap_err()
    }

    #[test]
    fn a_line_is_a_watch_as_on_the_command_line() {
        let line = parse("watch 'a b' --prefix=true --rev 4 -- echo \"x  y\"", None).unwrap();
        let Line::Watch(spec) = line else { panic!("{line:?}") };
        assert_eq!(spec.command, ["echo", "x  y"]);
        assert!(matches!(parse(" progress ", None), Ok(Line::Progress)));
    }

    #[test]
    fn an_invalid_line_is_an_error_with_its_reason() {
        assert_eq!(error(""), "Invalid command:  (watch and progress supported)");
        assert_eq!(error("get a"), "Invalid command get a (only support watch and progress)");
        assert_eq!(error("watch"), "Invalid command watch (command type or key is not provided)");
        assert_eq!(
            error("watch \"a"),
            "Invalid command watch \"a (a quote is not closed, or an escape in it is none)"
        );
        assert_eq!(
            error("watch a b --prefix"),
            "Invalid command watch a b --prefix (`range_end` and `--prefix` are mutually exclusive)"
        );
        assert!(error("watch a --bogus").contains("unexpected argument '--bogus'"));
        assert!(error("watch a --").contains("found separator --, but no commands"));
    }

    #[test]
    fn a_line_without_a_key_watches_the_keys_of_the_environment() {
        let keys = Keys::one("a");
        assert!(parse("watch", Some(&keys)).is_ok());
        assert!(parse("watch b", Some(&keys)).unwrap_err().contains("conflicting environment key"));
    }
}
