//! The answers of single endpoints, as etcdctl prints them.

use std::time::Duration;

use crate::{
    ctl::{
        gotext::{duration, size},
        print::{
            Answer, Rendered, ValueStyle,
            fields::Fields,
            json::{Object, array, text},
            simple::comma_separated,
            table::Table,
        },
    },
    proto::etcdserverpb::{HashKvResponse, StatusResponse},
};

#[derive(Debug, Clone, Default)]
pub struct EndpointStatus {
    pub endpoint: String,
    pub status: StatusResponse,
}

#[derive(Debug, Clone, Default)]
pub struct EndpointHash {
    pub endpoint: String,
    pub hash: HashKvResponse,
}

#[derive(Debug, Clone, Default)]
pub struct EndpointHealth {
    pub endpoint: String,
    pub took: Duration,
    /// `None`: healthy.
    pub error: Option<String>,
}

impl Answer for Vec<EndpointStatus> {
    fn simple(&self, _: ValueStyle) -> Rendered {
        Rendered::stdout(comma_separated(&status_table(self).rows))
    }

    fn json(&self, _: ValueStyle) -> String {
        array(self, |EndpointStatus { endpoint, status }| {
            Object::new().text("Endpoint", endpoint).value("Status", status_json(status)).end()
        })
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        for EndpointStatus { endpoint, status } in self {
            fields.header(status.header);
            fields.quoted("Version", &status.version);
            fields.field("DBSize", status.db_size);
            fields.field("Leader", status.leader);
            fields.field("IsLearner", status.is_learner);
            fields.field("RaftIndex", status.raft_index);
            fields.field("RaftTerm", status.raft_term);
            fields.field("RaftAppliedIndex", status.raft_applied_index);
            fields.field("Errors", format_args!("[{}]", status.errors.join(" ")));
            fields.quoted("Endpoint", endpoint);
            fields.blank();
        }
        Some(fields.text())
    }

    fn table(&self) -> Option<Table> {
        Some(status_table(self))
    }
}

fn status_table(endpoints: &[EndpointStatus]) -> Table {
    let row = |EndpointStatus { endpoint, status }: &EndpointStatus| {
        let id = status.header.unwrap_or_default().member_id;
        vec![
            endpoint.clone(),
            format!("{id:x}"),
            status.version.clone(),
            size(status.db_size.max(0).unsigned_abs()),
            (status.leader == id).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
        ]
    };
    Table {
        header: vec![
            "ENDPOINT",
            "ID",
            "VERSION",
            "DB SIZE",
            "IS LEADER",
            "IS LEARNER",
            "RAFT TERM",
            "RAFT INDEX",
            "RAFT APPLIED INDEX",
            "ERRORS",
        ],
        rows: endpoints.iter().map(row).collect(),
    }
}

fn status_json(status: &StatusResponse) -> String {
    let downgrade = status.downgrade_info.as_ref().map(|info| {
        Object::new()
            .flag("enabled", info.enabled)
            .text("targetVersion", &info.target_version)
            .end()
    });
    Object::new()
        .header(status.header)
        .text("version", &status.version)
        .number("dbSize", status.db_size)
        .id("leader", status.leader, false)
        .id("raftIndex", status.raft_index, false)
        .id("raftTerm", status.raft_term, false)
        .id("raftAppliedIndex", status.raft_applied_index, false)
        .list("errors", &status.errors, |error| text(error))
        .number("dbSizeInUse", status.db_size_in_use)
        .flag("isLearner", status.is_learner)
        .text("storageVersion", &status.storage_version)
        .number("dbSizeQuota", status.db_size_quota)
        .optional("downgradeInfo", downgrade)
        .end()
}

impl Answer for Vec<EndpointHealth> {
    /// Unhealthy endpoints go to standard error, as in etcdctl.
    fn simple(&self, _: ValueStyle) -> Rendered {
        let mut rendered = Rendered::default();
        for EndpointHealth { endpoint, took, error } in self {
            match error {
                None => rendered.stdout.extend(
                    format!(
                        "{endpoint} is healthy: successfully committed proposal: took = {}\n",
                        duration(*took)
                    )
                    .bytes(),
                ),
                Some(error) => rendered.stderr.extend(
                    format!("{endpoint} is unhealthy: failed to commit proposal: {error}\n")
                        .bytes(),
                ),
            }
        }
        rendered
    }

    fn json(&self, _: ValueStyle) -> String {
        array(self, |EndpointHealth { endpoint, took, error }| {
            Object::new()
                .text("endpoint", endpoint)
                .value("health", error.is_none().to_string())
                .text("took", &duration(*took))
                .text("error", error.as_deref().unwrap_or_default())
                .end()
        })
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        for EndpointHealth { endpoint, took, error } in self {
            fields.quoted("Endpoint", endpoint);
            fields.field("Health", error.is_none());
            fields.field("Took", duration(*took));
            fields.field("Error", error.as_deref().unwrap_or_default());
            fields.blank();
        }
        Some(fields.text())
    }

    fn table(&self) -> Option<Table> {
        let row = |health: &EndpointHealth| {
            vec![
                health.endpoint.clone(),
                health.error.is_none().to_string(),
                duration(health.took),
                health.error.clone().unwrap_or_default(),
            ]
        };
        Some(Table {
            header: vec!["ENDPOINT", "HEALTH", "TOOK", "ERROR"],
            rows: self.iter().map(row).collect(),
        })
    }
}

impl Answer for Vec<EndpointHash> {
    fn simple(&self, _: ValueStyle) -> Rendered {
        Rendered::stdout(comma_separated(&hash_table(self).rows))
    }

    fn json(&self, _: ValueStyle) -> String {
        array(self, |EndpointHash { endpoint, hash }| {
            Object::new().text("Endpoint", endpoint).value("HashKV", hash_json(hash)).end()
        })
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        let mut fields = Fields::new(style);
        for EndpointHash { endpoint, hash } in self {
            fields.header(hash.header);
            fields.quoted("Endpoint", endpoint);
            fields.field("Hash", hash.hash);
            fields.blank();
        }
        Some(fields.text())
    }

    fn table(&self) -> Option<Table> {
        Some(hash_table(self))
    }
}

fn hash_table(endpoints: &[EndpointHash]) -> Table {
    let row = |EndpointHash { endpoint, hash }: &EndpointHash| {
        vec![endpoint.clone(), hash.hash.to_string()]
    };
    Table { header: vec!["ENDPOINT", "HASH"], rows: endpoints.iter().map(row).collect() }
}

fn hash_json(hash: &HashKvResponse) -> String {
    Object::new()
        .header(hash.header)
        .number("hash", hash.hash.into())
        .number("compact_revision", hash.compact_revision)
        .number("hash_revision", hash.hash_revision)
        .end()
}
