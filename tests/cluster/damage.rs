//! One member's disk is damaged while the member is down. The member rebuilds its data or refuses
//! to run, its log names the damage, and the cluster loses nothing.
//!
//! `tests/robustness` covers data directories that belong to another member or version.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ordinal::client::Timeouts;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{
        check,
        harness::{Cluster, FREQUENT_SNAPSHOTS, SMALL_SEGMENTS},
        workload::{Workload, put},
    },
    support::{
        POLL_INTERVAL, WAIT_TIMEOUT,
        oracle::{Oracle, Outcome},
        retry::with_retry,
        rng::Rng,
    },
};

struct Case {
    name: &'static str,
    /// Damages the data directory.
    damage: fn(&Path),
    /// The expected outcome of the next start.
    expected: Expected,
}

enum Expected {
    /// The member runs with new tables; log and metric report the rebuild.
    Rebuilds,
    /// The member runs, and its log contains this.
    Runs(&'static str),
    /// The process exits with an error; its log contains all of these.
    Refuses(&'static [&'static str]),
    /// The member runs until it reads the damaged bytes, then exits with an error; its log contains
    /// all of these. The same damage a second time repairs the file.
    RefusesToRead(&'static [&'static str]),
}

const TABLES_REMOVED: Case = Case {
    name: "tables removed",
    damage: |data| fs::remove_dir_all(data.join("tables")).unwrap(),
    expected: Expected::Rebuilds,
};

const VALUE_DAMAGED: Case = Case {
    name: "bit flipped in a page of values",
    damage: |data| flip(&first(&data.join("blocks"), ".blk"), |_| 100),
    expected: Expected::RefusesToRead(&[".blk is damaged at byte 8", "page"]),
};

/// The log reaches back to its first entry, so tables and blocks can be rebuilt from it.
const WHOLE_LOG: &[Case] = &[
    TABLES_REMOVED,
    Case {
        name: "block removed",
        damage: |data| fs::remove_file(first(&data.join("blocks"), ".blk")).unwrap(),
        expected: Expected::Rebuilds,
    },
    Case {
        name: "bit flipped in a block's footer",
        damage: |data| flip(&first(&data.join("blocks"), ".blk"), |len| len - 20),
        expected: Expected::Rebuilds,
    },
    VALUE_DAMAGED,
    Case {
        name: "bit flipped in the middle of the log",
        damage: |data| flip(&first(&data.join("wal"), ".wal"), |_| 4096 + 40),
        expected: Expected::Refuses(&["0000000000000001.wal at offset 4096", "later frame"]),
    },
    Case {
        name: "bit flipped in the header of a file of the log",
        damage: |data| flip(&last(&data.join("wal"), ".wal"), |_| 40),
        expected: Expected::Refuses(&[".wal at offset 0", "checksum does not match"]),
    },
    Case {
        name: "last frame of the log damaged, as if torn",
        damage: |data| flip_last_frame(&last(&data.join("wal"), ".wal")),
        expected: Expected::Runs("cutting a torn frame"),
    },
    Case {
        name: "log cut short",
        damage: |data| {
            let segment = fs::File::options().write(true).open(last(&data.join("wal"), ".wal"));
            segment.unwrap().set_len(100 << 10).unwrap();
        },
        expected: Expected::Refuses(&[".wal at offset 102400", "the file ends here"]),
    },
    Case {
        name: "log removed",
        damage: |data| fs::remove_dir_all(data.join("wal")).unwrap(),
        expected: Expected::Refuses(&["its log is gone"]),
    },
    Case {
        name: "identity removed",
        damage: |data| fs::remove_file(data.join("identity")).unwrap(),
        expected: Expected::Refuses(&["no identity"]),
    },
    Case {
        name: "volume wiped",
        damage: |data| fs::remove_dir_all(data).unwrap(),
        expected: Expected::Runs("joining as a new member"),
    },
];

