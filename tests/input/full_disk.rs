//! A disk that runs full.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use ordinal::proto::etcdserverpb::PutRequest;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    kvd::{Kvd, Ports, get},
    process::{LOOK, PATIENCE},
};

/// Two segments of the log, and a little.
const DISK_MIB: usize = 160;
const VALUE_BYTES: usize = 256 << 10;

/// A file system in memory, of bounded size.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: PathBuf) -> Option<SmallDisk> {
        fs::create_dir(&at).unwrap();
        let size = format!("size={DISK_MIB}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(&at)
            .output()
            .ok()?;
        mount.status.success().then_some(SmallDisk { at })
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Leaves no room for another write.
    fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        let zeros = vec![0; 64 << 10];
        while file.write_all(&zeros).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also under a process that still has files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn numbered(i: usize) -> Bytes {
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&i.to_be_bytes());
    value.into()
}

/// Writes until the member refuses or ends; how many writes were acknowledged.
async fn write_until_refused(kvd: &Kvd, from: usize) -> usize {
    let mut kv = kvd.kv().await;
    for i in from.. {
        let key = Bytes::from(format!("k{i:05}"));
        let put = PutRequest { key, value: numbered(i), ..Default::default() };
        if let Err(status) = kv.put(put).await {
            println!("write {i}: {:?} {}", status.code(), status.message());
            return i;
        }
    }
    unreachable!("a small disk holds them all")
}

async fn check_all(kvd: &Kvd, acknowledged: usize) {
    let mut kv = kvd.kv().await;
    for i in 0..acknowledged {
        let value = get(&mut kv, &format!("k{i:05}")).await;
        assert!(value.is_some_and(|v| v == numbered(i)), "write {i} of {acknowledged} is lost");
    }
}

async fn until_spare_is_whole(wal: &Path) {
    let longest = |suffix: &str| {
        let files = fs::read_dir(wal).unwrap().map(|file| file.unwrap());
        let files = files.filter(|file| file.file_name().to_string_lossy().ends_with(suffix));
        files.map(|file| file.metadata().map_or(0, |of| of.len())).max().unwrap_or(0)
    };
    let start = Instant::now();
    while longest(".tmp") < longest(".wal") {
        assert!(start.elapsed() < PATIENCE, "no segment is filled ahead");
        sleep(LOOK).await;
    }
}

async fn restart(scratch: &Path, data: &Path, ports: Ports) -> Kvd {
    let mut kvd = Kvd::serve(scratch, data, ports);
    kvd.ready().await;
    kvd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_member_by_name_and_loses_nothing() {
    let scratch = TempDir::new().unwrap();
    let Some(disk) = SmallDisk::mount(scratch.path().join("disk")) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let data = disk.at.join("data");
    let ports = Ports::free();
    let mut kvd = restart(scratch.path(), &data, ports).await;
    // The next segment is filled ahead: a member without it refuses the first write already.
    until_spare_is_whole(&data.join("wal")).await;
    disk.fill();
    let acknowledged = write_until_refused(&kvd, 0).await;
    assert!(acknowledged > 0);
    let status = kvd.ended(Duration::from_secs(30)).await;
    assert_eq!(status.code(), Some(1), "{}", kvd.said());
    let said = kvd.said();
    let reason = said.lines().last().unwrap_or_default();
    assert!(reason.starts_with("kvd: "), "{said}");
    assert!(reason.contains("No space left on"), "{said}");
    assert!(reason.contains(data.to_str().unwrap()), "{said}");

    // Still full: refused by name again, or the segment that was filled ahead made enough room; and
    // nothing gets worse.
    let mut again = Kvd::serve(scratch.path(), &data, ports);
    match again.ended_within(Duration::from_secs(3)).await {
        Some(status) => assert_eq!(status.code(), Some(1), "{}", again.said()),
        // It may find the disk full just now, too.
        None => {
            again.signal("TERM");
            let status = again.ended(PATIENCE).await;
            assert!(matches!(status.code(), Some(0 | 1)), "{}", again.said());
        }
    }

    disk.make_room();
    let kvd = restart(scratch.path(), &data, ports).await;
    check_all(&kvd, acknowledged).await;
    let mut kv = kvd.kv().await;
    crate::kvd::put(&mut kv, "after", "room").await;
    drop(kv);
    kvd.stop().await;
}
