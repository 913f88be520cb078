//! What the tests here do with a `kvd` process, beyond starting it.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use bytes::Bytes;
use ordinal::proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

pub(crate) use crate::process::{Kvd, Ports, free_port, free_ports, probe};
use crate::process::{LOOK, PATIENCE};

impl Kvd {
    /// Starts a member that is a cluster by itself.
    pub(crate) fn serve(scratch: &Path, data_dir: &Path, ports: Ports) -> Kvd {
        Kvd::serve_with(scratch, data_dir, ports, &[])
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says this.
    pub(crate) async fn says(&mut self, text: &str) {
        let start = Instant::now();
        while !self.said().contains(text) {
            assert!(start.elapsed() < PATIENCE, "never said {text:?}:\n{}", self.said());
            sleep(LOOK).await;
        }
    }

    /// Sends a signal, by the name that kill(1) knows.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let ended = self.ended_within(limit).await;
        ended.unwrap_or_else(|| panic!("still there after {limit:?}:\n{}", self.said()))
    }

    /// How it ended, if it did.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            // The last look is after the limit: this process may have been kept waiting, too.
            let late = start.elapsed() >= limit;
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || late {
                return ended;
            }
            sleep(LOOK).await;
        }
    }

    /// Asks it to end, and sees that it ends well.
    pub(crate) async fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended(PATIENCE).await;
        assert!(status.success(), "{status}:\n{}", self.said());
    }

    /// Memory that is its own now, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    pub(crate) async fn channel(&self) -> Channel {
        connect(self.ports.client).await
    }

    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }
}

/// A member of its own in a directory that goes away with it.
pub(crate) async fn lone_member() -> (Kvd, TempDir) {
    let scratch = TempDir::new().unwrap();
    let mut kvd = Kvd::serve(scratch.path(), &scratch.path().join("data"), Ports::free());
    kvd.ready().await;
    (kvd, scratch)
}

/// Runs `kvd` to its end, which comes at once.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kvd")).args(args).stdin(Stdio::null()).output().unwrap()
}

pub(crate) async fn connect(to: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{to}")).unwrap().connect().await.unwrap()
}

pub(crate) async fn put(kv: &mut KvClient<Channel>, key: &str, value: impl Into<Bytes>) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    kv.put(PutRequest { key, value: value.into(), ..Default::default() }).await.unwrap();
}

pub(crate) async fn get(kv: &mut KvClient<Channel>, key: &str) -> Option<Bytes> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let answer = kv.range(RangeRequest { key, ..Default::default() }).await.unwrap().into_inner();
    answer.kvs.into_iter().next().map(|kv| kv.value)
}
