//! A cluster member: a `kvd serve` process that can be started, killed and started again.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use ordinal::client::{Client, Timeouts};
use tokio::time::{Instant, sleep};

use crate::support::{
    POLL_INTERVAL, WAIT_TIMEOUT, http,
    kvd::{self, Kvd},
    ports::{Ports, free_aligned_ports, local},
};

const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_secs(1), command: Duration::from_secs(20) };

/// The ports of the members of one cluster: ten for clients, ten for peers, ten for probes. In each
/// ten, the last digit is the ordinal.
#[derive(Debug, Clone, Copy)]
pub struct ClusterPorts {
    base: u16,
}

impl ClusterPorts {
    pub fn free() -> ClusterPorts {
        ClusterPorts { base: free_aligned_ports(30, 10).port() }
    }

    fn of(self, ordinal: usize) -> Ports {
        let at = |ten| self.address(ten, ordinal);
        Ports { client: at(0), peer: at(10), admin: at(20) }
    }

    pub fn peer(self, ordinal: usize) -> String {
        self.address(10, ordinal).to_string()
    }

    /// Value of `--peer-template`: the peer port of every ordinal.
    pub fn peer_template(self) -> String {
        format!("127.0.0.1:{}{{ordinal}}", (self.base + 10) / 10)
    }

    fn address(self, ten: u16, ordinal: usize) -> SocketAddr {
        assert!(ordinal < 10, "ten ports for each purpose");
        local(self.base + ten + ordinal as u16)
    }
}

/// A member, running or not. The process is killed on drop.
#[derive(Debug)]
pub struct Member {
    pub ordinal: usize,
    ports: Ports,
    /// Contains `data`, `log`, and `hold` while the member is kept from writing its log.
    dir: PathBuf,
    /// Flags besides ordinal, ports and directory.
    args: Vec<String>,
    kvd: Option<Kvd>,
}

impl Member {
    pub fn new(ordinal: usize, ports: ClusterPorts, root: &Path, args: Vec<String>) -> Member {
        let dir = root.join(format!("kv-{ordinal}"));
        fs::create_dir_all(&dir).unwrap();
        Member { ordinal, ports: ports.of(ordinal), dir, args, kvd: None }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn hold(&self) -> PathBuf {
        self.dir.join("hold")
    }

    /// Stops writes to the member's own log; replication goes on (debug builds only).
    #[cfg(debug_assertions)]
    pub fn hold_log(&self) {
        fs::write(self.hold(), "").unwrap();
    }

    #[cfg(debug_assertions)]
    pub fn release_log(&self) {
        fs::remove_file(self.hold()).unwrap();
    }

    pub fn endpoint(&self) -> String {
        self.ports.client.to_string()
    }

    /// The address at which other members dial this one.
    pub fn peer(&self) -> String {
        self.ports.peer.to_string()
    }

    /// A client of this member only.
    pub fn client(&self) -> Client {
        Client::new(vec![self.endpoint().parse().unwrap()], TIMEOUTS)
    }

    pub fn is_running(&self) -> bool {
        self.kvd.is_some()
    }

    pub fn start(&mut self) {
        assert!(self.kvd.is_none(), "member {} runs already", self.ordinal);
        let Ports { client, peer, admin } = self.ports;
        let mut command = kvd::command(&["serve"]);
        command
            .args(["--ordinal", &self.ordinal.to_string()])
            .args(["--listen-client-urls", &client.to_string()])
            .args(["--listen-peer-urls", &peer.to_string()])
            .args(["--listen-admin", &admin.to_string()])
            .arg("--data-dir")
            .arg(self.data())
            .args(&self.args)
            .env("KVD_FAULT_HOLD_WAL", self.hold())
            .env("NO_COLOR", "1");
        self.kvd = Some(Kvd::spawn(&mut command, self.log_path(), self.ports));
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.kvd = None;
    }

    /// SIGTERM. [`Member::exited`] waits for the exit.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGSTOP: the process makes no progress, and its connections stay open.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.kvd.as_ref().expect("a running member").signal(name);
    }

    /// Waits until the process exits by itself.
    pub async fn exited(&mut self) -> ExitStatus {
        let mut kvd = self.kvd.take().expect("a running member");
        kvd.exited(WAIT_TIMEOUT).await
    }

    /// SIGTERM; asserts that the process exits with success.
    pub async fn stop(&mut self) {
        self.terminate();
        let status = self.exited().await;
        assert!(status.success(), "member {} exited with {status}", self.ordinal);
    }

    /// Waits until the member is ready for clients.
    pub async fn wait_ready(&mut self) {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while !self.is_ready() {
            let kvd = self.kvd.as_mut().expect("a running member");
            let status = kvd.exited_within(Duration::ZERO).await;
            assert!(status.is_none(), "member {} exited: {status:?}", self.ordinal);
            assert!(Instant::now() < deadline, "member {} is not ready", self.ordinal);
            sleep(POLL_INTERVAL).await;
        }
    }

    pub fn is_ready(&self) -> bool {
        self.admin("/readyz").is_some_and(|answer| answer.status == 200)
    }

    /// The reason why the member is not ready. `None`: it is ready, or does not answer.
    #[cfg(debug_assertions)]
    pub fn why_not_ready(&self) -> Option<String> {
        self.admin("/readyz").filter(|answer| answer.status != 200).map(|answer| answer.body)
    }

    /// The value of one of its metrics.
    pub fn metric(&self, name: &str) -> Option<u64> {
        let text = self.admin("/metrics")?.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.trim().parse().unwrap())
    }

    fn admin(&self, path: &str) -> Option<http::Answer> {
        /// A frozen member accepts connections and does not answer.
        const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
        http::get(self.ports.admin, path, ANSWER_TIMEOUT)
    }

    /// The log of all runs of this member.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(40)..];
            println!("--- last lines of {}\n{}", self.log_path().display(), end.join("\n"));
        }
    }
}
