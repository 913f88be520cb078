//! Counts requests by the API version that their clients name.

use std::sync::OnceLock;

use hyper::HeaderMap;

use crate::metrics::{Counter, Exposition, MetricKind};

/// The header of etcd's own clients.
const HEADER: &str = "client-api-version";
/// Distinct versions, at most; further ones are counted together. Clients choose the text, so it must be
/// bounded.
const VERSIONS_MAX: usize = 16;
/// A longer text is not a version.
const VERSION_BYTES_MAX: usize = 32;

/// A version takes a slot at its first request and keeps it, so a lookup needs no lock.
#[derive(Debug, Default)]
pub struct ClientVersions {
    slots: [OnceLock<Version>; VERSIONS_MAX],
    others: Counts,
}

#[derive(Debug)]
struct Version {
    name: Box<str>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    unary: Counter,
    stream: Counter,
}

impl ClientVersions {
    pub fn count(&self, stream: bool, headers: &HeaderMap) {
        let name = headers.get(HEADER).map_or(Some("unknown"), |value| value.to_str().ok());
        let known = name.filter(|name| name.len() <= VERSION_BYTES_MAX).and_then(|n| self.of(n));
        let counts = known.unwrap_or(&self.others);
        if stream { counts.stream.increment() } else { counts.unary.increment() }
    }

    fn of(&self, name: &str) -> Option<&Counts> {
        self.slots.iter().find_map(|slot| {
            let new = || Version { name: name.into(), counts: Counts::default() };
            let version = slot.get_or_init(new);
            (*version.name == *name).then_some(&version.counts)
        })
    }

    pub fn expose(&self, text: &mut Exposition) {
        let help = "Requests of clients, by the version of the API that they say they have.";
        let mut family =
            text.family("etcd_server_client_requests_total", MetricKind::Counter, help);
        let seen = self.slots.iter().filter_map(OnceLock::get);
        let seen = seen.map(|version| (&*version.name, &version.counts));
        for (name, counts) in seen.chain([("other", &self.others)]) {
            let by_type = [("unary", &counts.unary), ("stream", &counts.stream)];
            for (kind, counter) in by_type.into_iter().filter(|(_, counter)| counter.get() > 0) {
                let labels = [("client_api_version", name), ("type", kind)];
                family.sample(&labels, counter.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_versions_take_no_more_than_the_slots() {
        let versions = ClientVersions::default();
        for n in 0..100 {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, n.to_string().parse().unwrap());
            versions.count(false, &headers);
        }
        let mut text = Exposition::default();
        versions.expose(&mut text);
        let text = text.finish();
        assert_eq!(text.lines().count(), 2 + VERSIONS_MAX + 1, "{text}");
        assert!(text.contains("{client_api_version=\"other\",type=\"unary\"} 84\n"), "{text}");
    }
}
