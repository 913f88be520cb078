//! `-w table`: boxes for people. `-w simple` prints the same cells with commas between.

use crate::{
    ctl::{
        endpoint::{EndpointHash, EndpointHealth, EndpointStatus},
        gotext::{duration, size},
    },
    proto::etcdserverpb::Member,
};

use super::{Answer, cluster};

/// A header and rows of as many cells.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) header: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// The table for an answer, if it has one.
pub(crate) fn of(answer: &Answer) -> Option<Table> {
    match answer {
        Answer::Members(response) => Some(members(&response.members)),
        Answer::Status(endpoints) => Some(status(endpoints)),
        Answer::Health(endpoints) => Some(health(endpoints)),
        Answer::Hash(endpoints) => Some(hash(endpoints)),
        Answer::Cluster(reply) => Some(cluster::table(reply)),
        Answer::Member(_) | Answer::Recovering(_) | Answer::Report(_) => None,
        Answer::Get(_) | Answer::Put(_) | Answer::Del(_) | Answer::Txn(_) => None,
        Answer::Compacted(_) | Answer::Watch(_) => None,
        Answer::Granted(_) | Answer::Revoked(..) | Answer::KeptAlive(_) => None,
        Answer::TimeToLive { .. } | Answer::Leases(_) => None,
    }
}

pub(crate) fn members(members: &[Member]) -> Table {
    let row = |member: &Member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() { "unstarted" } else { "started" }.into(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    Table {
        header: vec!["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"],
        rows: members.iter().map(row).collect(),
    }
}

pub(crate) fn status(endpoints: &[EndpointStatus]) -> Table {
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

fn health(endpoints: &[EndpointHealth]) -> Table {
    let row = |health: &EndpointHealth| {
        vec![
            health.endpoint.clone(),
            health.error.is_none().to_string(),
            duration(health.took),
            health.error.clone().unwrap_or_default(),
        ]
    };
    Table {
        header: vec!["ENDPOINT", "HEALTH", "TOOK", "ERROR"],
        rows: endpoints.iter().map(row).collect(),
    }
}

pub(crate) fn hash(endpoints: &[EndpointHash]) -> Table {
    let row = |EndpointHash { endpoint, hash }: &EndpointHash| {
        vec![endpoint.clone(), hash.hash.to_string()]
    };
    Table { header: vec!["ENDPOINT", "HASH"], rows: endpoints.iter().map(row).collect() }
}

impl Table {
    pub(crate) fn new(header: Vec<&'static str>, rows: Vec<Vec<String>>) -> Table {
        Table { header, rows }
    }

    /// Of each column, in characters.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let width = |text: &str| text.chars().count();
        let widest = |column: usize| {
            let cells = self.rows.iter().map(|row| width(&row[column]));
            cells.chain([width(self.header[column])]).max().unwrap_or(0)
        };
        (0..self.header.len()).map(widest).collect()
    }

    /// Headers centred, cells to the right; a cell is never broken into lines.
    pub(crate) fn render(&self) -> String {
        let widths = self.widths();
        let rule = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
        let rule = format!("+{rule}+\n");

        let mut out = rule.clone();
        let header = self.header.iter().zip(&widths).map(|(cell, width)| format!("{cell:^width$}"));
        out += &line(header);
        out += &rule;
        for row in &self.rows {
            out += &line(row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")));
        }
        out + &rule
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}
