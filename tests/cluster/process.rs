//! One `kvd serve` process: start, kill, terminate, and what it said.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use ordinal::client::{Client, Timeouts};
use tokio::time::{Instant, sleep};

/// A member that has not done within this what it was asked to will not do it. Long, because all
/// tests together may have one busy core.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_secs(1), command: Duration::from_secs(4) };

/// A port that nobody listens on. Below those that the system gives to outgoing connections, so
/// that it is still free when a killed member wants it back.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() * 101 % 20_000) as u16;
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (base - 10_000 + offset) % 20_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Where a member listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) client: u16,
    pub(crate) peer: u16,
    pub(crate) admin: u16,
}

impl Ports {
    pub(crate) fn free() -> Ports {
        Ports { client: free_port(), peer: free_port(), admin: free_port() }
    }
}

pub(crate) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A member, running or not. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) ordinal: usize,
    pub(crate) ports: Ports,
    /// The directory of this member: `data`, `log`, and `hold` while its log's writes are held back.
    dir: PathBuf,
    /// Beyond ordinal, ports and directory.
    args: Vec<String>,
    child: Option<Child>,
}

impl Member {
    pub(crate) fn new(ordinal: usize, ports: Ports, root: &Path, args: Vec<String>) -> Member {
        let dir = root.join(format!("kv-{ordinal}"));
        fs::create_dir_all(&dir).unwrap();
        Member { ordinal, ports, dir, args, child: None }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// While this file exists, the member's log writes nothing (debug builds).
    pub(crate) fn hold(&self) -> PathBuf {
        self.dir.join("hold")
    }

    pub(crate) fn endpoint(&self) -> String {
        loopback(self.ports.client)
    }

    /// A client of this member only.
    pub(crate) fn client(&self) -> Client {
        Client::new(vec![self.endpoint().parse().unwrap()], TIMEOUTS)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "member {} runs already", self.ordinal);
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let Ports { client, peer, admin } = self.ports;
        let child = Command::new(env!("CARGO_BIN_EXE_kvd"))
            .arg("serve")
            .args(["--ordinal", &self.ordinal.to_string()])
            .args(["--listen-client", &loopback(client)])
            .args(["--listen-peer", &loopback(peer)])
            .args(["--listen-admin", &loopback(admin)])
            .arg("--data-dir")
            .arg(self.data())
            .args(&self.args)
            .env("KVD_FAULT_HOLD_WAL", self.hold())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself just now.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; [`Member::exited`] waits for what comes of it.
    pub(crate) fn terminate(&self) {
        let pid = self.child.as_ref().expect("it runs").id();
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "member {} does not end", self.ordinal);
            sleep(POLL).await;
        };
        self.child = None;
        status
    }

    /// SIGTERM, and waits until it has ended as it should.
    pub(crate) async fn stop(&mut self) {
        self.terminate();
        let status = self.exited().await;
        assert!(status.success(), "member {} ended with {status}", self.ordinal);
    }

    /// Waits until it wants clients.
    pub(crate) async fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.as_mut().expect("it runs").try_wait().unwrap();
            assert!(ended.is_none(), "member {} ended by itself: {ended:?}", self.ordinal);
            let answer = self.admin("/readyz");
            if answer.as_deref().is_some_and(|text| text.starts_with("HTTP/1.1 200")) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "member {} is not ready: {}",
                self.ordinal,
                answer.unwrap_or("no answer".into())
            );
            sleep(POLL).await;
        }
    }

    /// The value of one of its metrics.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let text = self.admin("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.trim().parse().unwrap())
    }

    /// What the admin port answers, status line and all.
    fn admin(&self, path: &str) -> Option<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.admin));
        let mut stream = TcpStream::connect_timeout(&address, POLL).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: kv\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Everything it said so far, in all its lives.
    pub(crate) fn log(&self) -> String {
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
            println!("--- {}: the end of\n{}", self.log_path().display(), end.join("\n"));
        }
    }
}
