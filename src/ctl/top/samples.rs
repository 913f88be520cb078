//! The state of a cluster at one time.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{client::ClientError, proto::etcdserverpb::StatusResponse};

/// All members, at about the same time.
#[derive(Debug, Clone)]
pub struct Sample {
    pub at: Instant,
    /// Sorted by name.
    pub members: Vec<MemberSample>,
    /// In the whole cluster.
    pub leases: Option<u64>,
    /// Why the member list is missing.
    pub member_list_error: Option<ClientError>,
}

#[derive(Debug, Clone)]
pub struct MemberSample {
    pub id: u64,
    pub name: String,
    pub endpoint: String,
    pub learner: bool,
    pub status: Result<StatusResponse, ClientError>,
    pub metrics: Result<Metrics, String>,
}

/// Each metric of a page, summed over its labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    pub url: String,
    pub values: BTreeMap<String, f64>,
}

impl Sample {
    /// The error, if no member has answered.
    pub fn unreachable(&self) -> Option<ClientError> {
        let none = self.members.iter().all(|member| member.status.is_err());
        self.member_list_error.clone().filter(|_| none)
    }
}

impl Metrics {
    /// Reads a page in Prometheus' text format. Lines that are not samples are skipped.
    pub fn parse(url: &str, page: &str) -> Metrics {
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

    /// The first of these metrics that the page has.
    pub fn any(&self, names: &[&str]) -> Option<f64> {
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
