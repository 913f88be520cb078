//! `kvctl txn`: a transaction, read from standard input.

use std::io::{self, BufRead, Write};

use super::{error::CtlError, txn_grammar};
use crate::proto::etcdserverpb::TxnRequest;

/// Executes requests atomically, on a condition.
///
/// Standard input has three blocks, each ended by an empty line: compares; requests that execute if
/// all compares succeed; requests that execute otherwise.
///
/// A compare is TARGET("key") OPERATOR "value": the target is value, version, create, mod or lease,
/// the operator =, !=, > or <. A request is a get, put or del with its flags.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  printf 'version(\"lock\") = \"0\"\\n\\nput lock me\\n\\nget lock\\n\\n' | kvctl txn"
)]
pub struct TxnArgs {
    /// Prompt for each block
    #[arg(short, long)]
    interactive: bool,
}

impl TxnArgs {
    pub fn request(
        &self,
        stdin: &mut dyn BufRead,
        prompts: &mut dyn Write,
    ) -> Result<TxnRequest, CtlError> {
        let mut prompt = |block: &str| -> io::Result<()> {
            if self.interactive {
                writeln!(prompts, "{block}:")?;
                prompts.flush()?;
            }
            Ok(())
        };
        prompt("compares")?;
        let compare = block(stdin, txn_grammar::compare)?;
        prompt("success requests (get, put, del)")?;
        let success = block(stdin, txn_grammar::operation)?;
        prompt("failure requests (get, put, del)")?;
        let failure = block(stdin, txn_grammar::operation)?;
        Ok(TxnRequest { compare, success, failure })
    }
}

/// The lines up to an empty one. Input that ends earlier is refused: a part of a transaction is
/// another transaction.
fn block<T>(
    stdin: &mut dyn BufRead,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, CtlError> {
    let mut parsed = Vec::new();
    loop {
        let mut line = String::new();
        stdin.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(CtlError::InvalidInput(
                "the input ends within the transaction: it has three blocks (compares, success \
                 requests, failure requests), and an empty line ends each, also the last"
                    .into(),
            ));
        }
        match line.trim() {
            "" => return Ok(parsed),
            line => parsed.push(parse(line).map_err(CtlError::InvalidInput)?),
        }
    }
}
