//! Runs the written scripts. `UPDATE_GOLDENFILES=1` records anew what they are answered.
//!
//! What is recorded under `scripts` are the answers of etcd, and `kvd` gives the same. Under
//! `deviations` they are those of `kvd`, and etcd gives others: each such script says why. One that
//! etcd comes to answer alike fails here, and moves.

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
    etcd::Etcd,
    servers::{Server, announce, difference},
};

/// Starting servers is mostly waiting.
const AT_A_TIME: usize = 4;

/// Scripts that other etcds than the one whose answers are recorded answer otherwise: the beginning of
/// their version, the script, and why.
const OTHER_VERSIONS: &[(&str, &str, &str)] = &[
    ("3.5.", "hashkv", "it does not say which revision it hashed"),
    ("3.5.", "range_sort", "it takes orders that there are not"),
    ("3.5.1", "watch_compacted", EARLY_PROGRESS),
    ("3.5.1", "watch_filter", EARLY_PROGRESS),
    ("3.5.1", "watch_keys", EARLY_PROGRESS),
    ("3.5.1", "watch_large", EARLY_PROGRESS),
    ("3.5.1", "watch_past", EARLY_PROGRESS),
    ("3.5.1", "watch_prev_kv", EARLY_PROGRESS),
    ("3.5.1", "watch_progress", EARLY_PROGRESS),
    ("3.5.1", "watch_txn", EARLY_PROGRESS),
];
/// Mended in 3.5.8. Scripts ask for progress to know that they have been told everything.
const EARLY_PROGRESS: &str = "it says how far a watch is before it has told the events up to there";

#[test]
fn scripts_are_answered_as_etcd_answers_them() {
    let etcd = Etcd::find();
    let update = env::var_os("UPDATE_GOLDENFILES").is_some();
    match &etcd {
        Ok(etcd) => announce(&format!("scripts run on etcd {} and on kvd", etcd.version)),
        Err(why) => {
            assert!(!update, "etcd's answers are to be recorded, but {why}");
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
        for _ in 0..AT_A_TIME {
            scope.spawn(|| scripts.run_those_left());
        }
    });
    let compared = scripts.compared.into_inner();
    let differences = scripts.differences.into_inner().unwrap();
    announce(&format!("{counts}, {compared} comparisons, {} differences", differences.len()));
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
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

    /// `None` also if its version is known to answer this script otherwise.
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

    fn record_or_compare(&self, path: &Path, who: &str, answered: Result<String, String>) {
        match answered {
            Ok(answered) if self.update => fs::write(path, answered).unwrap(),
            answered => self.compare(path, who, answered),
        }
    }

    fn compare(&self, path: &Path, who: &str, answered: Result<String, String>) {
        match answered.map(|answered| difference(("recorded", &read(path)), (who, &answered))) {
            Ok(None) => {}
            Ok(Some(text)) => self.differs(path, &format!("is answered otherwise\n{text}")),
            Err(error) => self.differs(path, &format!("does not run on {who}: {error}")),
        }
    }

    fn differs(&self, path: &Path, how: &str) {
        self.differences.lock().unwrap().push(format!("{} {how}", path.display()));
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
