//! One `kvd` process: start it, ask whether it is ready, and see that it does not panic.
//!
//! The tests under `tests/differential` use it too.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// Nothing here takes so long, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a process or a probe.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Ports of one member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Ports {
    pub(crate) fn free() -> Ports {
        Ports { client: free_port(), peer: free_port(), admin: free_port() }
    }
}

/// A port nobody listens on, and nobody else here is given.
pub(crate) fn free_port() -> SocketAddr {
    free_ports(1)
}

/// The first of so many in a row. They lie below those that the kernel gives to outgoing connections.
pub(crate) fn free_ports(count: u16) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several of these processes may run at a time.
    let start = u16::try_from(std::process::id() % 40).unwrap() * 450;
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        let n = NEXT.fetch_add(count, Ordering::Relaxed);
        let first = 12_000 + (start + n) % 18_000;
        // Asked, not taken for a moment: a process that another test starts just then would hold a
        // copy of the socket until it runs its program.
        if (first..first + count).all(|port| TcpStream::connect(at(port)).is_err()) {
            return at(first);
        }
    }
}

/// A running process. Dropped, it is killed, and must not have panicked.
#[derive(Debug)]
pub(crate) struct Kvd {
    pub(crate) child: Child,
    log: PathBuf,
    pub(crate) ports: Ports,
}

impl Kvd {
    /// Starts it with these arguments; its log goes to a file under `scratch`.
    pub(crate) fn start(scratch: &Path, ports: Ports, args: &[&str]) -> Kvd {
        let log = scratch.join(format!("kvd-{}.log", ports.client.port()));
        let to = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kvd"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(to)
            .spawn()
            .unwrap();
        Kvd { child, log, ports }
    }

    /// Starts a member that is a cluster by itself, with these flags besides.
    pub(crate) fn serve_with(scratch: &Path, data_dir: &Path, ports: Ports, more: &[&str]) -> Kvd {
        let listen = [ports.client, ports.peer, ports.admin].map(|a| a.to_string());
        let mut args = vec!["serve", "--ordinal=0", "--data-dir", data_dir.to_str().unwrap()];
        args.extend(["--listen-client", &listen[0], "--listen-peer", &listen[1]]);
        args.extend(["--listen-admin", &listen[2]]);
        args.extend(more);
        Kvd::start(scratch, ports, &args)
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it answers clients.
    pub(crate) async fn ready(&mut self) {
        let start = Instant::now();
        while probe(self.ports.admin) != Some(200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status}:\n{}", self.said());
            }
            assert!(start.elapsed() < PATIENCE, "never ready:\n{}", self.said());
            sleep(LOOK).await;
        }
    }
}

impl Drop for Kvd {
    fn drop(&mut self) {
        // Ended already: that is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let said = self.said();
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}

/// The HTTP status of `/readyz`; `None` when nobody answers.
pub(crate) fn probe(admin: SocketAddr) -> Option<u16> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: kv\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_whitespace().nth(1)?.parse().ok()
}
