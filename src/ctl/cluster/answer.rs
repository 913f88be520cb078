//! The cluster at a glance. Not etcdctl's: ids are hexadecimal in every format.

use crate::{
    ctl::print::{
        Answer, Rendered, ValueStyle,
        json::{Object, array, text},
        table::Table,
    },
    proto::cluster_admin::{ClusterMember, ClusterReply},
};

/// Between two columns.
const GAP: &str = "  ";

impl Answer for ClusterReply {
    fn simple(&self, _: ValueStyle) -> Rendered {
        let mut out = headline(self);
        for line in [desired(self), tolerated(self), blocked_change(self)].into_iter().flatten() {
            out += &line;
            out.push('\n');
        }
        out.push('\n');
        Rendered::stdout(out + &aligned(&members_table(self)))
    }

    /// Unknown values are `null`.
    fn json(&self, _: ValueStyle) -> String {
        let desired = self.desired.map(|desired| {
            Object::new()
                .value("start", desired.start.to_string())
                .value("replicas", desired.replicas.to_string())
                .value("generation", desired.generation.to_string())
                .end()
        });
        let leader = (self.leader != 0).then(|| hex_text(self.leader));
        let leading = self.leading.as_ref();
        let waits_for = leading.map(|l| &l.waits_for).filter(|reason| !reason.is_empty());
        let tolerates = leading.and_then(|l| l.tolerates);
        Object::new()
            .value("cluster", hex_text(self.cluster_id))
            .value("told_by", hex_text(self.member_id))
            .value("told_by_leader", leading.is_some().to_string())
            .value("leader", or_null(leader))
            .value("term", self.term.to_string())
            .value("follows_pods", self.follows_pods.to_string())
            .value("desired", or_null(desired))
            .value("tolerates", or_null(tolerates.map(|n| n.to_string())))
            .value("waits_for", or_null(waits_for.map(|reason| text(reason))))
            .value("members", array(&self.members, |member| member_json(member, self.leader)))
            .end()
    }

    fn table(&self) -> Option<Table> {
        Some(members_table(self))
    }
}

/// The answer to `cluster recover`.
#[derive(Debug, Clone)]
pub struct RecoveryStarted {
    /// The id of the new cluster.
    pub cluster_id: u64,
}

impl Answer for RecoveryStarted {
    fn simple(&self, _: ValueStyle) -> Rendered {
        Rendered::stdout(format!(
            "that member stops, and goes on alone as cluster {:x} when it is started again\n",
            self.cluster_id
        ))
    }

    fn json(&self, _: ValueStyle) -> String {
        Object::new().value("cluster_id", self.cluster_id.to_string()).end()
    }
}

/// The answer to `cluster found`.
#[derive(Debug, Clone)]
pub struct FoundingOrdered {
    /// The PersistentVolumeClaims that no longer prevent the founding.
    pub former_claims: Vec<String>,
}

impl Answer for FoundingOrdered {
    fn simple(&self, _: ValueStyle) -> Rendered {
        let despite = match &self.former_claims[..] {
            [] => String::new(),
            claims => format!(" despite {}", claims.join(", ")),
        };
        Rendered::stdout(format!(
            "ordered: a pod of this StatefulSet founds a new cluster{despite}, unless a member of another \
             one answers\n"
        ))
    }

    fn json(&self, _: ValueStyle) -> String {
        Object::new().value("former_claims", array(&self.former_claims, |name| text(name))).end()
    }
}

fn member_json(member: &ClusterMember, leader: u64) -> String {
    Object::new()
        .value("ordinal", member.ordinal.to_string())
        .value("member", hex_text(member.member_id))
        .value("name", text(&member.name))
        .value("role", text(role(member, leader)))
        .value("boot", member.boot.to_string())
        .value("in_contact", or_null(member.in_contact.map(|yes| yes.to_string())))
        .value("lag", or_null(member.lag.map(|lag| lag.to_string())))
        .value("client_urls", array(&member.client_urls, |url| text(url)))
        .end()
}

fn or_null(json: Option<String>) -> String {
    json.unwrap_or_else(|| "null".into())
}

fn hex_text(id: u64) -> String {
    text(&format!("{id:x}"))
}

fn members_table(reply: &ClusterReply) -> Table {
    let row = |member: &ClusterMember| {
        vec![
            member.ordinal.to_string(),
            format!("{:x}", member.member_id),
            if member.name.is_empty() { "-".into() } else { member.name.clone() },
            role(member, reply.leader).into(),
            member.boot.to_string(),
            match member.in_contact {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            }
            .into(),
            member.lag.map_or("-".into(), |lag| lag.to_string()),
            if member.client_urls.is_empty() { "-".into() } else { member.client_urls.join(",") },
        ]
    };
    Table {
        header: vec!["ORDINAL", "MEMBER", "NAME", "ROLE", "BOOT", "CONTACT", "LAG", "CLIENT ADDRS"],
        rows: reply.members.iter().map(row).collect(),
    }
}

/// The role of a member; during a change of voters, also the next one.
fn role(member: &ClusterMember, leader: u64) -> &'static str {
    match (member.votes, member.will_vote) {
        (true, _) if member.member_id == leader => "leader",
        (true, true) => "voter",
        (false, true) => "joins the voters",
        (true, false) => "leaves the voters",
        (false, false) => "learner",
    }
}

fn headline(reply: &ClusterReply) -> String {
    let name = |id: u64| {
        let member = reply.members.iter().find(|m| m.member_id == id);
        let name = member.map(|m| m.name.clone()).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| format!("{id:x}"))
    };
    let leader = match reply.leader {
        0 => "no leader".into(),
        id => format!("leader {}", name(id)),
    };
    let source = match &reply.leading {
        Some(_) => String::new(),
        None => format!("   as {} knows it, which does not lead", name(reply.member_id)),
    };
    format!("cluster {:x}   {leader}   term {}{source}\n", reply.cluster_id, reply.term)
}

fn desired(reply: &ClusterReply) -> Option<String> {
    let desired = reply.desired.filter(|_| reply.follows_pods)?;
    let from = match desired.start {
        0 => String::new(),
        start => format!(" from ordinal {start} on"),
    };
    Some(format!("the StatefulSet wants {} members{from}", desired.replicas))
}

/// The number of members that may be lost, and the reason if it is low. `None`: only the leader knows.
pub fn tolerated(reply: &ClusterReply) -> Option<String> {
    let leading = reply.leading.as_ref()?;
    let voters = reply.members.iter().filter(|m| m.will_vote).count();
    let more = match reply.follows_pods {
        true => "kubectl scale to three",
        false => "start more, up to three",
    };
    Some(match leading.tolerates {
        None => "too few voters are in contact: nothing can be written".into(),
        Some(0) if voters <= 2 && reply.members.len() <= 2 => {
            format!("tolerates no loss: one or two members never do ({more} to tolerate one)")
        }
        Some(0) => "tolerates no loss until all voters are in contact".into(),
        Some(1) => format!("tolerates the loss of 1 of {voters} voters"),
        Some(n) => format!("tolerates the loss of {n} of {voters} voters"),
    })
}

fn blocked_change(reply: &ClusterReply) -> Option<String> {
    let reason = &reply.leading.as_ref()?.waits_for;
    (!reason.is_empty()).then(|| format!("the next change of members waits: {reason}"))
}

/// Columns without boxes, as wide as their widest cell.
fn aligned(table: &Table) -> String {
    let widths = table.widths();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    let rows = table.rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    line(table.header.clone()) + &rows.collect::<String>()
}
