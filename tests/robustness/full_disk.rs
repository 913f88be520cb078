//! A full disk.

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

use crate::support::{
    POLL_INTERVAL, WAIT_TIMEOUT, grpc::get, kvd::Kvd, ports::Ports, retry::with_retry,
};

/// Two segments of the log, and a little more.
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

    /// Fills the disk, so that no write fits.
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
        // Lazily, also under a process with open files.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn numbered(i: usize) -> Bytes {
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&i.to_be_bytes());
    value.into()
}

/// Writes until the member refuses or exits; returns the number of acknowledged writes.
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

async fn wait_until_preallocated(wal: &Path) {
    let longest = |suffix: &str| {
        let files = fs::read_dir(wal).unwrap().map(|file| file.unwrap());
        let files = files.filter(|file| file.file_name().to_string_lossy().ends_with(suffix));
        files.map(|file| file.metadata().map_or(0, |of| of.len())).max().unwrap_or(0)
    };
    let start = Instant::now();
    while longest(".tmp") < longest(".wal") {
        assert!(start.elapsed() < WAIT_TIMEOUT, "no segment is filled ahead");
        sleep(POLL_INTERVAL).await;
    }
}

async fn restart(scratch: &Path, data: &Path, ports: Ports) -> Kvd {
    let mut kvd = Kvd::serve(scratch, data, ports);
    kvd.ready().await;
    kvd
}

#[test]
fn a_full_disk_stops_the_member_by_name_and_loses_nothing() {
    with_retry(async || {
        let scratch = TempDir::new().unwrap();
        let Some(disk) = SmallDisk::mount(scratch.path().join("disk")) else {
            println!("skipped: this process may not mount a file system");
            return;
        };
        let data = disk.at.join("data");
        let ports = Ports::free();
        let mut kvd = restart(scratch.path(), &data, ports).await;
        // The next segment is preallocated: a member without it refuses the first write already.
        wait_until_preallocated(&data.join("wal")).await;
        disk.fill();
        let acknowledged = write_until_refused(&kvd, 0).await;
        assert!(acknowledged > 0);
        let status = kvd.exited(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(1), "{}", kvd.log());
        let stderr = kvd.log();
        // Other threads of a failed member run to their end, so the log may continue after the
        // reason.
        let reason = stderr.lines().rev().find(|line| line.starts_with("kvd: "));
        let reason = reason.unwrap_or_else(|| panic!("no reason is given: {stderr}"));
        assert!(reason.contains("No space left on"), "{stderr}");
        assert!(reason.contains(data.to_str().unwrap()), "{stderr}");

        // The disk is still full: the member refuses by name again, or runs in the preallocated
        // segment, and nothing gets worse.
        let mut again = Kvd::serve(scratch.path(), &data, ports);
        match again.exited_within(Duration::from_secs(3)).await {
            Some(status) => assert_eq!(status.code(), Some(1), "{}", again.log()),
            // The member may hit the full disk during shutdown, too.
            None => {
                again.signal("TERM");
                let status = again.exited(WAIT_TIMEOUT).await;
                assert!(matches!(status.code(), Some(0 | 1)), "{}", again.log());
            }
        }

        disk.make_room();
        let kvd = restart(scratch.path(), &data, ports).await;
        check_all(&kvd, acknowledged).await;
        let mut kv = kvd.kv().await;
        crate::support::grpc::put(&mut kv, "after", "room").await;
        drop(kv);
        kvd.stop().await;
    });
}
