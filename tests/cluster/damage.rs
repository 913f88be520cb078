//! One member's disk is damaged while it is down: it rebuilds itself or refuses to run, says what is
//! wrong, and the cluster loses nothing.
//!
//! What else a data directory may be that is not this member's, `tests/input` has.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ordinal::client::Timeouts;
use tokio::time::sleep;

use crate::{
    check,
    cluster::{Cluster, LITTLE_LOG, SMALL_LOG},
    dice::Dice,
    oracle::{Oracle, Outcome},
    process::POLL,
    workload::{Workload, put},
};

struct Case {
    name: &'static str,
    /// What is done to the data directory.
    damage: fn(&Path),
    /// What comes of the next start.
    then: Then,
}

enum Then {
    /// It runs, with new tables, and says so in log and metric.
    Rebuilds,
    /// It runs, having said this.
    Runs(&'static str),
    /// It ends with an error that says all this.
    Refuses(&'static [&'static str]),
    /// It runs until it reads what was damaged, and ends with an error that says all this. The same
    /// damage once more is a repair.
    RefusesToRead(&'static [&'static str]),
}

const TABLES_REMOVED: Case = Case {
    name: "tables removed",
    damage: |data| fs::remove_dir_all(data.join("tables")).unwrap(),
    then: Then::Rebuilds,
};

const VALUE_DAMAGED: Case = Case {
    name: "bit flipped in a page of values",
    damage: |data| flip(&first(&data.join("blocks"), ".blk"), |_| 100),
    then: Then::RefusesToRead(&[".blk is damaged at byte 8", "page"]),
};

/// The log begins with its first entry: tables and blocks can be made again from it.
const WHOLE_LOG: &[Case] = &[
    TABLES_REMOVED,
    Case {
        name: "block removed",
        damage: |data| fs::remove_file(first(&data.join("blocks"), ".blk")).unwrap(),
        then: Then::Rebuilds,
    },
    Case {
        name: "bit flipped in a block's footer",
        damage: |data| flip(&first(&data.join("blocks"), ".blk"), |len| len - 20),
        then: Then::Rebuilds,
    },
    VALUE_DAMAGED,
    Case {
        name: "bit flipped in the middle of the log",
        damage: |data| flip(&first(&data.join("wal"), ".wal"), |_| 4096 + 40),
        then: Then::Refuses(&["0000000000000001.wal at offset 4096", "later frame"]),
    },
    Case {
        name: "bit flipped in the header of a file of the log",
        damage: |data| flip(&last(&data.join("wal"), ".wal"), |_| 40),
        then: Then::Refuses(&[".wal at offset 0", "checksum does not match"]),
    },
    Case {
        name: "last frame of the log damaged, as if it was never finished",
        damage: |data| flip_last_frame(&last(&data.join("wal"), ".wal")),
        then: Then::Runs("cutting a frame that was never finished"),
    },
    Case {
        name: "log cut short",
        damage: |data| {
            let segment = fs::File::options().write(true).open(last(&data.join("wal"), ".wal"));
            segment.unwrap().set_len(100 << 10).unwrap();
        },
        then: Then::Refuses(&[".wal at offset 102400", "the file ends here"]),
    },
    Case {
        name: "log removed",
        damage: |data| fs::remove_dir_all(data.join("wal")).unwrap(),
        then: Then::Refuses(&["its log is gone"]),
    },
    Case {
        name: "identity removed",
        damage: |data| fs::remove_file(data.join("identity")).unwrap(),
        then: Then::Refuses(&["no identity"]),
    },
    Case {
        name: "volume wiped",
        damage: |data| fs::remove_dir_all(data).unwrap(),
        then: Then::Runs("joining as a new member"),
    },
];

/// The log begins behind a snapshot, which needs the blocks that it names.
const PURGED_LOG: &[Case] = &[
    TABLES_REMOVED,
    Case {
        name: "block of the snapshot removed",
        damage: |data| fs::remove_file(first(&data.join("blocks"), ".blk")).unwrap(),
        then: Then::Refuses(&[".blk", "not be rebuilt: snapshot"]),
    },
    Case {
        name: "snapshot removed",
        damage: |data| fs::remove_dir_all(data.join("snapshots")).unwrap(),
        then: Then::Runs("serving clients"),
    },
    Case {
        name: "snapshot and tables removed",
        damage: |data| {
            fs::remove_dir_all(data.join("snapshots")).unwrap();
            fs::remove_dir_all(data.join("tables")).unwrap();
        },
        then: Then::Refuses(&["not be rebuilt: there is no snapshot"]),
    },
    VALUE_DAMAGED,
];

/// Whose disk it is.
const VICTIM: usize = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_disk_is_rebuilt_from_a_whole_log_or_refused() {
    let cluster = Cluster::start(3, &SMALL_LOG).await;
    damage(cluster, WHOLE_LOG, Oracle::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_disk_is_rebuilt_from_a_snapshot_or_refused() {
    let mut dice = Dice::from_env();
    let cluster = Cluster::start(3, &LITTLE_LOG).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    for member in &cluster.members {
        load.until(|| !first(&member.data().join("wal"), ".wal").ends_with(FIRST_SEGMENT)).await;
    }
    let oracle = load.stop().await;
    damage(cluster, PURGED_LOG, oracle).await;
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
        let said = member.log().len();
        member.start();
        match case.then {
            Then::Rebuilds => {
                member.wait_ready().await;
                says(&member.log()[said..], &["the tables cannot be used and are rebuilt"]);
                assert_eq!(member.metric("ordinal_tables_rebuilt"), Some(1));
            }
            Then::Runs(text) => {
                member.wait_ready().await;
                says(&member.log()[said..], &[text]);
            }
            Then::Refuses(texts) => {
                assert!(!member.exited().await.success());
                says(&member.log()[said..], texts);
                fs::remove_dir_all(&data).unwrap_or_default();
                copy(&saved, &data);
            }
            Then::RefusesToRead(texts) => {
                member.wait_ready().await;
                member.client().hash_kv(0).await.unwrap_err();
                assert!(!member.exited().await.success());
                says(&member.log()[said..], texts);
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
    check::holds_what_it_promised(&cluster, &oracle).await;
}

/// Whatever state the victim is in, the others take writes.
async fn write(cluster: &Cluster, oracle: &Oracle) {
    let client = cluster.client(VICTIM, Timeouts::default());
    let mut acknowledged = 0;
    while acknowledged < 5 {
        match put(&client, oracle, format!("damage/{acknowledged}")).await {
            Outcome::Acknowledged(_) => acknowledged += 1,
            Outcome::Refused | Outcome::Unknown => sleep(POLL).await,
        }
    }
}

fn says(said: &str, texts: &[&str]) {
    for text in texts {
        assert!(said.contains(text), "it does not say {text:?}");
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
