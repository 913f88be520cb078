//! The kernel's numbers of this process, under the names that all Prometheus clients use. Linux only:
//! without a readable `/proc` there are none.

use std::{path::Path, sync::OnceLock};

use crate::{
    disk::{self, Disk, RealDisk},
    metrics::Exposition,
};

/// The kernel's unit of CPU times: a hundredth of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    virtual_bytes_max: Option<f64>,
    open_fds: Option<usize>,
    max_fds: Option<f64>,
    start_seconds: Option<f64>,
}

impl Process {
    /// Reads `/proc`: not for an async worker.
    pub fn read() -> Process {
        let stat = read("/proc/self/stat");
        let status = read("/proc/self/status");
        let limits = read("/proc/self/limits");
        let fds = RealDisk.list(Path::new("/proc/self/fd"));
        Process {
            cpu_seconds: cpu_seconds(&stat),
            resident_bytes: kilobytes(&status, "VmRSS:"),
            virtual_bytes: kilobytes(&status, "VmSize:"),
            virtual_bytes_max: limit(&limits, "Max address space"),
            open_fds: fds.ok().map(|fds| fds.len()),
            max_fds: limit(&limits, "Max open files"),
            start_seconds: start_seconds(&stat),
        }
    }

    pub fn expose(&self, text: &mut Exposition) {
        if let Some(seconds) = self.cpu_seconds {
            let help = "Total user and system CPU time spent in seconds.";
            text.counter("process_cpu_seconds_total", help, seconds);
        }
        if let Some(bytes) = self.resident_bytes {
            let help = "Resident memory size in bytes.";
            text.gauge("process_resident_memory_bytes", help, bytes);
        }
        if let Some(bytes) = self.virtual_bytes {
            text.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", bytes);
        }
        if let Some(bytes) = self.virtual_bytes_max {
            let help = "Maximum amount of virtual memory available in bytes.";
            text.gauge("process_virtual_memory_max_bytes", help, bytes);
        }
        if let Some(fds) = self.open_fds {
            text.gauge("process_open_fds", "Number of open file descriptors.", fds);
            text.gauge("os_fd_used", "Number of open file descriptors.", fds);
        }
        if let Some(fds) = self.max_fds {
            text.gauge("process_max_fds", "Maximum number of open file descriptors.", fds);
            text.gauge("os_fd_limit", "Maximum number of open file descriptors.", fds);
        }
        if let Some(seconds) = self.start_seconds {
            let help = "Start time of the process since unix epoch in seconds.";
            text.gauge("process_start_time_seconds", help, seconds);
        }
    }
}

/// The text of a file; empty if it cannot be read.
fn read(path: &str) -> String {
    let bytes = disk::read_to_end(&RealDisk, Path::new(path)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A field of `/proc/self/stat`, by the number that proc(5) gives it. The second one is the
/// program's name and may contain anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, from_third) = stat.rsplit_once(')')?;
    from_third.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let (user, system) = (stat_field(stat, 14)?, stat_field(stat, 15)?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str) -> Option<f64> {
    // The file has a line for each processor, and this value never changes.
    static BOOT: OnceLock<Option<f64>> = OnceLock::new();
    let boot = *BOOT.get_or_init(|| value(&read("/proc/stat"), "btime")?.parse().ok());
    Some(boot? + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

/// The first word behind a name that a line begins with.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    Some(value(status, name)?.parse::<u64>().ok()? << 10)
}

/// A soft limit. An unlimited one is the largest number, as in Go's client.
fn limit(limits: &str, name: &str) -> Option<f64> {
    match value(limits, name)? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_brackets_moves_no_field() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 1234 8 9";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(stat_field(stat, 22), Some(1234.0));
    }

    #[test]
    fn sizes_and_limits_are_found_by_name() {
        let status = "Name:\tkvd\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(1 << 20));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(18_446_744_073_709_551_615.0));
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 1 << 20, "{process:?}");
        assert!(process.open_fds.unwrap() > 2 && process.start_seconds.unwrap() > 1e9);
    }
}