/// The log starts after a snapshot, which needs the blocks that it names.
const PURGED_LOG: &[Case] = &[
    TABLES_REMOVED,
    Case {
        name: "block of the snapshot removed",
        damage: |data| fs::remove_file(first(&data.join("blocks"), ".blk")).unwrap(),
        expected: Expected::Refuses(&[".blk", "cannot be rebuilt: snapshot"]),
    },
    Case {
        name: "snapshot removed",
        damage: |data| fs::remove_dir_all(data.join("snapshots")).unwrap(),
        expected: Expected::Runs("serving clients"),
    },
    Case {
        name: "snapshot and tables removed",
        damage: |data| {
            fs::remove_dir_all(data.join("snapshots")).unwrap();
            fs::remove_dir_all(data.join("tables")).unwrap();
        },
        expected: Expected::Refuses(&["cannot be rebuilt: there is no snapshot"]),
    },
    VALUE_DAMAGED,
];

/// The member with the damaged disk.
const VICTIM: usize = 1;

#[test]
fn a_damaged_disk_is_rebuilt_from_a_whole_log_or_refused() {
    with_retry(async || {
        let cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        damage(cluster, WHOLE_LOG, Oracle::default()).await;
    });
}

#[test]
fn a_damaged_disk_is_rebuilt_from_a_snapshot_or_refused() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let cluster = Cluster::start(3, &FREQUENT_SNAPSHOTS).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        for member in &cluster.members {
            load.until(|| !first(&member.data().join("wal"), ".wal").ends_with(FIRST_SEGMENT))
                .await;
        }
        let oracle = load.stop().await;
        damage(cluster, PURGED_LOG, oracle).await;
    });
}

const FIRST_SEGMENT: &str = "0000000000000001.wal";

async fn damage(mut cluster: Cluster, cases: &[Case], oracle: Oracle) {
    for case in cases {
        println!("{}", case.name);
        write(&cluster, &oracle).await;
        cluster.members[VICTIM].stop().await;
        let member = &mut cluster.members[VICTIM];
        let (data, saved) = (member.data(), member.data().with_extension("saved"));
        copy(&data, &saved);
        (case.damage)(&data);
        let logged = member.log().len();
        member.start();
        match case.expected {
            Expected::Rebuilds => {
                member.wait_ready().await;
                assert_logged(&member.log()[logged..], &["tables unusable: rebuilding them"]);
                assert_eq!(member.metric("ordinal_tables_rebuilt"), Some(1));
            }
            Expected::Runs(text) => {
                member.wait_ready().await;
                // A separate task logs the last lines of a start.
                let deadline = Instant::now() + WAIT_TIMEOUT;
                while !member.log()[logged..].contains(text) {
                    assert!(Instant::now() < deadline, "not logged: {text:?}");
                    sleep(POLL_INTERVAL).await;
                }
            }
            Expected::Refuses(texts) => {
                assert!(!member.exited().await.success());
                assert_logged(&member.log()[logged..], texts);
                fs::remove_dir_all(&data).unwrap_or_default();
                copy(&saved, &data);
            }
            Expected::RefusesToRead(texts) => {
                member.wait_ready().await;
                member.client().hash_kv(0).await.unwrap_err();
                assert!(!member.exited().await.success());
                assert_logged(&member.log()[logged..], texts);
                (case.damage)(&data);
            }
        }
        write(&cluster, &oracle).await;
        let member = &mut cluster.members[VICTIM];
        if !member.is_running() {
            member.start();
            member.wait_ready().await;
        }
        fs::remove_dir_all(&saved).unwrap();
    }
    check::assert_history_holds(&cluster, &oracle).await;
}

/// The other members accept writes in any state of the victim.
async fn write(cluster: &Cluster, oracle: &Oracle) {
    let client = cluster.client(VICTIM, Timeouts::default());
    let mut acknowledged = 0;
    while acknowledged < 5 {
        match put(&client, oracle, format!("damage/{acknowledged}")).await {
            Outcome::Acknowledged(_) => acknowledged += 1,
            Outcome::Refused | Outcome::Unknown => sleep(POLL_INTERVAL).await,
        }
    }
}

fn assert_logged(said: &str, texts: &[&str]) {
    for text in texts {
        assert!(said.contains(text), "not logged: {text:?}");
    }
}

fn flip(file: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(file).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

fn flip_last_frame(segment: &Path) {
    let used = fs::read(segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    flip(segment, |_| used);
}

fn first(dir: &Path, ending: &str) -> PathBuf {
    names(dir, ending).into_iter().min().unwrap()
}

fn last(dir: &Path, ending: &str) -> PathBuf {
    names(dir, ending).into_iter().max().unwrap()
}

fn names(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending))).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
