//! A real etcd, whose answers are right.
//!
//! `ETCD_BIN` names its program; else it is where `.ci/etcd` puts one: `ordinal/etcd/current/etcd`
//! in the user's cache.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use ordinal::proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use tokio::time::{Instant, sleep};

use crate::process::{LOOK, PATIENCE, Ports};

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    program: PathBuf,
    /// As in `3.6.16`.
    pub(crate) version: String,
}

/// The versions whose answers are recorded.
const RECORDED: &str = "3.6.";

impl Etcd {
    /// The one to compare with, or why there is none.
    pub(crate) fn find() -> Result<Etcd, String> {
        let program = match env::var_os("ETCD_BIN") {
            Some(named) => PathBuf::from(named),
            None => cached().ok_or("there is no home directory to look for etcd in")?,
        };
        let answer = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
        let answer = answer.map_err(|error| {
            format!("{}: {error}; .ci/etcd provides one, or ETCD_BIN names one", program.display())
        })?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        let version = version.ok_or_else(|| format!("{} is no etcd", program.display()))?;
        Ok(Etcd { program, version: version.trim().into() })
    }

    /// The same, if its answers are those that are recorded.
    pub(crate) fn find_recorded() -> Result<Etcd, String> {
        let etcd = Etcd::find()?;
        if etcd.version.starts_with(RECORDED) {
            return Ok(etcd);
        }
        Err(format!("{} has version {}, not {RECORDED}", etcd.program.display(), etcd.version))
    }

    /// Starts a cluster of one, with nothing in it, that answers clients.
    pub(crate) async fn start(&self, scratch: &Path) -> Running {
        let ports = Ports::free();
        let (client, peer) = (format!("http://{}", ports.client), format!("http://{}", ports.peer));
        let log = File::create(scratch.join("etcd.log")).unwrap();
        let child = Command::new(&self.program)
            .arg("--data-dir")
            .arg(scratch.join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            // It never crashes here, and answers do not depend on it.
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
pub(crate) struct Running {
    child: Child,
    pub(crate) url: String,
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
            assert!(start.elapsed() < PATIENCE, "etcd is never ready: {self:?}");
            sleep(LOOK).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already: that is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
