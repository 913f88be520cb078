//! `kvd dev`, used a little, and scraped.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ordinal::proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, WatchCreateRequest,
    WatchRequest, kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::support::{
    POLL_INTERVAL, WAIT_TIMEOUT, http,
    kvd::{self, Kvd},
    ports::{Ports, free_ports, local},
};

/// From a member's client port to its admin port, as `kvd dev --help` says.
const ADMIN: u16 = 100;

/// A running `kvd dev`. Dropped, it is killed.
pub struct Cluster {
    kvd: Kvd,
    base: u16,
    members: u16,
    /// Contains `log` and the members' data.
    _dir: TempDir,
}

impl Cluster {
    /// Bootstraps a cluster, and waits until every member is ready.
    pub async fn start(members: u16) -> Cluster {
        Cluster::start_with(members, &[], "warn").await
    }

    /// The same, with additional flags and this `RUST_LOG`.
    pub async fn start_with(members: u16, args: &[&str], filter: &str) -> Cluster {
        let dir = TempDir::with_prefix_in("metrics-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        // `kvd dev` uses two ports of each member from here on, and one from `ADMIN` on.
        let base = free_ports(ADMIN + members).port();
        let ports =
            Ports { client: local(base), peer: local(base + 1), admin: local(base + ADMIN) };
        let mut command = kvd::command(&["dev"]);
        command
            // Leadership must not change on a machine that many tests share.
            .args(["--wal-segment-bytes=1MiB", "--election-timeout=5s"])
            .args([format!("--members={members}"), format!("--base-port={base}")])
            .arg("--data-dir")
            .arg(dir.path())
            .args(args)
            .env("RUST_LOG", filter);
        let kvd = Kvd::spawn(&mut command, dir.path().join("log"), ports);
        let cluster = Cluster { kvd, base, members, _dir: dir };
        let start = Instant::now();
        for member in 0..members {
            while cluster.admin(member, "/readyz").is_none_or(|answer| answer.status != 200) {
                assert!(start.elapsed() < WAIT_TIMEOUT, "member {member} is never ready");
                sleep(POLL_INTERVAL).await;
            }
        }
        cluster
    }

    /// On every member: three puts, one delete, one read and one refused put; a lease; and a watch
    /// that receives one event and ends.
    pub async fn exercise(&self) {
        for member in 0..self.members {
            let to = format!("http://127.0.0.1:{}", self.base + 2 * member);
            let mut kv = KvClient::connect(to.clone()).await.unwrap();
            for key in ["a", "b", "c"] {
                kv.put(PutRequest { key: key.into(), ..Default::default() }).await.unwrap();
            }
            let key = || "b".into();
            let delete = DeleteRangeRequest { key: key(), ..Default::default() };
            kv.delete_range(delete).await.unwrap();
            kv.range(RangeRequest { key: key(), ..Default::default() }).await.unwrap();
            kv.put(PutRequest::default()).await.unwrap_err();
            let lease = LeaseGrantRequest { ttl: 100, ..Default::default() };
            LeaseClient::connect(to.clone()).await.unwrap().lease_grant(lease).await.unwrap();
            watch_one_event(to, "a").await;
        }
    }

    pub fn metrics(&self, member: u16) -> String {
        let answer = self.admin(member, "/metrics").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    fn admin(&self, member: u16, path: &str) -> Option<http::Answer> {
        http::get(local(self.base + ADMIN + member), path, WAIT_TIMEOUT)
    }

    /// SIGTERM; asserts that the process exits with success, and returns its log.
    pub async fn stop(mut self) -> String {
        self.kvd.signal("TERM");
        let status = self.kvd.exited(WAIT_TIMEOUT).await;
        let log = self.kvd.log();
        assert!(status.success(), "{status}:\n{log}");
        log
    }
}

async fn watch_one_event(at: String, key: &str) {
    let watch = WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        start_revision: 1,
        ..Default::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch)) };
    // The request stream stays open: the watch ends with its client.
    let requests = stream::once(std::future::ready(create)).chain(stream::pending());
    let mut client = WatchClient::connect(at).await.unwrap();
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    while answers.message().await.unwrap().unwrap().events.is_empty() {}
}
