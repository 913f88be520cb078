//! The servers that are compared. Each starts empty, and is killed on drop.

use std::{fmt::Write as _, io::Write as _};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    differential::{
        etcd::{self, Etcd},
        session::Session,
    },
    support::{kvd::Kvd, ports::Ports},
};

/// Small log segments: otherwise their preallocation would dominate the run time.
const SMALL_SEGMENTS: &[&str] = &["--wal-segment-bytes=4MiB"];

/// A server, and a client of it.
pub struct Server {
    pub session: Session,
    _process: Process,
    _scratch: TempDir,
}

enum Process {
    Etcd(#[expect(dead_code, reason = "ends when dropped")] etcd::Running),
    Kvd(#[expect(dead_code, reason = "ends when dropped")] Kvd),
}

impl Server {
    pub fn etcd(etcd: &Etcd) -> Server {
        let scratch = TempDir::new().unwrap();
        let running = Runtime::new().unwrap().block_on(etcd.start(scratch.path()));
        let session = Session::with(running.url.clone());
        Server { session, _process: Process::Etcd(running), _scratch: scratch }
    }

    pub fn kvd() -> Server {
        let scratch = TempDir::new().unwrap();
        let data = scratch.path().join("data");
        let mut kvd = Kvd::serve_with(scratch.path(), &data, Ports::free(), SMALL_SEGMENTS);
        Runtime::new().unwrap().block_on(kvd.ready());
        let session = Session::with(format!("http://{}", kvd.ports.client));
        Server { session, _process: Process::Kvd(kvd), _scratch: scratch }
    }
}

/// Prints a line that is visible also when the test passes.
pub fn announce(text: &str) {
    // Not a macro of the print family, whose output the test harness captures.
    let _ = writeln!(std::io::stderr(), "differential: {text}");
}

/// The first difference between two texts, and the lines before it.
pub fn difference(one: (&str, &str), other: (&str, &str)) -> Option<String> {
    const BEFORE: usize = 16;
    const AFTER: usize = 4;
    let [one_lines, other_lines] = [one.1, other.1].map(|text| text.lines().collect::<Vec<_>>());
    if one_lines == other_lines {
        return None;
    }
    let same = one_lines.iter().zip(&other_lines).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for line in &one_lines[same.saturating_sub(BEFORE)..same] {
        writeln!(text, "    {line}").unwrap();
    }
    for ((name, _), lines) in [(one, one_lines), (other, other_lines)] {
        writeln!(text, "  {name}:").unwrap();
        for line in lines.iter().skip(same).take(AFTER) {
            writeln!(text, "    {line}").unwrap();
        }
    }
    Some(text)
}
