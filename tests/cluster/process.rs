//! One `kvd serve` process: start, kill, terminate, and what it said.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use ordinal::client::{Client, Timeouts};
use tokio::time::{Instant, sleep};

/// A member that has not done within this what it was asked to will not do it. Long, because all
/// tests together may have one busy core.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(20);
const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_secs(1), command: Duration::from_secs(20) };

/// Where the members of one cluster listen: thirty ports, ten of them for members' clients, ten for
/// peers, ten for probes; in each ten, the last digit is the ordinal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    base: u16,
}

impl Ports {
    /// Ports that nobody listens on. Below those that the system gives to outgoing connections, so
    /// that they are still free when a killed member wants them back.
    pub(crate) fn free() -> Ports {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        const BLOCKS: u32 = 700;
        // Asked, not taken for a moment: a process started just then would hold a copy of the socket.
        let free = |port: u16| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err();
        loop {
            let block = (std::process::id() * 37 + NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
            let base = 10_000 + 30 * block as u16;
            if (base..base + 30).all(free) {
                return Ports { base };
            }
        }
    }

    fn client(self, ordinal: usize) -> String {
        self.address(0, ordinal)
    }

    pub(crate) fn peer(self, ordinal: usize) -> String {
        self.address(10, ordinal)
    }

    /// Stands for every ordinal's peer port.
    pub(crate) fn peer_template(self) -> String {
        format!("127.0.0.1:{}{{ordinal}}", (self.base + 10) / 10)
    }

    fn admin(self, ordinal: usize) -> String {
        self.address(20, ordinal)
    }

    fn address(self, ten: u16, ordinal: usize) -> String {
        assert!(ordinal < 10, "ten ports for each purpose");
        format!("127.0.0.1:{}", self.base + ten + ordinal as u16)
    }
}

/// A member, running or not. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) ordinal: usize,
    ports: Ports,
    /// Its `data`, its `log`, and `hold` while it is kept from writing its log.
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

    fn hold(&self) -> PathBuf {
        self.dir.join("hold")
    }

    /// From now on it writes nothing to its log, and yet replicates (debug builds only).
    #[cfg(debug_assertions)]
    pub(crate) fn hold_log(&self) {
        fs::write(self.hold(), "").unwrap();
    }

    #[cfg(debug_assertions)]
    pub(crate) fn release_log(&self) {
        fs::remove_file(self.hold()).unwrap();
    }

    pub(crate) fn endpoint(&self) -> String {
        self.ports.client(self.ordinal)
    }

    /// Where other members dial it.
    pub(crate) fn peer(&self) -> String {
        self.ports.peer(self.ordinal)
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
        let child = Command::new(env!("CARGO_BIN_EXE_kvd"))
            .arg("serve")
            .args(["--ordinal", &self.ordinal.to_string()])
            .args(["--listen-client", &self.ports.client(self.ordinal)])
            .args(["--listen-peer", &self.ports.peer(self.ordinal)])
            .args(["--listen-admin", &self.ports.admin(self.ordinal)])
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
        while !self.is_ready() {
            let ended = self.child.as_mut().expect("it runs").try_wait().unwrap();
            assert!(ended.is_none(), "member {} ended by itself: {ended:?}", self.ordinal);
            assert!(Instant::now() < deadline, "member {} is not ready", self.ordinal);
            sleep(POLL).await;
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.admin("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The value of one of its metrics.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let text = self.admin("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.trim().parse().unwrap())
    }

    /// What the admin port answers, status line and all.
    fn admin(&self, path: &str) -> Option<String> {
        let address = self.ports.admin(self.ordinal).parse().unwrap();
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
