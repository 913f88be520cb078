//! The command line of a store with the etcd v3 API.

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use ordinal::ctl::{self, Environment};

fn main() -> ExitCode {
    let mut environment = Environment {
        stdin: Box::new(io::BufReader::new(io::stdin())),
        stdout: &mut io::stdout().lock(),
        stderr: &mut io::stderr().lock(),
        variable: &|name| env::var(name).ok(),
        interactive: io::stderr().is_terminal(),
    };
    ExitCode::from(ctl::run(env::args_os(), &mut environment))
}
