//! Calls the members, and fetches their metrics pages.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::{
    pages::{self, MetricsAddress, MetricsPage},
    samples::{MemberSample, Metrics, Sample},
};
use crate::{
    client::{Client, Endpoint, Timeouts},
    ctl::context::ClientConfig,
    proto::etcdserverpb::Member,
};

/// The longest time that one unreachable member delays a sample.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(2);
/// The metric of the number of leases; etcd has none.
const LEASES: &str = "ordinal_leases";

#[derive(Debug)]
pub struct Sampler {
    client: Client,
    endpoints: Vec<Endpoint>,
    timeouts: Timeouts,
    configured: Vec<MetricsAddress>,
    targets: Vec<MemberTarget>,
}

#[derive(Debug)]
struct MemberTarget {
    member: Member,
    client: Client,
    endpoint: Endpoint,
    pages: Vec<MetricsPage>,
    /// The page that answered last.
    page: usize,
}

impl Sampler {
    pub fn new(config: &ClientConfig, configured: Vec<MetricsAddress>) -> Sampler {
        let Timeouts { dial, command } = config.timeouts;
        let timeouts =
            Timeouts { dial: dial.min(SAMPLE_TIMEOUT), command: command.min(SAMPLE_TIMEOUT) };
        let endpoints = config.endpoints.clone();
        let client = Client::new(endpoints.clone(), timeouts);
        Sampler { client, endpoints, timeouts, configured, targets: vec![] }
    }

    /// Waits until `due`, and samples.
    pub async fn sample_at(&mut self, due: Instant) -> Sample {
        sleep_until(due).await;
        self.sample().await
    }

    pub async fn sample(&mut self) -> Sample {
        let listed = self.client.member_list().await;
        let member_list_error = listed.as_ref().err().cloned();
        match listed {
            Ok(list) => self.update_targets(list.members),
            // Without a quorum there is no list: keep the last one.
            Err(_) if self.targets.is_empty() => self.update_targets(vec![]),
            Err(_) => {}
        }
        let at = Instant::now();
        let members = join_all(self.targets.iter_mut().map(MemberTarget::sample)).await;
        let leases =
            match members.iter().filter_map(|m| m.metrics.as_ref().ok()?.any(&[LEASES])).next() {
                Some(leases) => Some(leases as u64),
                None => self.client.leases().await.ok().map(|answer| answer.leases.len() as u64),
            };
        Sample { at, members, leases, member_list_error }
    }

    /// Without members, the targets are the given endpoints. Unchanged members keep their targets.
    fn update_targets(&mut self, mut members: Vec<Member>) {
        if members.is_empty() {
            let url = |endpoint: &Endpoint| Member {
                client_ur_ls: vec![endpoint.to_string()],
                ..Member::default()
            };
            members = self.endpoints.iter().map(url).collect();
        }
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        if members.iter().eq(self.targets.iter().map(|target| &target.member)) {
            return;
        }
        let reachable = members.into_iter().filter_map(|member| {
            let endpoint: Endpoint = member.client_ur_ls.first()?.parse().ok()?;
            Some((member, endpoint))
        });
        let reachable: Vec<_> = reachable.collect();
        let endpoints: Vec<_> =
            reachable.iter().map(|(_, endpoint)| endpoint.to_string()).collect();
        let pages = pages::candidates(&endpoints, &self.configured);
        self.targets = reachable
            .into_iter()
            .zip(pages)
            .map(|((member, endpoint), pages)| MemberTarget {
                member,
                client: Client::new(vec![endpoint.clone()], self.timeouts),
                endpoint,
                pages,
                page: 0,
            })
            .collect();
    }
}

impl MemberTarget {
    async fn sample(&mut self) -> MemberSample {
        let client = self.client.clone();
        let (status, metrics) = tokio::join!(client.status(), self.metrics());
        let answer = status.as_ref().ok();
        let id = answer.and_then(|status| status.header).map_or(self.member.id, |h| h.member_id);
        MemberSample {
            id,
            name: self.member.name.clone(),
            endpoint: self.endpoint.to_string(),
            learner: answer.map_or(self.member.is_learner, |status| status.is_learner),
            status,
            metrics,
        }
    }

    /// Fetches the page that answered last; if that fails, the others.
    async fn metrics(&mut self) -> Result<Metrics, String> {
        let mut failed = Vec::new();
        for after in 0..self.pages.len() {
            let at = (self.page + after) % self.pages.len();
            let page = &self.pages[at];
            match page.fetch().await {
                Ok(text) => {
                    self.page = at;
                    return Ok(Metrics::parse(&page.url(), &text));
                }
                Err(error) => failed.push(format!("{}: {error}", page.url())),
            }
        }
        Err(failed.join("; "))
    }
}
