//! A cluster of processes, in a directory of its own.

use std::path::Path;

use ordinal::client::{Client, Timeouts};
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};

use crate::process::{Member, PATIENCE, Ports};

/// Files of the log so small that a test goes through many of them, and little to fill with zeros.
pub(crate) const SMALL_LOG: [&str; 2] = ["--wal-segment-bytes", "1MiB"];

/// The same, and no election only because the machine is busy for a second.
pub(crate) const CALM: [&str; 4] = ["--wal-segment-bytes", "1MiB", "--election-timeout", "5s"];

/// So that a few hundred writes make a snapshot and drop the log behind it.
pub(crate) const LITTLE_LOG: [&str; 6] = [
    "--wal-segment-bytes",
    "64KiB",
    "--snapshot-log-bytes",
    "128KiB",
    "--keep-log-bytes",
    "128KiB",
];

/// How members are told where the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    /// `--peers`: those that found the cluster.
    Founders(usize),
    /// `--peer-template`: all that may ever be. So many found the cluster.
    All(usize),
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    ports: Ports,
    addresses: Addresses,
    args: Vec<String>,
    /// Until it is dropped.
    dir: Option<TempDir>,
}

impl Cluster {
    /// Founds a cluster, and waits until every member wants clients.
    pub(crate) async fn start(members: usize, args: &[&str]) -> Cluster {
        Cluster::found(Addresses::Founders(members), members, args).await
    }

    /// The same, and members may be added.
    pub(crate) async fn start_to_grow(members: usize, args: &[&str]) -> Cluster {
        Cluster::found(Addresses::All(members), members, args).await
    }

    async fn found(addresses: Addresses, members: usize, args: &[&str]) -> Cluster {
        let dir = TempDir::with_prefix_in("cluster-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let args = args.iter().map(ToString::to_string).collect();
        let (ports, dir) = (Ports::free(), Some(dir));
        let mut cluster = Cluster { members: Vec::new(), ports, addresses, args, dir };
        for _ in 0..members {
            cluster.add().start();
        }
        for member in &mut cluster.members {
            member.wait_ready().await;
        }
        cluster
    }

    /// One more member, not started yet.
    pub(crate) fn add(&mut self) -> &mut Member {
        let ordinal = self.members.len();
        let mut args = self.args.clone();
        match self.addresses {
            Addresses::Founders(founders) => {
                let peers: Vec<String> = (0..founders).map(|i| self.ports.peer(i)).collect();
                args.extend(["--peers".into(), peers.join(",")]);
            }
            Addresses::All(founders) => {
                args.extend(["--peer-template".into(), self.ports.peer_template()]);
                args.extend(["--initial-replicas".into(), founders.to_string()]);
            }
        }
        let member = Member::new(ordinal, self.ports, self.root(), args);
        self.members.push(member);
        &mut self.members[ordinal]
    }

    fn root(&self) -> &Path {
        self.dir.as_ref().expect("there until it is dropped").path()
    }

    /// A client of all members, which asks this one first.
    pub(crate) fn client(&self, first: usize, timeouts: Timeouts) -> Client {
        let n = self.members.len();
        let endpoint = |i: usize| self.members[(first + i) % n].endpoint().parse().unwrap();
        Client::new((0..n).map(endpoint).collect(), timeouts)
    }

    /// Which member leads, as soon as the running ones agree.
    pub(crate) async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
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
        // Ended before their directory goes; each prints its log if the test failed.
        self.members.clear();
        if let Some(dir) = self.dir.take()
            && std::thread::panicking()
        {
            println!("--- kept for you: {}", dir.keep().display());
        }
    }
}
