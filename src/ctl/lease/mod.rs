//! `kvctl lease`: leases, which delete their keys when they end.

mod answer;

use clap::Subcommand;
use tonic::Code;

use self::answer::{Revoked, TimeToLive};
use super::{
    error::{CtlError, exit},
    keys,
    output::Output,
    print::{Answer, Format},
};
use crate::{
    client::{Client, LeaseEnd},
    proto::etcdserverpb::LeaseGrantRequest,
};

/// Grants, renews and revokes leases. Keys that are put with a lease are deleted when it ends.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct LeaseArgs {
    #[command(subcommand)]
    verb: LeaseVerb,
}

#[derive(Debug, Clone, Subcommand)]
enum LeaseVerb {
    /// Grants a lease, and prints its id.
    #[command(after_help = "Example:\n  kvctl lease grant 60")]
    Grant {
        /// Time to live without renewal, in seconds; the member may grant more
        #[arg(value_name = "TTL", allow_negative_numbers = true)]
        ttl: String,
        /// Its id (hexadecimal); 0: the member chooses
        #[arg(long, default_value = "0")]
        id: String,
    },
    /// Revokes a lease, and deletes its keys.
    #[command(after_help = "Example:\n  kvctl lease revoke 694d77aa9e38260f")]
    Revoke {
        /// Its id (hexadecimal), as grant prints it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Prints the remaining time of a lease.
    #[command(after_help = "Example:\n  kvctl lease timetolive 694d77aa9e38260f --keys")]
    Timetolive {
        /// Its id (hexadecimal), as grant prints it
        #[arg(value_name = "ID")]
        id: String,
        /// Also print the attached keys
        #[arg(long)]
        keys: bool,
    },
    /// Lists all leases.
    #[command(after_help = "Example:\n  kvctl lease list")]
    List,
    /// Renews a lease until Ctrl-C, or until it ends.
    #[command(after_help = "Example:\n  kvctl lease keep-alive 694d77aa9e38260f")]
    KeepAlive {
        /// Its id (hexadecimal), as grant prints it
        #[arg(value_name = "ID")]
        id: String,
        /// Renew it once, and exit
        #[arg(long)]
        once: bool,
    },
}

/// A verb with its arguments read.
#[derive(Debug, Clone)]
pub enum LeaseRequest {
    Grant(LeaseGrantRequest),
    Revoke(i64),
    TimeToLive { id: i64, keys: bool },
    List,
    KeepAliveOnce(i64),
    KeepAlive(i64),
}

impl LeaseArgs {
    pub fn request(self) -> Result<LeaseRequest, CtlError> {
        Ok(match self.verb {
            LeaseVerb::Grant { ttl, id } => {
                let ttl = ttl.parse().map_err(|_| {
                    CtlError::BadArguments(format!(
                        "bad TTL {ttl:?}: write a number of seconds, as in kvctl lease grant 60"
                    ))
                })?;
                LeaseRequest::Grant(LeaseGrantRequest { ttl, id: keys::lease_id(&id)? })
            }
            LeaseVerb::Revoke { id } => LeaseRequest::Revoke(keys::lease_id(&id)?),
            LeaseVerb::Timetolive { id, keys } => {
                LeaseRequest::TimeToLive { id: keys::lease_id(&id)?, keys }
            }
            LeaseVerb::List => LeaseRequest::List,
            LeaseVerb::KeepAlive { id, once: true } => {
                LeaseRequest::KeepAliveOnce(keys::lease_id(&id)?)
            }
            LeaseVerb::KeepAlive { id, once: false } => {
                LeaseRequest::KeepAlive(keys::lease_id(&id)?)
            }
        })
    }
}

/// Calls, and prints the answer; returns the exit code.
pub async fn run(
    request: LeaseRequest,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<u8, CtlError> {
    let failed_to = |what, error| CtlError::Lease(format!("failed to {what} lease ({error})"));
    let answer: Box<dyn Answer> = match request {
        LeaseRequest::Grant(request) => {
            let granted = client.lease_grant(request).await;
            Box::new(granted.map_err(|error| failed_to("grant", error))?)
        }
        LeaseRequest::Revoke(id) => {
            let response = client.lease_revoke(id).await;
            let response = response.map_err(|error| failed_to("revoke", error))?;
            Box::new(Revoked { id, response })
        }
        LeaseRequest::TimeToLive { id, keys } => {
            let response = client.lease_time_to_live(id, keys).await;
            Box::new(TimeToLive { response: response.map_err(CtlError::LeaseAnswer)?, keys })
        }
        LeaseRequest::List => Box::new(client.leases().await.map_err(CtlError::LeaseAnswer)?),
        LeaseRequest::KeepAliveOnce(id) => {
            let renewed = client.lease_keep_alive_once(id).await;
            Box::new(renewed.map_err(CtlError::LeaseAnswer)?)
        }
        LeaseRequest::KeepAlive(id) => return keep_alive(id, client, output).await,
    };
    output.print(&*answer)?;
    Ok(exit::OK)
}

/// Prints each renewal.
async fn keep_alive(id: i64, client: &Client, output: &mut Output<'_>) -> Result<u8, CtlError> {
    let mut keeper = match client.lease_keep_alive(id).await {
        Ok(keeper) => keeper,
        Err(error) if error.code() == Some(Code::NotFound) => return ended(id, output),
        Err(error) => return Err(CtlError::LeaseAnswer(error)),
    };
    output.print(&keeper.latest())?;
    loop {
        match keeper.renewed().await {
            Ok(answer) => output.print(&answer)?,
            Err(LeaseEnd::Gone { .. }) => return ended(id, output),
            Err(end) => return Err(CtlError::LeaseEnd(end)),
        }
    }
}

/// A lease that has ended is no error. Only `-w simple` mentions it, as in etcdctl.
fn ended(id: i64, output: &mut Output<'_>) -> Result<u8, CtlError> {
    if output.format == Format::Simple {
        output.print_line(&format!("lease {id:016x} expired or revoked."))?;
    }
    Ok(exit::OK)
}
