//! `kvctl endpoint`: calls each endpoint by itself.

mod answer;

use clap::Subcommand;
use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::Code;

pub use self::answer::{EndpointHash, EndpointHealth, EndpointStatus};
use super::{context::ClientConfig, error::CtlError, print::Outcome};
use crate::{
    client::{Client, ClientError, Endpoint},
    proto::etcdserverpb::{AlarmType, RangeRequest},
};

/// Calls each endpoint by itself.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct EndpointArgs {
    /// Call every member of the cluster, not only the given endpoints
    #[arg(long, global = true)]
    pub cluster: bool,
    #[command(subcommand)]
    pub verb: EndpointVerb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum EndpointVerb {
    /// Checks that each endpoint answers a linearizable read, and that no alarm is raised.
    #[command(after_help = "Example:\n  kvctl endpoint health --cluster")]
    Health,
    /// Prints the status of each endpoint: endpoint, id, version, size, is leader, is learner, Raft
    /// term, Raft index, applied index, errors.
    #[command(after_help = "Example:\n  kvctl endpoint status --cluster -w table")]
    Status,
    /// Prints a hash of each endpoint's data. Equal data has equal hashes.
    #[command(after_help = "Example:\n  kvctl endpoint hashkv --cluster")]
    Hashkv {
        /// Hash the data at this revision; 0: the latest
        #[arg(long, default_value_t = 0)]
        rev: i64,
    },
}

/// The key of the read that checks health, etcdctl's. It need not exist.
const HEALTH_KEY: &str = "health";

impl EndpointArgs {
    pub async fn call(&self, config: &ClientConfig) -> Result<Outcome, CtlError> {
        let endpoints =
            if self.cluster { cluster(config).await? } else { config.endpoints.clone() };
        let timeouts = config.timeouts;
        let clients = endpoints
            .into_iter()
            .map(|endpoint| (endpoint.to_string(), Client::new(vec![endpoint], timeouts)));
        Ok(match self.verb {
            EndpointVerb::Health => health(clients).await,
            EndpointVerb::Status => {
                let calls = clients.map(async |(name, client)| (name, client.status().await));
                let (answers, errors) = split(join_all(calls).await, "status");
                let answers = answers.into_iter();
                let answers = answers.map(|(endpoint, status)| EndpointStatus { endpoint, status });
                Outcome::with_errors(answers.collect::<Vec<_>>(), errors)
            }
            EndpointVerb::Hashkv { rev } => {
                let calls = clients.map(async |(name, client)| (name, client.hash_kv(rev).await));
                let (answers, errors) = split(join_all(calls).await, "hash");
                let answers = answers.into_iter();
                let answers = answers.map(|(endpoint, hash)| EndpointHash { endpoint, hash });
                Outcome::with_errors(answers.collect::<Vec<_>>(), errors)
            }
        })
    }
}

/// The advertised client addresses of all members.
async fn cluster(config: &ClientConfig) -> Result<Vec<Endpoint>, CtlError> {
    let members = config.client().member_list().await.map_err(CtlError::NoMemberList)?;
    let urls = members.members.iter().flat_map(|member| &member.client_ur_ls);
    urls.map(|url| Ok(url.parse()?)).collect()
}

async fn health(clients: impl Iterator<Item = (String, Client)>) -> Outcome {
    let checks = clients.map(async |(endpoint, client)| {
        let started = Instant::now();
        let read = RangeRequest { key: HEALTH_KEY.into(), ..RangeRequest::default() };
        let error = match client.range(read).await {
            Err(error) if error.code() != Some(Code::PermissionDenied) => Some(error.to_string()),
            // A quorum has refused the access to this key, so reads work.
            _ => None,
        };
        let took = started.elapsed();
        let error = match error {
            None => active_alarms(&client).await,
            error => error,
        };
        EndpointHealth { endpoint, took, error }
    });
    let health = join_all(checks).await;
    let unhealthy = health.iter().any(|h| h.error.is_some());
    let errors = if unhealthy { vec!["Error: unhealthy cluster".into()] } else { vec![] };
    Outcome::with_errors(health, errors)
}

/// The raised alarms, if any.
async fn active_alarms(client: &Client) -> Option<String> {
    let raised = match client.alarms().await {
        Ok(response) => response.alarms,
        // A server that does not implement alarms has none raised.
        Err(error) if error.code() == Some(Code::Unimplemented) => vec![],
        Err(_) => return Some("Unable to fetch the alarm list".into()),
    };
    let names: Vec<_> = raised.iter().map(|alarm| alarm_name(alarm.alarm())).collect();
    (!names.is_empty()).then(|| format!("Active Alarm(s): {}", names.join(", ")))
}

fn alarm_name(alarm: AlarmType) -> &'static str {
    match alarm {
        AlarmType::Nospace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
        AlarmType::None => "UNKNOWN",
    }
}

/// The answers, and an error for each endpoint without one.
fn split<T>(
    results: Vec<(String, Result<T, ClientError>)>,
    subject: &str,
) -> (Vec<(String, T)>, Vec<String>) {
    let mut answers = Vec::new();
    let mut errors = Vec::new();
    for (endpoint, result) in results {
        match result {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(error) => {
                errors
                    .push(format!("Failed to get the {subject} of endpoint {endpoint} ({error})"));
            }
        }
    }
    (answers, errors)
}
