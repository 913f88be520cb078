//! How many requests came from clients of which version, as they say themselves.

use std::sync::OnceLock;

use axum::http::HeaderMap;

use crate::metrics::{Counter, Exposition, Kind};

/// What etcd's own clients send along.
const HEADER: &str = "client-api-version";
/// More versions than these are counted together: clients choose the text, and memory is ours.
const VERSIONS_MAX: usize = 16;
/// A longer one is no version.
const VERSION_BYTES_MAX: usize = 32;

/// Versions take a place when they are first seen, for ever: nothing is locked to find one.
#[derive(Debug, Default)]
pub(super) struct ClientVersions {
    seen: [OnceLock<Version>; VERSIONS_MAX],
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
    pub(super) fn count(&self, stream: bool, headers: &HeaderMap) {
        let name = headers.get(HEADER).map_or(Some("unknown"), |value| value.to_str().ok());
        let known = name.filter(|name| name.len() <= VERSION_BYTES_MAX).and_then(|n| self.of(n));
        let counts = known.unwrap_or(&self.others);
        if stream { counts.stream.increment() } else { counts.unary.increment() }
    }

    fn of(&self, name: &str) -> Option<&Counts> {
        self.seen.iter().find_map(|place| {
            let new = || Version { name: name.into(), counts: Counts::default() };
            let version = place.get_or_init(new);
            (*version.name == *name).then_some(&version.counts)
        })
    }

    pub(super) fn show(&self, text: &mut Exposition) {
        let help = "Requests of clients, by the version of the API that they say they have.";
        let mut family = text.family("etcd_server_client_requests_total", Kind::Counter, help);
        let seen = self.seen.iter().filter_map(OnceLock::get);
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
    fn a_client_that_makes_up_versions_gets_no_more_than_its_places() {
        let versions = ClientVersions::default();
        for n in 0..100 {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, n.to_string().parse().unwrap());
            versions.count(false, &headers);
        }
        let mut text = Exposition::default();
        versions.show(&mut text);
        let text = text.finish();
        assert_eq!(text.lines().count(), 2 + VERSIONS_MAX + 1, "{text}");
        assert!(text.contains("{client_api_version=\"other\",type=\"unary\"} 84\n"), "{text}");
    }
}
