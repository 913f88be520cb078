//! A real etcd, the reference for every answer.
//!
//! `ETCD_BIN` names its program. The default is the program that `.ci/tools` installs:
//! `ordinal/etcd/current/etcd` in the user's cache.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use ordinal::proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use tokio::time::{Instant, sleep};

use crate::support::{POLL_INTERVAL, WAIT_TIMEOUT, ports::Ports};

/// An etcd program.
#[derive(Debug, Clone)]
pub struct Etcd {
    program: PathBuf,
    /// As in `3.6.16`.
    pub version: String,
}

/// The versions with recorded answers.
const RECORDED: &str = "3.6.";

impl Etcd {
    /// The etcd to compare with, or the reason why there is none.
    pub fn find() -> Result<Etcd, String> {
        let program = match env::var_os("ETCD_BIN") {
            Some(named) => PathBuf::from(named),
            None => cached().ok_or("there is no home directory to look for etcd in")?,
        };
        let answer = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
        let answer = answer.map_err(|error| {
            format!("{}: {error}; .ci/tools provides one, or ETCD_BIN names one", program.display())
        })?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        let version = version.ok_or_else(|| format!("{} is no etcd", program.display()))?;
        Ok(Etcd { program, version: version.trim().into() })
    }

    /// The same, if its answers are the recorded ones.
    pub fn find_recorded() -> Result<Etcd, String> {
        let etcd = Etcd::find()?;
        if etcd.version.starts_with(RECORDED) {
            return Ok(etcd);
        }
        Err(format!("{} has version {}, not {RECORDED}", etcd.program.display(), etcd.version))
    }

    /// Starts an empty cluster of one member, and waits until it answers clients.
    pub async fn start(&self, scratch: &Path) -> Running {
        let ports = Ports::free();
        let (client, peer) = (format!("http://{}", ports.client), format!("http://{}", ports.peer));
        let log = File::create(scratch.join("etcd.log")).unwrap();
        let child = Command::new(&self.program)
            .arg("--data-dir")
            .arg(scratch.join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            // The tests never crash it, and answers do not depend on fsync.
            .arg("--unsafe-no-fsync")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let running = Running { child, url: client };
        running.ready().await;
        running
    }
}

fn cached() -> Option<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    Some(cache.join("ordinal/etcd/current/etcd"))
}

/// An etcd process. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pub url: String,
}

impl Running {
    async fn ready(&self) {
        let start = Instant::now();
        loop {
            if let Ok(mut kv) = KvClient::connect(self.url.clone()).await {
                let request = RangeRequest { key: "ready".into(), ..Default::default() };
                if kv.range(request).await.is_ok() {
                    return;
                }
            }
            assert!(start.elapsed() < WAIT_TIMEOUT, "etcd is never ready: {self:?}");
            sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
