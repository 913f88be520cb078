//! A `kvd` process: start it, signal it, wait for it, read its log.
//!
//! A process that is dropped is killed, and the test fails if its log reports a panic.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use ordinal::proto::etcdserverpb::kv_client::KvClient;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::{POLL_INTERVAL, WAIT_TIMEOUT, grpc::connect, http, ports::Ports, retry::promise};

#[derive(Debug)]
pub struct Kvd {
    child: Child,
    log: PathBuf,
    pub ports: Ports,
}

/// `kvd`, to be started with these arguments.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvd"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs `kvd` with these arguments until it exits by itself.
pub fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// A cluster of one member, in a directory that is removed with it.
pub async fn lone_member() -> (Kvd, TempDir) {
    let scratch = TempDir::new().unwrap();
    let mut kvd = Kvd::serve(scratch.path(), &scratch.path().join("data"), Ports::free());
    kvd.ready().await;
    (kvd, scratch)
}

impl Kvd {
    /// Starts it; its log goes to a file in `scratch`.
    pub fn start(scratch: &Path, ports: Ports, args: &[&str]) -> Kvd {
        let log = scratch.join(format!("kvd-{}.log", ports.client.port()));
        Kvd::spawn(&mut command(args), log, ports)
    }

    /// Starts this command, which must be one of `kvd`; its log is appended to the file.
    pub fn spawn(command: &mut Command, log: PathBuf, ports: Ports) -> Kvd {
        let to = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(to).spawn().unwrap();
        Kvd { child, log, ports }
    }

    /// Starts the only member of a cluster.
    pub fn serve(scratch: &Path, data_dir: &Path, ports: Ports) -> Kvd {
        Kvd::serve_with(scratch, data_dir, ports, &[])
    }

    /// The same, with additional flags.
    pub fn serve_with(scratch: &Path, data_dir: &Path, ports: Ports, more: &[&str]) -> Kvd {
        let listen = [ports.client, ports.peer, ports.admin].map(|a| a.to_string());
        let mut args = vec!["serve", "--ordinal=0", "--data-dir", data_dir.to_str().unwrap()];
        args.extend(["--listen-client-urls", &listen[0], "--listen-peer-urls", &listen[1]]);
        args.extend(["--listen-admin", &listen[2]]);
        args.extend(more);
        Kvd::start(scratch, ports, &args)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log contains this.
    pub async fn logs(&mut self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < WAIT_TIMEOUT, "not logged: {text:?}:\n{}", self.log());
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until the member is ready for clients.
    pub async fn ready(&mut self) {
        let start = Instant::now();
        while readiness(self.ports.admin) != Some(200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("exited with {status}:\n{}", self.log());
            }
            assert!(start.elapsed() < WAIT_TIMEOUT, "never ready:\n{}", self.log());
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Sends a signal, by its name for kill(1).
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits until the process exits by itself.
    pub async fn exited(&mut self, limit: Duration) -> ExitStatus {
        let status = self.exited_within(limit).await;
        status.unwrap_or_else(|| panic!("still running after {limit:?}:\n{}", self.log()))
    }

    /// The exit status, if the process exits within the limit.
    pub async fn exited_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            // The last check comes after the limit: this process may have been kept waiting, too.
            let late = start.elapsed() >= limit;
            let status = self.child.try_wait().unwrap();
            if status.is_some() || late {
                return status;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// SIGTERM; asserts that the process exits with success.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let status = self.exited(WAIT_TIMEOUT).await;
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Memory that is resident now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// A line of `/proc/PID/status` in bytes: `VmRSS:` for now, `VmHWM:` for the peak so far.
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    pub async fn channel(&self) -> Channel {
        connect(self.ports.client).await
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }
}

impl Drop for Kvd {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let log = self.log();
            promise(|| assert!(!log.contains("panicked"), "{log}"));
        }
    }
}

/// The HTTP status of `/readyz`; `None` if nothing listens.
pub fn readiness(admin: SocketAddr) -> Option<u16> {
    http::get(admin, "/readyz", WAIT_TIMEOUT).map(|answer| answer.status)
}
