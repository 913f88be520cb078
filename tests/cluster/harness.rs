//! A cluster of `kvd` processes in a directory of its own.

use std::path::Path;

use ordinal::client::{Client, Timeouts};
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    cluster::member::{ClusterPorts, Member},
    support::WAIT_TIMEOUT,
};

/// Small log segments: a test uses many of them, and preallocation has little to write.
pub const SMALL_SEGMENTS: [&str; 2] = ["--wal-segment-bytes", "1MiB"];

/// The same, with an election timeout that a busy machine does not exceed.
pub const LONG_ELECTION_TIMEOUT: [&str; 4] =
    ["--wal-segment-bytes", "1MiB", "--election-timeout", "5s"];

/// Limits so low that a few hundred writes trigger a snapshot and a purge of the log.
pub const FREQUENT_SNAPSHOTS: [&str; 6] = [
    "--wal-segment-bytes",
    "64KiB",
    "--snapshot-log-bytes",
    "128KiB",
    "--keep-log-bytes",
    "128KiB",
];

/// How a member learns the addresses of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    /// `--peers`: the bootstrap members only.
    Bootstrap(usize),
    /// `--peer-template`: any number of members, of which this many bootstrap the cluster.
    All(usize),
}

#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Member>,
    ports: ClusterPorts,
    addresses: Addresses,
    args: Vec<String>,
    /// Set until the cluster is dropped.
    dir: Option<TempDir>,
}

impl Cluster {
    /// Bootstraps a cluster, and waits until every member is ready for clients.
    pub async fn start(members: usize, args: &[&str]) -> Cluster {
        Cluster::bootstrap(Addresses::Bootstrap(members), members, args).await
    }

    /// The same, for a cluster to which members may be added.
    pub async fn start_to_grow(members: usize, args: &[&str]) -> Cluster {
        Cluster::bootstrap(Addresses::All(members), members, args).await
    }

    async fn bootstrap(addresses: Addresses, members: usize, args: &[&str]) -> Cluster {
        let dir = TempDir::with_prefix_in("cluster-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let args = args.iter().map(ToString::to_string).collect();
        let (ports, dir) = (ClusterPorts::free(), Some(dir));
        let mut cluster = Cluster { members: Vec::new(), ports, addresses, args, dir };
        for _ in 0..members {
            cluster.add().start();
        }
        for member in &mut cluster.members {
            member.wait_ready().await;
        }
        cluster
    }

    /// Adds a member without starting it.
    pub fn add(&mut self) -> &mut Member {
        let ordinal = self.members.len();
        let mut args = self.args.clone();
        match self.addresses {
            Addresses::Bootstrap(bootstrap) => {
                let peers: Vec<String> = (0..bootstrap).map(|i| self.ports.peer(i)).collect();
                args.extend(["--peers".into(), peers.join(",")]);
            }
            Addresses::All(bootstrap) => {
                args.extend(["--peer-template".into(), self.ports.peer_template()]);
                args.extend(["--initial-replicas".into(), bootstrap.to_string()]);
            }
        }
        let member = Member::new(ordinal, self.ports, self.root(), args);
        self.members.push(member);
        &mut self.members[ordinal]
    }

    fn root(&self) -> &Path {
        self.dir.as_ref().expect("there until it is dropped").path()
    }

    /// A client of all members that starts with member `first`.
    pub fn client(&self, first: usize, timeouts: Timeouts) -> Client {
        let n = self.members.len();
        let endpoint = |i: usize| self.members[(first + i) % n].endpoint().parse().unwrap();
        Client::new((0..n).map(endpoint).collect(), timeouts)
    }

    /// The leader, as soon as all running members agree on it.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            if let Some(leader) = self.agreed_leader().await {
                return leader;
            }
            assert!(Instant::now() < deadline, "the members do not agree on a leader");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn agreed_leader(&self) -> Option<usize> {
        let mut named = None;
        let mut ids = Vec::new();
        for member in self.members.iter().filter(|m| m.is_running()) {
            let status = member.client().status().await.ok()?;
            if status.leader == 0 || named.is_some_and(|id| id != status.leader) {
                return None;
            }
            named = Some(status.leader);
            ids.push((status.header?.member_id, member.ordinal));
        }
        ids.into_iter().find(|(id, _)| Some(*id) == named).map(|(_, ordinal)| ordinal)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The processes must exit before their directory is removed. Each prints its log if the
        // test failed.
        self.members.clear();
        if let Some(dir) = self.dir.take()
            && std::thread::panicking()
        {
            println!("--- kept: {}", dir.keep().display());
        }
    }
}
