//! Runs the written scripts. `UPDATE_GOLDENFILES=1` records the answers again.
//!
//! The answers under `scripts` are recorded from etcd, and `kvd` gives the same. The answers under
//! `deviations` are those of `kvd`, and each script gives the reason. A deviation that etcd comes
//! to answer like `kvd` fails here, and moves.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    differential::{
        etcd::Etcd,
        servers::{Server, announce, difference},
    },
    support::retry::with_retry_blocking,
};

/// Starting a server is mostly waiting.
const CONCURRENCY: usize = 4;

/// Scripts that other versions of etcd answer otherwise: a prefix of the version, the script, and
/// the reason.
const OTHER_VERSIONS: &[(&str, &str, &str)] = &[
    ("3.5.", "hashkv", "its answer lacks the hashed revision"),
    ("3.5.", "range_sort", "it accepts unknown sort orders"),
    ("3.5.1", "watch_compacted", EARLY_PROGRESS),
    ("3.5.1", "watch_filter", EARLY_PROGRESS),
    ("3.5.1", "watch_keys", EARLY_PROGRESS),
    ("3.5.1", "watch_large", EARLY_PROGRESS),
    ("3.5.1", "watch_past", EARLY_PROGRESS),
    ("3.5.1", "watch_prev_kv", EARLY_PROGRESS),
    ("3.5.1", "watch_progress", EARLY_PROGRESS),
    ("3.5.1", "watch_txn", EARLY_PROGRESS),
];
/// Fixed in 3.5.8. Scripts request progress to know that all events have arrived.
const EARLY_PROGRESS: &str = "it reports progress before it has sent the events up to there";

#[test]
fn scripts_are_answered_as_etcd_answers_them() {
    with_retry_blocking(|| {
        let etcd = Etcd::find();
        let update = env::var_os("UPDATE_GOLDENFILES").is_some();
        match &etcd {
            Ok(etcd) => announce(&format!("scripts run on etcd {} and on kvd", etcd.version)),
            Err(why) => {
                assert!(!update, "cannot record etcd's answers: {why}");
                announce(&format!("scripts run on kvd only; SKIPPED: etcd: {why}"));
            }
        }
        let (same, other) = (paths("scripts"), paths("deviations"));
        let counts = format!("{} scripts, {} of deviations", same.len(), other.len());
        let scripts = Scripts {
            left: Mutex::new([same, other].concat()),
            etcd: etcd.ok(),
            update,
            ..Scripts::default()
        };
        thread::scope(|scope| {
            for _ in 0..CONCURRENCY {
                scope.spawn(|| scripts.run_those_left());
            }
        });
        let compared = scripts.compared.into_inner();
        let differences = scripts.differences.into_inner().unwrap();
        announce(&format!("{counts}, {compared} comparisons, {} differences", differences.len()));
        assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    });
}

fn paths(folder: &str) -> Vec<PathBuf> {
    let dir = Path::new("tests/differential").join(folder);
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!paths.is_empty(), "scripts are missing from {}", dir.display());
    paths.sort();
    paths
}

#[derive(Default)]
struct Scripts {
    left: Mutex<Vec<PathBuf>>,
    etcd: Option<Etcd>,
    update: bool,
    compared: AtomicUsize,
    differences: Mutex<Vec<String>>,
}

impl Scripts {
    fn run_those_left(&self) {
        loop {
            let Some(path) = self.left.lock().unwrap().pop() else { return };
            if path.parent().is_some_and(|folder| folder.ends_with("deviations")) {
                self.run_deviation(&path);
            } else {
                self.run_script(&path);
            }
        }
    }

    fn run_script(&self, path: &Path) {
        if let Some(etcd) = self.etcd_for(path) {
            let answered = self.answered(path, Server::etcd(etcd));
            self.record_or_compare(path, "etcd", answered);
        }
        let answered = self.answered(path, Server::kvd());
        self.compare(path, "kvd", answered);
    }

    fn run_deviation(&self, path: &Path) {
        let answered = self.answered(path, Server::kvd());
        self.record_or_compare(path, "kvd", answered);
        if let Some(etcd) = self.etcd_for(path) {
            let answered = self.answered(path, Server::etcd(etcd));
            if answered.is_ok_and(|answered| answered == read(path)) {
                self.differs(path, "is no deviation: etcd answers the same");
            }
        }
    }

    /// `None` also if this version is known to answer the script otherwise.
    fn etcd_for(&self, path: &Path) -> Option<&Etcd> {
        let etcd = self.etcd.as_ref()?;
        let known = OTHER_VERSIONS.iter().find(|(version, script, _)| {
            etcd.version.starts_with(version) && path.ends_with(script)
        });
        let Some((_, script, why)) = known else { return Some(etcd) };
        announce(&format!("SKIPPED on etcd {}: {script}: {why}", etcd.version));
        None
    }

    /// The script with the answers of this server.
    fn answered(&self, path: &Path, mut server: Server) -> Result<String, String> {
        let answered = goldenscript::generate(&mut server.session, &read(path));
        self.compared.fetch_add(server.session.answered, Ordering::Relaxed);
        answered.map_err(|error| error.to_string())
    }

    fn record_or_compare(&self, path: &Path, server_name: &str, answered: Result<String, String>) {
        match answered {
            Ok(answered) if self.update => fs::write(path, answered).unwrap(),
            answered => self.compare(path, server_name, answered),
        }
    }

    fn compare(&self, path: &Path, server_name: &str, answered: Result<String, String>) {
        match answered
            .map(|answered| difference(("recorded", &read(path)), (server_name, &answered)))
        {
            Ok(None) => {}
            Ok(Some(text)) => self.differs(path, &format!("is answered otherwise\n{text}")),
            Err(error) => self.differs(path, &format!("does not run on {server_name}: {error}")),
        }
    }

    fn differs(&self, path: &Path, how: &str) {
        self.differences.lock().unwrap().push(format!("{} {how}", path.display()));
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
