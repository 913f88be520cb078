//! `kvctl endpoint`: asks each member by itself.

use std::time::Duration;

use clap::Subcommand;
use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::Code;

use super::{
    CtlError,
    print::Answer,
    request::{Connection, Outcome},
};
use crate::{
    client::{Client, ClientError, Endpoint},
    proto::etcdserverpb::{AlarmType, HashKvResponse, RangeRequest, StatusResponse},
};

/// About each endpoint by itself.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct EndpointArgs {
    /// Ask every member of the cluster, not only the endpoints that are named
    #[arg(long, global = true)]
    pub(crate) cluster: bool,
    #[command(subcommand)]
    pub(crate) verb: EndpointVerb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum EndpointVerb {
    /// Whether each endpoint can answer a read that needs a majority, and no alarm is raised.
    #[command(after_help = "Example:\n  kvctl endpoint health --cluster")]
    Health,
    /// How each endpoint is doing: endpoint, id, version, size, whether it leads, whether it is a
    /// learner, Raft term, Raft index, applied index, errors.
    #[command(after_help = "Example:\n  kvctl endpoint status --cluster -w table")]
    Status,
    /// A hash of what each endpoint stores: equal where they agree.
    #[command(after_help = "Example:\n  kvctl endpoint hashkv --cluster")]
    Hashkv {
        /// Hash the store as it was at this revision; 0: the latest
        #[arg(long, default_value_t = 0)]
        rev: i64,
    },
}

/// What an endpoint said of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndpointStatus {
    pub(crate) endpoint: String,
    pub(crate) status: StatusResponse,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct EndpointHash {
    pub(crate) endpoint: String,
    pub(crate) hash: HashKvResponse,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct EndpointHealth {
    pub(crate) endpoint: String,
    pub(crate) took: Duration,
    /// What is wrong with it; `None`: healthy.
    pub(crate) error: Option<String>,
}

/// The key that is read to see whether a read gets through. It need not exist.
const HEALTH_KEY: &str = "health";

impl EndpointArgs {
    pub(crate) async fn call(&self, connection: &Connection) -> Result<Outcome, CtlError> {
        let endpoints =
            if self.cluster { cluster(connection).await? } else { connection.endpoints.clone() };
        let timeouts = connection.timeouts;
        let clients = endpoints
            .into_iter()
            .map(|endpoint| (endpoint.to_string(), Client::new(vec![endpoint], timeouts)));
        Ok(match self.verb {
            EndpointVerb::Health => health(clients).await,
            EndpointVerb::Status => {
                let asked = clients.map(async |(name, client)| (name, client.status().await));
                let (answers, complaints) = split(join_all(asked).await, "status");
                let answers = answers.into_iter();
                let answers = answers.map(|(endpoint, status)| EndpointStatus { endpoint, status });
                Outcome { answer: Answer::Status(answers.collect()), complaints }
            }
            EndpointVerb::Hashkv { rev } => {
                let asked = clients.map(async |(name, client)| (name, client.hash_kv(rev).await));
                let (answers, complaints) = split(join_all(asked).await, "hash");
                let answers = answers.into_iter();
                let answers = answers.map(|(endpoint, hash)| EndpointHash { endpoint, hash });
                Outcome { answer: Answer::Hash(answers.collect()), complaints }
            }
        })
    }
}

/// Where all members say that they listen for clients.
async fn cluster(connection: &Connection) -> Result<Vec<Endpoint>, CtlError> {
    let members = connection.client().member_list().await.map_err(CtlError::NoMemberList)?;
    let urls = members.members.iter().flat_map(|member| &member.client_ur_ls);
    urls.map(|url| Ok(url.parse()?)).collect()
}

async fn health(clients: impl Iterator<Item = (String, Client)>) -> Outcome {
    let asked = clients.map(async |(endpoint, client)| {
        let started = Instant::now();
        let read = RangeRequest { key: HEALTH_KEY.into(), ..RangeRequest::default() };
        let error = match client.range(read).await {
            Err(error) if error.code() != Some(Code::PermissionDenied) => Some(error.to_string()),
            // Whoever may not read this key was told so by a majority.
            _ => None,
        };
        let took = started.elapsed();
        let error = match error {
            None => alarmed(&client).await,
            error => error,
        };
        EndpointHealth { endpoint, took, error }
    });
    let health = join_all(asked).await;
    let unhealthy = health.iter().any(|h| h.error.is_some());
    let complaints = if unhealthy { vec!["Error: unhealthy cluster".into()] } else { vec![] };
    Outcome { answer: Answer::Health(health), complaints }
}

/// Which alarms are raised, if any.
async fn alarmed(client: &Client) -> Option<String> {
    let raised = match client.alarms().await {
        Ok(response) => response.alarms,
        // A server without alarms has none raised.
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

/// The answers, and what to say of the endpoints that gave none.
fn split<T>(
    asked: Vec<(String, Result<T, ClientError>)>,
    what: &str,
) -> (Vec<(String, T)>, Vec<String>) {
    let mut answers = Vec::new();
    let mut complaints = Vec::new();
    for (endpoint, result) in asked {
        match result {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(error) => {
                complaints
                    .push(format!("Failed to get the {what} of endpoint {endpoint} ({error})"));
            }
        }
    }
    (answers, complaints)
}
