//! `kvd dev`, worked with a little, and scraped.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ordinal::proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, WatchCreateRequest,
    WatchRequest, kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

/// Nothing here takes so long, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// From a member's client port to its admin port, as `kvd dev --help` says.
const ADMIN: u16 = 100;

/// A running `kvd dev`. Dropped, it is killed.
pub(crate) struct Cluster {
    child: Child,
    base: u16,
    members: u16,
    /// Its `log`, and the members' data.
    dir: TempDir,
}

impl Cluster {
    /// Founds it, and waits until every member is ready.
    pub(crate) async fn start(members: u16) -> Cluster {
        Cluster::start_with(members, &[], "warn").await
    }

    /// The same, with more flags and another `RUST_LOG`.
    pub(crate) async fn start_with(members: u16, args: &[&str], filter: &str) -> Cluster {
        let dir = TempDir::with_prefix_in("metrics-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let base = free_ports();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kvd"))
            // A leader must stay one on a machine that many tests share.
            .args(["dev", "--wal-segment-bytes=1MiB", "--election-timeout=5s"])
            .args([format!("--members={members}"), format!("--base-port={base}")])
            .arg("--data-dir")
            .arg(dir.path())
            .args(args)
            .env("RUST_LOG", filter)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let cluster = Cluster { child, base, members, dir };
        let start = Instant::now();
        for member in 0..members {
            while cluster.ask(member, "/readyz").await.is_none_or(|(status, _)| status != 200) {
                assert!(start.elapsed() < PATIENCE, "member {member} is never ready");
                sleep(LOOK).await;
            }
        }
        cluster
    }

    /// On every member: three keys put, of which one is deleted, a read, a put that is refused; a
    /// lease, and a watch that sees one event and ends.
    pub(crate) async fn work(&self) {
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

    pub(crate) async fn metrics(&self, member: u16) -> String {
        let (status, text) = self.ask(member, "/metrics").await.unwrap();
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The answer of a member's admin port; `None` while nobody answers.
    async fn ask(&self, member: u16, path: &str) -> Option<(u16, String)> {
        let address = (Ipv4Addr::LOCALHOST, self.base + ADMIN + member);
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: kv\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let status = answer.split_whitespace().nth(1)?.parse().ok()?;
            let (_, body) = answer.split_once("\r\n\r\n")?;
            Some((status, body.to_string()))
        };
        timeout(PATIENCE, asked).await.unwrap()
    }

    /// Asks it to end, sees that it ends well, and gives what it said.
    pub(crate) async fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let said = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
                assert!(status.success(), "{status}:\n{said}");
                return said;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            sleep(LOOK).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Ended already: that is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn watch_one_event(at: String, key: &str) {
    let watch = WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        start_revision: 1,
        ..Default::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch)) };
    // The requests stay open: the stream ends because its client goes.
    let requests = stream::once(std::future::ready(create)).chain(stream::pending());
    let mut client = WatchClient::connect(at).await.unwrap();
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    while answers.message().await.unwrap().unwrap().events.is_empty() {}
}

/// The first of enough ports for a cluster. They lie below those that the kernel gives to outgoing
/// connections.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 80).unwrap() * 200;
    let free = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err();
    loop {
        let n = NEXT.fetch_add(10, Ordering::Relaxed);
        let base = 13_000 + (start + n) % 16_000;
        if (base..base + 6).chain(base + ADMIN..base + ADMIN + 3).all(free) {
            return base;
        }
    }
}
