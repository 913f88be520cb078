//! `kubectl`, for the cluster that `KUBECONFIG` names.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{Duration, Instant, sleep},
};

/// Bound on any change in the cluster that pulls no image. Long, so that a slow machine does not
/// fail.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// `kubectl` in one namespace.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub namespace: String,
}

impl Kubectl {
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--namespace").arg(&self.namespace).args(args);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Returns stdout.
    ///
    /// # Errors
    /// With stderr, if kubectl fails.
    pub async fn attempt(&self, args: &[&str]) -> Result<String, String> {
        let done = self.command(args).output().await.expect("kubectl is there");
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        } else {
            Err(stderr)
        }
    }

    pub async fn run(&self, args: &[&str]) -> String {
        let done = self.attempt(args).await;
        done.unwrap_or_else(|stderr| panic!("kubectl {}: {stderr}", args.join(" ")))
    }

    /// Runs kubectl with this on stdin. Returns stdout and stderr.
    pub async fn feed(&self, args: &[&str], input: &str) -> (String, String) {
        let done = self.try_feed(args, input).await;
        done.unwrap_or_else(|stderr| panic!("kubectl {}: {stderr}", args.join(" ")))
    }

    /// The same.
    ///
    /// # Errors
    /// With stderr, if kubectl fails.
    pub async fn try_feed(&self, args: &[&str], input: &str) -> Result<(String, String), String> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut kubectl = command.spawn().expect("kubectl is there");
        let mut stdin = kubectl.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.expect("kubectl reads");
        drop(stdin);
        let done = kubectl.wait_with_output().await.unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            Ok((String::from_utf8_lossy(&done.stdout).into_owned(), stderr))
        } else {
            Err(stderr)
        }
    }

    /// Retries while the API server is not available.
    pub async fn get(&self, what: &[&str]) -> Value {
        let ask = [&["get", "--output=json"], what].concat();
        let printed = eventually(async || self.attempt(&ask).await).await;
        serde_json::from_str(&printed).expect("kubectl prints JSON")
    }
}

/// The manifests of a directory of this repository, as `kubectl apply -k` would send them.
pub async fn rendered(directory: &str) -> String {
    let done = Command::new("kubectl").arg("kustomize").arg(directory).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && stderr.is_empty(), "{directory}: {stderr}");
    String::from_utf8(done.stdout).unwrap()
}

/// Retries until `Ok`; fails with the last `Err`.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    within(CHANGE_TIMEOUT, &mut ask)
        .await
        .unwrap_or_else(|error| panic!("after {CHANGE_TIMEOUT:?}: {error}"))
}

/// The same, and returns the last `Err` after the limit.
pub async fn within<T>(
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}
