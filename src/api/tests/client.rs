//! Runs a script's commands as an etcd client would.

use std::{error::Error, fmt::Debug, sync::Arc};

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use prost::Message as _;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Server},
};

use super::{fake::FakeNode, members::FakeMembers, ops};
use crate::{
    api::{Options, routes},
    fault::Fault,
    lane::Lanes,
    node::{MembershipError, NodeError, TimeToLive},
    proto::{
        cluster_admin::{ClusterRequest, cluster_admin_client::ClusterAdminClient},
        etcdserverpb::{
            self as pb, RangeRequest, auth_client::AuthClient, cluster_client::ClusterClient,
            kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        },
    },
    shutdown::Shutdown,
    state::{MemoryStorage, StateMachine},
    types::{AlarmKind, CommandError, KeyValue, LeaseId, MemberId, Revision},
    watch::{self, Feed, WatchLanes, Watches},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Longer lines of a script's output are cut.
const LINE_CHARS_MAX: usize = 400;

/// Default values, omitted from a script's output.
const DEFAULTS: [&str; 24] = [
    "cluster_id: 0",
    "member_id: 0",
    "revision: 0",
    "raft_term: 0",
    "kvs: []",
    "more: false",
    "prev_kv: None",
    "prev_kvs: []",
    "limit: 0",
    "revision: Revision(0)",
    "sort_order: None",
    "sort_target: Key",
    "keys_only: false",
    "count_only: false",
    "min_mod_revision: Revision(0)",
    "max_mod_revision: Revision(0)",
    "min_create_revision: Revision(0)",
    "max_create_revision: Revision(0)",
    "value: b\"\"",
    "lease: LeaseId(0)",
    "lease: 0",
    "prev_kv: false",
    "ignore_value: false",
    "ignore_lease: false",
];

/// A connection to a server of the API, on one thread with it.
pub struct Client {
    runtime: Runtime,
    node: FakeNode,
    channel: Channel,
    /// Dropped, they would end the streams.
    _shutdown: Shutdown,
    _watch_lanes: WatchLanes,
}

impl Client {
    pub fn start() -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let node = FakeNode::new();
        // Small, so that scripts can exceed it.
        let options = Options { max_request_bytes: 4096, ..Options::default() };
        let shutdown = Shutdown::default();
        let (watches, watch_lanes) = runtime.block_on(async { start_idle_watches() });
        let members = FakeMembers(node.clone());
        let routes = routes(node.clone(), members, watches, options, shutdown.signal());
        let routes = super::as_served(routes);
        let channel = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let incoming = TcpListenerStream::new(listener);
            tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
            Endpoint::from_shared(url).unwrap().connect_lazy()
        });
        Client { runtime, node, channel, _shutdown: shutdown, _watch_lanes: watch_lanes }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    fn call(&self, command: &Command) -> Outcome<String> {
        let mut args = command.consume_args();
        let name = command.name.as_str();
        let output = match name {
            "fail" | "refuse" | "keys" | "lease" | "leader" | "alarm" | "others-write" => {
                self.set(name, &mut args)?
            }
            "range" | "stream" => self.range(name, &mut args)?,
            "put" => self.put(&mut args)?,
            "delete" => {
                let (key, range_end) = key_range(&mut args);
                let prev_kv = flag(&mut args, "prev_kv")?;
                let request = pb::DeleteRangeRequest { key, range_end, prev_kv };
                self.shown(self.runtime.block_on(self.kv().delete_range(request)))
            }
            "txn" => self.txn(&mut args)?,
            "compact" => {
                let revision = args.next_pos().ok_or("no revision")?.parse()?;
                let physical = flag(&mut args, "physical")?;
                let request = pb::CompactionRequest { revision, physical };
                self.shown(self.runtime.block_on(self.kv().compact(request)))
            }
            "members" => {
                let request =
                    pb::MemberListRequest { linearizable: flag(&mut args, "linearizable")? };
                let mut cluster = ClusterClient::new(self.channel.clone());
                self.shown(self.runtime.block_on(cluster.member_list(request)))
            }
            "member" | "move-leader" => self.member(name, &mut args)?,
            "cluster" | "status" | "hashkv" | "alarms" => self.maintain(name, &mut args)?,
            "grant" | "revoke" | "keep-alive" | "time-to-live" | "leases" => {
                self.on_leases(name, &mut args)?
            }
            "unimplemented" => self.runtime.block_on(self.unimplemented()),
            other => return Err(format!("unknown command {other}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }

    /// `cluster`, `status`, `hashkv REVISION`, `alarms`.
    fn maintain(&self, name: &str, args: &mut ArgumentConsumer) -> Outcome<String> {
        Ok(match name {
            "cluster" => {
                let mut cluster_admin = ClusterAdminClient::new(self.channel.clone());
                self.shown(self.runtime.block_on(cluster_admin.cluster(ClusterRequest {})))
            }
            "status" => {
                self.shown(self.runtime.block_on(self.maintenance().status(pb::StatusRequest {})))
            }
            "hashkv" => {
                let revision = args.next_pos().ok_or("no revision")?.parse()?;
                let request = pb::HashKvRequest { revision };
                self.shown(self.runtime.block_on(self.maintenance().hash_kv(request)))
            }
            "alarms" => {
                let request = pb::AlarmRequest {
                    alarm: number(args, "kind")? as i32,
                    action: number(args, "action")? as i32,
                    member_id: number(args, "member")? as u64,
                };
                self.shown(self.runtime.block_on(self.maintenance().alarm(request)))
            }
            other => return Err(format!("unknown command {other}").into()),
        })
    }

    /// `grant`, `revoke`, `keep-alive`, `time-to-live`, `leases`.
    fn on_leases(&self, name: &str, args: &mut ArgumentConsumer) -> Outcome<String> {
        Ok(match name {
            "grant" => {
                let request =
                    pb::LeaseGrantRequest { id: number(args, "id")?, ttl: number(args, "ttl")? };
                self.shown(self.runtime.block_on(self.lease().lease_grant(request)))
            }
            "revoke" => {
                let request = pb::LeaseRevokeRequest { id: number(args, "id")? };
                self.shown(self.runtime.block_on(self.lease().lease_revoke(request)))
            }
            "keep-alive" => self.keep_alive(args)?,
            "time-to-live" => {
                let keys = flag(args, "keys")?;
                let request = pb::LeaseTimeToLiveRequest { id: number(args, "id")?, keys };
                self.shown(self.runtime.block_on(self.lease().lease_time_to_live(request)))
            }
            "leases" => {
                let request = pb::LeaseLeasesRequest {};
                self.shown(self.runtime.block_on(self.lease().lease_leases(request)))
            }
            other => return Err(format!("unknown command {other}").into()),
        })
    }

    /// Changes the answers of the node.
    fn set(&self, name: &str, args: &mut ArgumentConsumer) -> Outcome<String> {
        let mut table = self.node.table();
        match name {
            "fail" => {
                let error = node_error(args.next_pos().ok_or("no error")?)?;
                table.failure = Some((number(args, "after")? as u32, error));
            }
            "refuse" => {
                let error = membership_error(args.next_pos().ok_or("no error")?)?;
                table.membership_error = Some(error);
            }
            "leader" => {
                table.status.leader = args.next_pos().map(str::parse).transpose()?.map(MemberId);
            }
            "alarm" => {
                let kind = match args.next_pos() {
                    Some("nospace") => AlarmKind::NoSpace,
                    Some("corrupt") => AlarmKind::Corrupt,
                    other => return Err(format!("no alarm {other:?}").into()),
                };
                let member = MemberId(number(args, "member")? as u64);
                table.status.alarms.push((member, kind));
            }
            "keys" => {
                let value = vec![b'v'; number(args, "value_bytes")? as usize];
                while let Some(key) = args.next_pos() {
                    let revision = 1 + table.keys.len() as i64;
                    table.keys.push(KeyValue {
                        key: ops::bytes(key),
                        value: value.clone().into(),
                        create_revision: Revision(revision),
                        mod_revision: Revision(revision),
                        version: 1,
                        ..KeyValue::default()
                    });
                }
            }
            "lease" => {
                let id = LeaseId(number(args, "id")?);
                let (granted, remaining) = (number(args, "ttl")?, number(args, "remaining")?);
                let keys = std::iter::from_fn(|| args.next_pos().map(ops::bytes)).collect();
                table.leases.insert(id, TimeToLive { granted, remaining, keys });
            }
            _ => table.revisions_between_calls = args.next_pos().ok_or("how many")?.parse()?,
        }
        Ok(String::new())
    }

    /// `member add URL…`, `member remove ID`, `move-leader ID`.
    fn member(&self, name: &str, args: &mut ArgumentConsumer) -> Outcome<String> {
        if name == "move-leader" {
            let target_id = args.next_pos().ok_or("no target")?.parse()?;
            let request = pb::MoveLeaderRequest { target_id };
            return Ok(self.shown(self.runtime.block_on(self.maintenance().move_leader(request))));
        }
        let verb = args.next_pos().ok_or("no verb")?.to_owned();
        let id = number(args, "id")? as u64;
        let peer_ur_ls: Vec<String> =
            std::iter::from_fn(|| args.next_pos().map(String::from)).collect();
        let mut cluster = ClusterClient::new(self.channel.clone());
        Ok(match verb.as_str() {
            "add" => {
                let request = pb::MemberAddRequest { peer_ur_ls, is_learner: false };
                self.shown(self.runtime.block_on(cluster.member_add(request)))
            }
            "remove" => {
                let request = pb::MemberRemoveRequest { id };
                self.shown(self.runtime.block_on(cluster.member_remove(request)))
            }
            "update" => {
                let request = pb::MemberUpdateRequest { id, peer_ur_ls };
                self.shown(self.runtime.block_on(cluster.member_update(request)))
            }
            "promote" => {
                let request = pb::MemberPromoteRequest { id };
                self.shown(self.runtime.block_on(cluster.member_promote(request)))
            }
            other => return Err(format!("no verb {other}").into()),
        })
    }

    fn range(&self, name: &str, args: &mut ArgumentConsumer) -> Outcome<String> {
        let summary = args.take_key("show") == Some("keys");
        let has_leader = flag(args, "hasleader")?;
        let session = args.take_key("session").map(str::parse).transpose()?;
        let mut request = Request::new(range_request(args)?);
        if let Some(session) = session {
            request.metadata_mut().insert("ordinal-session", session);
        }
        if has_leader {
            request.metadata_mut().insert("hasleader", "true".parse()?);
        }
        if name == "range" {
            return Ok(self.shown(self.runtime.block_on(self.kv().range(request))));
        }
        let mut lines = Vec::new();
        let end = self.runtime.block_on(async {
            let mut chunks = self.kv().range_stream(request).await?.into_inner();
            while let Some(chunk) = chunks.message().await? {
                let chunk = chunk.range_response.unwrap_or_default();
                lines.push(if summary { summarized(&chunk) } else { cut(&chunk) });
            }
            Ok(())
        });
        lines.splice(0..0, self.node_calls());
        lines.extend(end.err().map(refused));
        Ok(lines.join("\n"))
    }

    fn put(&self, args: &mut ArgumentConsumer) -> Outcome<String> {
        let key = ops::bytes(args.next_pos().ok_or("no key")?);
        let mut request = pb::PutRequest {
            key,
            lease: number(args, "lease")?,
            prev_kv: flag(args, "prev_kv")?,
            ignore_value: flag(args, "ignore_value")?,
            ignore_lease: flag(args, "ignore_lease")?,
            ..Default::default()
        };
        // As many bytes of value as make the request this long.
        let encoded = number(args, "request_bytes")? as usize;
        if encoded > 0 {
            while request.encoded_len() < encoded {
                let missing = encoded - request.encoded_len();
                request.value = vec![b'v'; request.value.len() + missing.div_ceil(2)].into();
            }
            assert_eq!(request.encoded_len(), encoded);
        }
        if let Some(value) = args.take_key("value") {
            request.value = ops::bytes(value);
        }
        Ok(self.shown(self.runtime.block_on(self.kv().put(request))))
    }

    /// Sends all these renewals at once on one stream.
    fn keep_alive(&self, args: &mut ArgumentConsumer) -> Outcome<String> {
        let has_leader = flag(args, "hasleader")?;
        let ids: Vec<i64> =
            std::iter::from_fn(|| args.next_pos().map(str::parse)).collect::<Result<_, _>>()?;
        let requests = ids.into_iter().map(|id| pb::LeaseKeepAliveRequest { id });
        let mut request = Request::new(tokio_stream::iter(requests.collect::<Vec<_>>()));
        if has_leader {
            request.metadata_mut().insert("hasleader", "true".parse()?);
        }
        let mut lines = Vec::new();
        let end = self.runtime.block_on(async {
            let mut responses = self.lease().lease_keep_alive(request).await?.into_inner();
            while let Some(response) = responses.message().await? {
                lines.push(cut(&response));
            }
            Ok(())
        });
        lines.splice(0..0, self.node_calls());
        lines.extend(end.err().map(refused));
        Ok(lines.join("\n"))
    }

    fn txn(&self, args: &mut ArgumentConsumer) -> Outcome<String> {
        let mut request = pb::TxnRequest {
            compare: ops::compares(args.take_key("if").unwrap_or_default()),
            success: ops::parse(args.take_key("then").unwrap_or_default()),
            failure: ops::parse(args.take_key("else").unwrap_or_default()),
        };
        for compare in &mut request.compare {
            compare.result = args.take_key("operator").map_or(Ok(0), str::parse)?;
        }
        let outcome = self.runtime.block_on(self.kv().txn(request));
        let mut lines = self.node_calls();
        match outcome.map(tonic::Response::into_inner) {
            Ok(mut response) => {
                let parts = std::mem::take(&mut response.responses);
                lines.push(cut(&response));
                lines.extend(parts.iter().map(|part| format!("  {}", cut(&part.response))));
            }
            Err(status) => lines.push(refused(status)),
        }
        Ok(lines.join("\n"))
    }

    /// Calls methods that are not implemented, in implemented services and in others.
    async fn unimplemented(&self) -> String {
        let mut maintenance = self.maintenance();
        let mut auth = AuthClient::new(self.channel.clone());
        let outcomes = [
            maintenance.defragment(pb::DefragmentRequest {}).await.err(),
            maintenance.hash(pb::HashRequest {}).await.err(),
            maintenance.snapshot(pb::SnapshotRequest {}).await.err(),
            maintenance.downgrade(pb::DowngradeRequest::default()).await.err(),
            auth.auth_enable(pb::AuthEnableRequest {}).await.err(),
        ];
        outcomes.map(|error| refused(error.expect("unimplemented"))).join("\n")
    }

    /// The calls of the node, then the client's result.
    fn shown<T: Debug>(&self, outcome: Result<tonic::Response<T>, Status>) -> String {
        let response = match outcome {
            Ok(response) => cut(&response.into_inner()),
            Err(status) => refused(status),
        };
        let mut lines = self.node_calls();
        lines.push(response);
        lines.join("\n")
    }

    fn node_calls(&self) -> Vec<String> {
        let calls = std::mem::take(&mut self.node.table().calls);
        calls.into_iter().map(|call| format!("node: {}", cut_text(call))).collect()
    }
}

/// The watches of an empty store. `watch.rs` tests watches of a store that changes.
fn start_idle_watches() -> (Watches, WatchLanes) {
    let machine = StateMachine::recover(Arc::new(MemoryStorage::default()), None, [], []).unwrap();
    let limits = watch::Limits::default();
    let options = watch::Options { fragment_bytes: 1 << 20, limits, lanes: Lanes::Tasks };
    let (feed, view) = (Feed::new(&limits), machine.view());
    Watches::start(options, &feed, view, Fault::default()).unwrap()
}

impl goldenscript::Runner for Client {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome<String> {
        self.call(command)
    }
}

fn refused(status: Status) -> String {
    format!("{:?} ({}): {}", status.code(), i32::from(status.code()), status.message())
}

fn cut(response: &impl Debug) -> String {
    cut_text(format!("{response:?}"))
}

fn cut_text(mut text: String) -> String {
    for default in DEFAULTS {
        // In the middle of a struct or at its beginning, and at its end.
        text = text.replace(&format!(" {default},"), "").replace(&format!(", {default} }}"), " }");
    }
    match text.char_indices().nth(LINE_CHARS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}

fn summarized(chunk: &pb::RangeResponse) -> String {
    let keys: Vec<_> = chunk.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
    let revision = chunk.header.map(|header| header.revision);
    format!(
        "{} keys: {}; revision {revision:?}, more {}, count {}",
        keys.len(),
        keys.join(" "),
        chunk.more,
        chunk.count
    )
}

fn key_range(args: &mut ArgumentConsumer) -> (Bytes, Bytes) {
    let key = args.next_pos().map(ops::bytes).unwrap_or_default();
    let end = args.take_key("end").map(ops::bytes).unwrap_or_default();
    (key, end)
}

fn range_request(args: &mut ArgumentConsumer) -> Outcome<RangeRequest> {
    let (key, range_end) = key_range(args);
    Ok(RangeRequest {
        key,
        range_end,
        limit: number(args, "limit")?,
        revision: number(args, "revision")?,
        sort_order: number(args, "order")? as i32,
        sort_target: number(args, "target")? as i32,
        serializable: flag(args, "serializable")?,
        keys_only: flag(args, "keys_only")?,
        count_only: flag(args, "count_only")?,
        min_mod_revision: number(args, "min_mod")?,
        max_mod_revision: number(args, "max_mod")?,
        min_create_revision: number(args, "min_create")?,
        max_create_revision: number(args, "max_create")?,
    })
}

/// `key=3`; zero without it.
fn number(args: &mut ArgumentConsumer, key: &str) -> Outcome<i64> {
    Ok(args.take_key(key).map_or(Ok(0), str::parse)?)
}

/// `key=true`.
fn flag(args: &mut ArgumentConsumer, key: &str) -> Outcome<bool> {
    Ok(args.take_key(key).map_or(Ok(false), str::parse)?)
}

fn node_error(name: &str) -> Outcome<NodeError> {
    Ok(match name {
        "compacted" => CommandError::Compacted.into(),
        "future-revision" => CommandError::FutureRevision.into(),
        "key-not-found" => CommandError::KeyNotFound.into(),
        "lease-not-found" => CommandError::LeaseNotFound.into(),
        "lease-exists" => CommandError::LeaseExists.into(),
        "lease-ttl-too-large" => CommandError::LeaseTtlTooLarge.into(),
        "no-space" => CommandError::NoSpace.into(),
        "no-leader" => NodeError::NoLeader,
        "leader-changed" => NodeError::LeaderChanged,
        "timeout" => NodeError::Timeout,
        "too-many-requests" => NodeError::TooManyRequests,
        "request-too-large" => NodeError::RequestTooLarge,
        "stopped" => NodeError::Stopped,
        "corrupt" => NodeError::Corrupt,
        other => return Err(format!("unknown error {other}").into()),
    })
}

fn membership_error(name: &str) -> Outcome<MembershipError> {
    Ok(match name {
        "not-leader" => MembershipError::NotLeader,
        "not-found" => MembershipError::NotFound,
        "ordinal-taken" => MembershipError::OrdinalTaken,
        "bad-urls" => MembershipError::BadUrls,
        "not-learner" => MembershipError::NotLearner,
        "not-in-sync" => MembershipError::NotInSync,
        "not-enough" => MembershipError::NotEnoughStarted,
        "bad-transferee" => MembershipError::BadTransferee,
        "transfer-timed-out" => MembershipError::TransferTimedOut,
        "refused" => MembershipError::Refused("do that instead".into()),
        other => MembershipError::Node(node_error(other)?),
    })
}
