//! The cluster at a glance, as text.

use super::table::Table;
use crate::proto::own::{ClusterMember, ClusterReply};

/// Between two columns.
const GAP: &str = "  ";

pub(crate) fn table(reply: &ClusterReply) -> Table {
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
    Table::new(
        vec!["ORDINAL", "MEMBER", "NAME", "ROLE", "BOOT", "CONTACT", "LAG", "CLIENT ADDRS"],
        reply.members.iter().map(row).collect(),
    )
}

/// What a member does; while voters are being changed, what it is about to.
pub(crate) fn role(member: &ClusterMember, leader: u64) -> &'static str {
    match (member.votes, member.will_vote) {
        (true, _) if member.member_id == leader => "leader",
        (true, true) => "voter",
        (false, true) => "joins the voters",
        (true, false) => "leaves the voters",
        (false, false) => "learner",
    }
}

pub(crate) fn text(reply: &ClusterReply) -> String {
    let mut out = headline(reply);
    for line in [desired(reply), tolerated(reply), waits_for(reply)].into_iter().flatten() {
        out += &line;
        out.push('\n');
    }
    out.push('\n');
    out + &aligned(&table(reply))
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
    let told = match &reply.leading {
        Some(_) => String::new(),
        None => format!("   as {} knows it, which does not lead", name(reply.member_id)),
    };
    format!("cluster {:x}   {leader}   term {}{told}\n", reply.cluster_id, reply.term)
}

fn desired(reply: &ClusterReply) -> Option<String> {
    let desired = reply.desired.filter(|_| reply.follows_pods)?;
    let from = match desired.start {
        0 => String::new(),
        start => format!(" from ordinal {start} on"),
    };
    Some(format!("the StatefulSet wants {} members{from}", desired.replicas))
}

/// How many losses there may be, and why not more.
pub(crate) fn tolerated(reply: &ClusterReply) -> Option<String> {
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

fn waits_for(reply: &ClusterReply) -> Option<String> {
    let why = &reply.leading.as_ref()?.waits_for;
    (!why.is_empty()).then(|| format!("the next change of members waits: {why}"))
}

/// Columns without boxes: numbers are as wide as they need to be.
fn aligned(table: &Table) -> String {
    let widths = table.widths();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    let rows = table.rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    line(table.header.clone()) + &rows.collect::<String>()
}
