//! Asks the members how they are.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::{
    pages::{self, Page, Whereabouts},
    samples::{Metrics, Sample, Seen},
};
use crate::{
    client::{Client, Endpoint, Timeouts},
    ctl::request::Connection,
    proto::etcdserverpb::Member,
};

/// A member that does not answer holds up the others so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of leases, where a member has it as a metric.
const LEASES: &str = "ordinal_leases";

/// Who asks, and what is known from before.
#[derive(Debug)]
pub(super) struct Gatherer {
    client: Client,
    endpoints: Vec<Endpoint>,
    timeouts: Timeouts,
    told: Vec<Whereabouts>,
    places: Vec<Place>,
}

/// Where a member is.
#[derive(Debug)]
struct Place {
    member: Member,
    client: Client,
    endpoint: Endpoint,
    pages: Vec<Page>,
    /// Which of the pages answered last.
    page: usize,
}

impl Gatherer {
    pub(super) fn new(connection: &Connection, told: Vec<Whereabouts>) -> Gatherer {
        let Timeouts { dial, command } = connection.timeouts;
        let timeouts = Timeouts { dial: dial.min(PATIENCE), command: command.min(PATIENCE) };
        let endpoints = connection.endpoints.clone();
        let client = Client::new(endpoints.clone(), timeouts);
        Gatherer { client, endpoints, timeouts, told, places: vec![] }
    }

    /// A sample at this moment; nothing is asked before.
    pub(super) async fn sample_at(&mut self, due: Instant) -> Sample {
        sleep_until(due).await;
        self.sample().await
    }

    pub(super) async fn sample(&mut self) -> Sample {
        let listed = self.client.member_list().await;
        let no_list = listed.as_ref().err().cloned();
        match listed {
            Ok(list) => self.place(list.members),
            // Without a majority nobody has the list: the last one is good enough.
            Err(_) if self.places.is_empty() => self.place(vec![]),
            Err(_) => {}
        }
        let at = Instant::now();
        let members = join_all(self.places.iter_mut().map(Place::look)).await;
        let leases =
            match members.iter().filter_map(|m| m.metrics.as_ref().ok()?.any(&[LEASES])).next() {
                Some(leases) => Some(leases as u64),
                None => self.client.leases().await.ok().map(|answer| answer.leases.len() as u64),
            };
        Sample { at, members, leases, no_list }
    }

    /// Keeps what is known of members that are still where they were.
    fn place(&mut self, mut members: Vec<Member>) {
        if members.is_empty() {
            let url = |endpoint: &Endpoint| Member {
                client_ur_ls: vec![endpoint.to_string()],
                ..Member::default()
            };
            members = self.endpoints.iter().map(url).collect();
        }
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        if members.iter().eq(self.places.iter().map(|place| &place.member)) {
            return;
        }
        let reachable = members.into_iter().filter_map(|member| {
            let endpoint: Endpoint = member.client_ur_ls.first()?.parse().ok()?;
            Some((member, endpoint))
        });
        let reachable: Vec<_> = reachable.collect();
        let endpoints: Vec<_> =
            reachable.iter().map(|(_, endpoint)| endpoint.to_string()).collect();
        let pages = pages::candidates(&endpoints, &self.told);
        self.places = reachable
            .into_iter()
            .zip(pages)
            .map(|((member, endpoint), pages)| Place {
                member,
                client: Client::new(vec![endpoint.clone()], self.timeouts),
                endpoint,
                pages,
                page: 0,
            })
            .collect();
    }
}

impl Place {
    async fn look(&mut self) -> Seen {
        let client = self.client.clone();
        let (status, metrics) = tokio::join!(client.status(), self.metrics());
        let told = status.as_ref().ok();
        let id = told.and_then(|status| status.header).map_or(self.member.id, |h| h.member_id);
        Seen {
            id,
            name: self.member.name.clone(),
            endpoint: self.endpoint.to_string(),
            learner: told.map_or(self.member.is_learner, |status| status.is_learner),
            status,
            metrics,
        }
    }

    /// The page that answered last; if it does not, the others.
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
                Err(why) => failed.push(format!("{}: {why}", page.url())),
            }
        }
        Err(failed.join("; "))
    }
}
