//! Compares the sizes of a starting member: its quota with its volume and its memory limit.
//!
//! A misfit is no reason not to start: a store that stays small never notices. It is logged, and an
//! Event of the pod, each time the member starts.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::member_config::MemberConfig;
use crate::{
    config::sizing::{Misfit, Sizes},
    disk::{self, Disk},
    lane::Lanes,
    membership::ClusterEvent,
};

/// The mount points of control groups of version 2 and 1, with the file that has the limit.
const CGROUP_V2: (&str, &str) = ("/sys/fs/cgroup", "memory.max");
const CGROUP_V1: (&str, &str) = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes");
/// Version 1 writes a huge number, close to this, for no limit.
const NO_LIMIT_BYTES_MIN: u64 = 1 << 60;

/// Logs and publishes what does not fit.
pub async fn check(config: &MemberConfig, disk: Arc<dyn Disk>, lanes: Lanes) {
    let configured = Sizes {
        quota_bytes: config.quota_bytes,
        cache_bytes: config.cache_bytes as u64,
        keep_log_bytes: config.retention.keep_log_bytes,
        segment_bytes: config.wal_segment_bytes,
        volume_bytes: None,
        memory_limit_bytes: None,
    };
    let data_dir = config.data_dir.clone();
    let measured = lanes.run("sizes", move || Sizes {
        volume_bytes: volume_bytes(&*disk, &data_dir),
        memory_limit_bytes: memory_limit_bytes(&*disk),
        ..configured
    });
    let Ok(Some(sizes)) = measured.await else { return };
    let pods = config.orchestrator();
    report(&sizes.misfits(), |event| {
        if let Some(pods) = &pods {
            pods.emit(event);
        }
    });
}

fn report(misfits: &[Misfit], mut emit: impl FnMut(ClusterEvent)) {
    for misfit in misfits {
        tracing::warn!(%misfit, "sizes do not fit each other (docs/sizing.md)");
        emit(ClusterEvent::warning("Sizing", misfit.to_string()));
    }
}

/// The size of the file system of the data directory, or of its parent before the first start.
fn volume_bytes(disk: &dyn Disk, data_dir: &Path) -> Option<u64> {
    let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folders = [Some(data_dir), parent, Some(Path::new("."))];
    folders.into_iter().flatten().find_map(|folder| disk.capacity_bytes(folder).ok())
}

/// The smallest memory limit of this process's control group and of those around it.
fn memory_limit_bytes(disk: &dyn Disk) -> Option<u64> {
    let groups = disk::read_to_end(disk, "/proc/self/cgroup".as_ref()).ok()?;
    let groups = String::from_utf8_lossy(&groups);
    let limits = groups.lines().filter_map(memory_group).flat_map(|((mount, file), group)| {
        // In a container the mount shows the container's own group as its root.
        let parts: Vec<_> =
            group.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        let around = (0..=parts.len()).map(move |n| parts[..n].iter().collect::<PathBuf>());
        around.map(move |group| Path::new(mount).join(group).join(file))
    });
    limits.filter_map(|path| limit_in(disk, &path)).min()
}

/// The group of a line of /proc/self/cgroup, `ID:CONTROLLERS:PATH`, if it may limit memory. Version 2
/// names no controllers.
fn memory_group(line: &str) -> Option<((&'static str, &'static str), &Path)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?);
    let version = match controllers {
        "" => CGROUP_V2,
        names if names.split(',').any(|name| name == "memory") => CGROUP_V1,
        _ => return None,
    };
    Some((version, Path::new(group)))
}

fn limit_in(disk: &dyn Disk, path: &Path) -> Option<u64> {
    let text = disk::read_to_end(disk, path).ok()?;
    // Version 2 writes `max` for no limit.
    let bytes: u64 = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
    (bytes < NO_LIMIT_BYTES_MIN).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Open, sim::SimDisk};

    fn disk(files: &[(&str, &str)]) -> SimDisk {
        let disk = SimDisk::new(1);
        for (path, text) in files {
            let path = Path::new(path);
            disk.create_dir_all(path.parent().unwrap()).unwrap();
            let file = disk.open(path, Open::CreateNew).unwrap();
            file.write_all_at(text.as_bytes(), 0).unwrap();
        }
        disk
    }

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        memory_limit_bytes(&disk(files))
    }

    #[test]
    fn the_limit_of_a_container_is_that_of_its_control_group() {
        let v2 = ("/proc/self/cgroup", "0::/\n");
        assert_eq!(limit(&[v2, ("/sys/fs/cgroup/memory.max", "2147483648\n")]), Some(2 << 30));
        assert_eq!(limit(&[v2, ("/sys/fs/cgroup/memory.max", "max\n")]), None);
        assert_eq!(limit(&[v2]), None);
        assert_eq!(limit(&[]), None);
    }

    #[test]
    fn version_1_shows_the_path_on_the_host_and_mounts_the_group_as_root() {
        let v1 =
            ("/proc/self/cgroup", "5:cpu,cpuacct:/kubepods/a\n4:memory:/kubepods/a\n1:name=x:/\n");
        let file = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(limit(&[v1, (file, "536870912\n")]), Some(512 << 20));
        assert_eq!(limit(&[v1, (file, "9223372036854771712\n")]), None);
        let cpu = ("/proc/self/cgroup", "5:cpu,cpuacct:/\n");
        assert_eq!(limit(&[cpu, (file, "536870912\n")]), None);
    }

    #[test]
    fn the_smallest_limit_around_the_process_holds() {
        let group = ("/proc/self/cgroup", "0::/a.slice/b.service\n");
        let outer = ("/sys/fs/cgroup/a.slice/memory.max", "1000000\n");
        let inner = ("/sys/fs/cgroup/a.slice/b.service/memory.max", "3000000\n");
        let outside = ("/sys/fs/cgroup/c.slice/memory.max", "1\n");
        assert_eq!(limit(&[group, outer, inner, outside]), Some(1_000_000));
        // A process that was moved out of its namespace.
        let moved = ("/proc/self/cgroup", "0::/../a.slice/b.service\n");
        assert_eq!(limit(&[moved, inner]), Some(3_000_000));
    }

    #[test]
    fn each_misfit_is_a_warning_event_of_the_pod() {
        let misfit = Misfit::Volume { quota: 8 << 30, needs: 9 << 30, has: 1 << 30, quota_max: 0 };
        let mut events = Vec::new();
        report(&[misfit], |event| events.push(event));
        assert_eq!(events, [ClusterEvent::warning("Sizing", misfit.to_string())]);
    }

    #[test]
    fn the_volume_is_that_of_the_data_or_of_its_parent() {
        let disk = disk(&[("/data/lock", "")]);
        disk.set_budget_bytes(10 << 30);
        assert_eq!(volume_bytes(&disk, "/data".as_ref()), Some(10 << 30));
        assert_eq!(volume_bytes(&disk, "/data/member".as_ref()), Some(10 << 30));
    }
}
