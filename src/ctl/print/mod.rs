//! Answers as text: pure functions, one file for each format. Byte for byte what etcdctl prints.

mod cluster;
mod fields;
mod json;
mod report;
mod simple;
mod table;

pub(crate) use self::cluster::{role, tolerated};
use super::{
    CtlError,
    cli::Format,
    doctor::Report,
    endpoint::{EndpointHash, EndpointHealth, EndpointStatus},
    member::MemberAnswer,
};
use crate::proto::{
    etcdserverpb::{
        DeleteRangeResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
        LeaseRevokeResponse, LeaseTimeToLiveResponse, MemberListResponse, PutResponse,
        RangeResponse, ResponseHeader, TxnResponse,
    },
    mvccpb::{Event, event::EventType},
    own::ClusterReply,
};

/// What the cluster answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Get(RangeResponse),
    Put(PutResponse),
    Del(DeleteRangeResponse),
    Txn(TxnResponse),
    /// The revision that was asked for.
    Compacted(i64),
    Members(MemberListResponse),
    Member(MemberAnswer),
    Cluster(ClusterReply),
    /// As this new cluster.
    Recovering(u64),
    Report(Report),
    Status(Vec<EndpointStatus>),
    Health(Vec<EndpointHealth>),
    Hash(Vec<EndpointHash>),
    Granted(LeaseGrantResponse),
    Revoked(i64, LeaseRevokeResponse),
    KeptAlive(LeaseKeepAliveResponse),
    TimeToLive {
        left: LeaseTimeToLiveResponse,
        keys: bool,
    },
    Leases(LeaseLeasesResponse),
    Watch(WatchAnswer),
}

/// What a watch tells at once.
#[derive(Debug, Clone)]
pub(crate) struct WatchAnswer {
    pub(crate) header: ResponseHeader,
    pub(crate) events: Vec<Event>,
    /// The watch has ended; because of this compaction, if it is not 0.
    pub(crate) canceled: Option<i64>,
}

impl WatchAnswer {
    pub(crate) fn empty(header: ResponseHeader) -> WatchAnswer {
        WatchAnswer { header, events: vec![], canceled: None }
    }
}

/// What happened.
pub(crate) fn event_name(event: &Event) -> &'static str {
    match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    }
}

/// How values look.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    /// Bytes, and where etcdctl does so ids, in hexadecimal.
    pub(crate) hex: bool,
    /// Values without their keys.
    pub(crate) value_only: bool,
}

/// What goes where. Bytes, not text: keys and values are printed as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

pub(crate) fn render(answer: &Answer, format: Format, style: Style) -> Result<Printed, CtlError> {
    // etcdctl says this in every format.
    if let Answer::Compacted(revision) = answer {
        return Ok(out(format!("compacted revision {revision}\n")));
    }
    Ok(match format {
        Format::Simple => simple::render(answer, style),
        Format::Fields => out(fields::render(answer, style)),
        Format::Json => out(json::render(answer, style)),
        Format::Table => {
            let table = table::of(answer).ok_or_else(no_table)?;
            out(table.render())
        }
    })
}

/// Fails for the verbs that have no table.
pub(crate) fn refuse_table(format: Format) -> Result<(), CtlError> {
    if format == Format::Table { Err(no_table()) } else { Ok(()) }
}

/// Fails for the verbs that have none: they are not etcdctl's.
pub(crate) fn refuse_fields(format: Format) -> Result<(), CtlError> {
    match format {
        Format::Fields => Err(CtlError::BadFeature(
            "fields not supported as output format here; use -w simple or json".into(),
        )),
        _ => Ok(()),
    }
}

fn no_table() -> CtlError {
    CtlError::BadFeature(
        "table not supported as output format here; use -w simple, json or fields".into(),
    )
}

fn out(text: impl Into<Vec<u8>>) -> Printed {
    Printed { stdout: text.into(), stderr: vec![] }
}
