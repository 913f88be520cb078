//! `kvctl lease`: keys that end with whoever holds them.

use clap::Subcommand;
use tonic::Code;

use super::{CtlError, error::exit, keys, print::Answer, screen::Screen};
use crate::{
    client::{Client, LeaseEnd},
    proto::etcdserverpb::LeaseGrantRequest,
};

/// Leases: keys that are put with one are deleted when it ends.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct LeaseArgs {
    #[command(subcommand)]
    verb: LeaseVerb,
}

#[derive(Debug, Clone, Subcommand)]
enum LeaseVerb {
    /// Makes a lease, and prints its id.
    #[command(after_help = "Example:\n  kvctl lease grant 60")]
    Grant {
        /// How long it lives without being renewed, in seconds; the member may grant more
        #[arg(value_name = "TTL", allow_negative_numbers = true)]
        ttl: String,
        /// The id it shall have (hexadecimal); 0: any
        #[arg(long, default_value = "0")]
        id: String,
    },
    /// Ends a lease, and deletes its keys.
    #[command(after_help = "Example:\n  kvctl lease revoke 694d77aa9e38260f")]
    Revoke {
        /// In hexadecimal, as grant prints it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Prints how long a lease has left.
    #[command(after_help = "Example:\n  kvctl lease timetolive 694d77aa9e38260f --keys")]
    Timetolive {
        /// In hexadecimal, as grant prints it
        #[arg(value_name = "ID")]
        id: String,
        /// Also print the keys that are attached to it
        #[arg(long)]
        keys: bool,
    },
    /// Lists all leases.
    #[command(after_help = "Example:\n  kvctl lease list")]
    List,
    /// Renews a lease again and again, until Ctrl-C or until it ends.
    #[command(after_help = "Example:\n  kvctl lease keep-alive 694d77aa9e38260f")]
    KeepAlive {
        /// In hexadecimal, as grant prints it
        #[arg(value_name = "ID")]
        id: String,
        /// Renew it once, and exit
        #[arg(long)]
        once: bool,
    },
}

/// What a verb asks, once its arguments are read.
#[derive(Debug, Clone)]
pub(crate) enum LeaseRequest {
    Grant(LeaseGrantRequest),
    Revoke(i64),
    TimeToLive { id: i64, keys: bool },
    List,
    KeepAliveOnce(i64),
    KeepAlive(i64),
}

impl LeaseArgs {
    pub(crate) fn request(self) -> Result<LeaseRequest, CtlError> {
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

/// Asks, and prints the answer; answers the exit code.
pub(crate) async fn run(
    request: LeaseRequest,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<u8, CtlError> {
    let failed_to = |what, error| CtlError::Lease(format!("failed to {what} lease ({error})"));
    let answer = match request {
        LeaseRequest::Grant(request) => {
            let granted = client.lease_grant(request).await;
            Answer::Granted(granted.map_err(|error| failed_to("grant", error))?)
        }
        LeaseRequest::Revoke(id) => {
            let revoked = client.lease_revoke(id).await;
            Answer::Revoked(id, revoked.map_err(|error| failed_to("revoke", error))?)
        }
        LeaseRequest::TimeToLive { id, keys } => {
            let left = client.lease_time_to_live(id, keys).await;
            Answer::TimeToLive { left: left.map_err(CtlError::LeaseAnswer)?, keys }
        }
        LeaseRequest::List => Answer::Leases(client.leases().await.map_err(CtlError::LeaseAnswer)?),
        LeaseRequest::KeepAliveOnce(id) => {
            let renewed = client.lease_keep_alive_once(id).await;
            Answer::KeptAlive(renewed.map_err(CtlError::LeaseAnswer)?)
        }
        LeaseRequest::KeepAlive(id) => return keep_alive(id, client, screen).await,
    };
    screen.print(&answer)?;
    Ok(exit::OK)
}

/// Prints each renewal.
async fn keep_alive(id: i64, client: &Client, screen: &mut Screen<'_>) -> Result<u8, CtlError> {
    let mut keeper = match client.lease_keep_alive(id).await {
        Ok(keeper) => keeper,
        Err(error) if error.code() == Some(Code::NotFound) => return gone(id, screen),
        Err(error) => return Err(CtlError::LeaseAnswer(error)),
    };
    screen.print(&Answer::KeptAlive(keeper.latest()))?;
    loop {
        match keeper.renewed().await {
            Ok(answer) => screen.print(&Answer::KeptAlive(answer))?,
            Err(LeaseEnd::Gone { .. }) => return gone(id, screen),
            Err(end) => return Err(CtlError::LeaseEnd(end)),
        }
    }
}

/// A lease that has ended is no failure, and only people are told, as etcdctl has it.
fn gone(id: i64, screen: &mut Screen<'_>) -> Result<u8, CtlError> {
    if screen.format == super::cli::Format::Simple {
        screen.say(&format!("lease {id:016x} expired or revoked."))?;
    }
    Ok(exit::OK)
}
