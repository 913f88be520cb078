//! `kubectl`, as a user has it: the cluster is whichever `KUBECONFIG` names.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{Duration, Instant, sleep},
};

/// How long anything may take that needs no image to be fetched: a slow machine shall not fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    pub(crate) namespace: String,
}

impl Kubectl {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--namespace").arg(&self.namespace).args(args);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What it prints.
    ///
    /// # Errors
    /// What it complains of.
    pub(crate) async fn attempt(&self, args: &[&str]) -> Result<String, String> {
        let done = self.command(args).output().await.expect("kubectl is there");
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        } else {
            Err(complaint)
        }
    }

    pub(crate) async fn run(&self, args: &[&str]) -> String {
        let done = self.attempt(args).await;
        done.unwrap_or_else(|complaint| panic!("kubectl {}: {complaint}", args.join(" ")))
    }

    /// With this on its standard input. Returns what it prints and what it complains of.
    pub(crate) async fn feed(&self, args: &[&str], input: &str) -> (String, String) {
        let done = self.try_feed(args, input).await;
        done.unwrap_or_else(|complaint| panic!("kubectl {}: {complaint}", args.join(" ")))
    }

    /// The same.
    ///
    /// # Errors
    /// What it complains of.
    pub(crate) async fn try_feed(
        &self,
        args: &[&str],
        input: &str,
    ) -> Result<(String, String), String> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut kubectl = command.spawn().expect("kubectl is there");
        let mut stdin = kubectl.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.expect("kubectl reads");
        drop(stdin);
        let done = kubectl.wait_with_output().await.unwrap();
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            Ok((String::from_utf8_lossy(&done.stdout).into_owned(), complaint))
        } else {
            Err(complaint)
        }
    }

    /// Asks again while the API server is not well.
    pub(crate) async fn get(&self, what: &[&str]) -> Value {
        let ask = [&["get", "--output=json"], what].concat();
        let printed = eventually(async || self.attempt(&ask).await).await;
        serde_json::from_str(&printed).expect("kubectl prints JSON")
    }
}

/// The manifests of a directory of this repository, as `kubectl apply -k` would send them.
pub(crate) async fn rendered(directory: &str) -> String {
    let done = Command::new("kubectl").arg("kustomize").arg(directory).output().await.unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && complaint.is_empty(), "{directory}: {complaint}");
    String::from_utf8(done.stdout).unwrap()
}

/// Asks again and again until it answers `Ok`; the last `Err` says what did not come.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    within(PATIENCE, &mut ask)
        .await
        .unwrap_or_else(|missing| panic!("after {PATIENCE:?}: {missing}"))
}

/// The same, for what may fail to come.
pub(crate) async fn within<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(missing) if Instant::now() >= deadline => return Err(missing),
            Err(_) => sleep(PAUSE).await,
        }
    }
}
