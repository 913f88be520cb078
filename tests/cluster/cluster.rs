//! A cluster of processes, in a directory of its own.

use std::path::Path;

use ordinal::client::{Client, Timeouts};
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};

use crate::process::{Member, PATIENCE, Ports, loopback};

/// Files of the log so small that a test goes through many of them, and little to fill with zeros.
pub(crate) const SMALL_LOG: [&str; 2] = ["--wal-segment-bytes", "1MiB"];

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    args: Vec<String>,
    /// Until it is dropped.
    dir: Option<TempDir>,
}

impl Cluster {
    /// Founds a cluster, and waits until every member wants clients.
    pub(crate) async fn start(members: usize, args: &[&str]) -> Cluster {
        let dir = TempDir::with_prefix_in("cluster-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let args = args.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster { members: Vec::new(), args, dir: Some(dir) };
        let ports: Vec<Ports> = (0..members).map(|_| Ports::free()).collect();
        for ordinal in 0..members {
            let member = cluster.member(ordinal, &ports);
            cluster.members.push(member);
        }
        for member in &mut cluster.members {
            member.start();
        }
        for member in &mut cluster.members {
            member.wait_ready().await;
        }
        cluster
    }

    /// One more member, told of all the others, who are not told of it. Not started yet.
    pub(crate) fn add(&mut self) -> &mut Member {
        let ordinal = self.members.len();
        let mut ports: Vec<Ports> = self.members.iter().map(|m| m.ports).collect();
        ports.push(Ports::free());
        let member = self.member(ordinal, &ports);
        self.members.push(member);
        &mut self.members[ordinal]
    }

    fn member(&self, ordinal: usize, all: &[Ports]) -> Member {
        let peers: Vec<String> = all.iter().map(|ports| loopback(ports.peer)).collect();
        let mut args = self.args.clone();
        args.extend(["--peers".into(), peers.join(",")]);
        Member::new(ordinal, all[ordinal], self.root(), args)
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
