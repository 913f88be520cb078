//! The answers about members, as etcdctl prints them.

use crate::{
    ctl::{
        gotext::quote,
        print::{
            Answer, Rendered, ValueStyle,
            fields::Fields,
            json::{self, Object, text},
            simple::comma_separated,
            table::Table,
        },
    },
    proto::etcdserverpb::{
        Member, MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse,
        MemberUpdateResponse, MoveLeaderResponse, ResponseHeader,
    },
};

impl Answer for MemberListResponse {
    fn simple(&self, _: ValueStyle) -> Rendered {
        Rendered::stdout(comma_separated(&members_table(&self.members).rows))
    }

    fn json(&self, style: ValueStyle) -> String {
        // The only JSON in which etcdctl has hexadecimal ids.
        let header = self.header.map(|header| json::header(&header, style.hex));
        let member = |member: &Member| member_json(member, style.hex);
        Object::new().optional("header", header).list("members", &self.members, member).end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        Some(members_fields(self.header, &self.members, style))
    }

    fn table(&self) -> Option<Table> {
        Some(members_table(&self.members))
    }
}

/// The result of a command that changes a member or the leader.
#[derive(Debug, Clone)]
pub enum MemberChange {
    Added { name: String, urls: Vec<String>, response: MemberAddResponse },
    Removed(u64, MemberRemoveResponse),
    Updated(u64, MemberUpdateResponse),
    Promoted(u64, MemberPromoteResponse),
    LeaderMoved { from: u64, to: u64, response: MoveLeaderResponse },
}

impl MemberChange {
    fn header(&self) -> Option<ResponseHeader> {
        match self {
            MemberChange::Added { response, .. } => response.header,
            MemberChange::Removed(_, response) => response.header,
            MemberChange::Updated(_, response) => response.header,
            MemberChange::Promoted(_, response) => response.header,
            MemberChange::LeaderMoved { response, .. } => response.header,
        }
    }

    /// All members after the change. A new leader changes none.
    fn members(&self) -> &[Member] {
        match self {
            MemberChange::Added { response, .. } => &response.members,
            MemberChange::Removed(_, response) => &response.members,
            MemberChange::Updated(_, response) => &response.members,
            MemberChange::Promoted(_, response) => &response.members,
            MemberChange::LeaderMoved { .. } => &[],
        }
    }
}

impl Answer for MemberChange {
    fn simple(&self, _: ValueStyle) -> Rendered {
        let cluster = self.header().unwrap_or_default().cluster_id;
        let line =
            |id: u64, change: &str| format!("Member {id:>16x} {change} cluster {cluster:>16x}\n");
        Rendered::stdout(match self {
            MemberChange::Added { name, urls, response } => {
                let member = response.member.clone().unwrap_or_default();
                let change = if member.is_learner { "added as learner to" } else { "added to" };
                line(member.id, change) + &etcd_settings(name, urls, &member, response)
            }
            MemberChange::Removed(id, _) => line(*id, "removed from"),
            MemberChange::Updated(id, _) => line(*id, "updated in"),
            MemberChange::Promoted(id, _) => line(*id, "promoted in"),
            MemberChange::LeaderMoved { from, to, .. } => {
                format!("Leadership transferred from {from:x} to {to:x}\n")
            }
        })
    }

    fn json(&self, _: ValueStyle) -> String {
        let object = Object::new().header(self.header());
        let object = match self {
            MemberChange::Added { response, .. } => {
                let added = response.member.as_ref().map(|added| member_json(added, false));
                object.optional("member", added)
            }
            _ => object,
        };
        object.list("members", self.members(), |member| member_json(member, false)).end()
    }

    fn fields(&self, style: ValueStyle) -> Option<String> {
        Some(members_fields(self.header(), self.members(), style))
    }
}

/// The variables with which an etcd is started as the member that was added.
fn etcd_settings(
    name: &str,
    urls: &[String],
    added: &Member,
    response: &MemberAddResponse,
) -> String {
    let addresses = |member: &Member| {
        let name = if member.id == added.id { name } else { &member.name };
        member.peer_ur_ls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    let all: Vec<String> = response.members.iter().flat_map(addresses).collect();
    let line = |variable: &str, value: &str| format!("{variable}={}\n", quote(value.as_bytes()));
    [
        "\n".into(),
        line("ETCD_NAME", name),
        line("ETCD_INITIAL_CLUSTER", &all.join(",")),
        line("ETCD_INITIAL_ADVERTISE_PEER_URLS", &urls.join(",")),
        line("ETCD_INITIAL_CLUSTER_STATE", "existing"),
    ]
    .concat()
}

fn members_table(members: &[Member]) -> Table {
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

fn member_json(member: &Member, hex: bool) -> String {
    Object::new()
        .id("ID", member.id, hex)
        .text("name", &member.name)
        .list("peerURLs", &member.peer_ur_ls, |url| text(url))
        .list("clientURLs", &member.client_ur_ls, |url| text(url))
        .flag("isLearner", member.is_learner)
        .end()
}

fn members_fields(header: Option<ResponseHeader>, members: &[Member], style: ValueStyle) -> String {
    let mut fields = Fields::new(style);
    fields.header(header);
    for member in members {
        fields.id("ID", member.id);
        fields.quoted("Name", &member.name);
        member.peer_ur_ls.iter().for_each(|url| fields.quoted("PeerURL", url));
        member.client_ur_ls.iter().for_each(|url| fields.quoted("ClientURL", url));
        fields.field("IsLearner", member.is_learner);
        fields.blank();
    }
    fields.text()
}
