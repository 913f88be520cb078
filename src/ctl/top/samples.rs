//! What was seen of a cluster at one moment.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{client::ClientError, proto::etcdserverpb::StatusResponse};

/// All members, at about the same moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// In the order of their names.
    pub(super) members: Vec<Seen>,
    /// In the whole cluster.
    pub(super) leases: Option<u64>,
    /// Why the list of members is not known.
    pub(super) no_list: Option<ClientError>,
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: u64,
    pub(super) name: String,
    /// Where it was asked.
    pub(super) endpoint: String,
    pub(super) learner: bool,
    pub(super) status: Result<StatusResponse, ClientError>,
    pub(super) metrics: Result<Metrics, String>,
}

/// The sum of each metric's samples on a page, whatever their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metrics {
    /// Where the page is.
    pub(super) url: String,
    pub(super) values: BTreeMap<String, f64>,
}

impl Sample {
    /// If nobody answered anything: why.
    pub(super) fn unreachable(&self) -> Option<ClientError> {
        let nobody = self.members.iter().all(|member| member.status.is_err());
        self.no_list.clone().filter(|_| nobody)
    }
}

impl Metrics {
    /// Reads a page in Prometheus' text format. What is no sample is passed over.
    pub(super) fn parse(url: &str, page: &str) -> Metrics {
        let mut values: BTreeMap<String, f64> = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name_end = line.find(['{', ' ']).unwrap_or(line.len());
            let after_labels = line.rfind('}').map_or(name_end, |end| end + 1);
            let value = line[after_labels..].split_whitespace().next();
            if let Some(value) = value.and_then(|value| value.parse::<f64>().ok()) {
                *values.entry(line[..name_end].into()).or_default() += value;
            }
        }
        Metrics { url: url.into(), values }
    }

    /// The first of these that the page has.
    pub(super) fn any(&self, names: &[&str]) -> Option<f64> {
        names.iter().find_map(|name| self.values.get(*name).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_sample_by_sample_and_summed_over_labels() {
        let page = "# HELP x y\n# TYPE x counter\nx{a=\"1 }\",b=\"2\"} 3\nx{a=\"2\"} 4.5 1700000000\n\
                    y 7\nz_bucket{le=\"+Inf\"} 1e3\nnonsense\nbad value\n";
        let metrics = Metrics::parse("u", page);
        assert_eq!(metrics.any(&["x"]), Some(7.5));
        assert_eq!(metrics.any(&["none", "y"]), Some(7.0));
        assert_eq!(metrics.any(&["z_bucket"]), Some(1000.0));
        assert_eq!(metrics.values.len(), 3);
    }
}
