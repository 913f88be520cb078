//! One retry for tests of whole processes, whose timing depends on everything else on the machine.
//!
//! The body of such a test runs once more after a failure. A test that fails and then passes is
//! reported: `FLAKY: NAME: FIRST FAILURE` on stderr, past the capture of the test harness, and as a
//! line `NAME: FIRST FAILURE` in the file that `ORDINAL_FLAKY_LOG` names. CI prints that file last.
//!
//! A broken promise of the store (a lost write, a lease that ended early) gets no retry: [`promise`] marks
//! its check, since no load of the machine excuses it.
//!
//! Each run must create its own directories and take its own ports. Tests in one process get no retry:
//! they have no excuse.

use std::{
    any::{Any, type_name_of_val},
    env,
    fs::File,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
};

use tokio::runtime;

/// Runs the body of a test on a runtime of its own.
///
/// # Panics
/// If the body panics twice.
pub fn with_retry(body: impl AsyncFn()) {
    run_twice(&name_of(&body), &report_flaky, &|| {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(body());
    });
}

/// The same for a body that is not async.
pub fn with_retry_blocking(body: impl Fn()) {
    run_twice(&name_of(&body), &report_flaky, &body);
}

/// Begins the text of a failure that gets no retry.
const BROKEN_PROMISE: &str = "broken promise: ";

/// Runs a check whose failure gets no retry.
///
/// # Panics
/// If the check panics, with its text.
pub fn promise<T>(check: impl FnOnce() -> T) -> T {
    let checked = catch_unwind(AssertUnwindSafe(check));
    checked.unwrap_or_else(|panic| panic!("{BROKEN_PROMISE}{}", panic_text(&*panic)))
}

/// Reports a test that passed in its second run only.
pub fn report_flaky(name: &str, first_failure: &str) {
    let line = format!("{name}: {first_failure}\n");
    // Not eprint!, which the test harness captures.
    let _ = write!(std::io::stderr(), "FLAKY: {line}");
    if let Some(log) = env::var_os("ORDINAL_FLAKY_LOG") {
        append(Path::new(&log), &line);
    }
}

/// The text of a panic, on one line.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    const CHARS_MAX: usize = 2000;
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let words = text.unwrap_or("panic without a text").split_whitespace();
    words.collect::<Vec<_>>().join(" ").chars().take(CHARS_MAX).collect()
}

fn run_twice(name: &str, report: &dyn Fn(&str, &str), body: &dyn Fn()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(body)) else { return };
    // Tasks of the test pass a panic on inside of their own text.
    if panic_text(&*panic).contains(BROKEN_PROMISE) {
        resume_unwind(panic);
    }
    println!("--- {name} failed; it runs once more");
    body();
    report(name, &panic_text(&*panic));
}

/// In one write, so that the lines of two tests do not mix.
fn append(log: &Path, line: &str) {
    let mut file = File::options().create(true).append(true).open(log).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// The path of the test function that the closure stands in: `cluster::crash::crash_long`.
fn name_of<T>(body: &T) -> String {
    let path = type_name_of_val(body).split("::{{closure}}").next().unwrap_or_default();
    path.split_once("::").map_or(path, |(_crate, path)| path).to_string()
}

mod tests {
    use std::{
        cell::{Cell, RefCell},
        fs,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use tempfile::TempDir;

    use super::{append, name_of, promise, run_twice};

    /// Runs a body that fails this many times; returns its runs, whether the test passed, and the reports.
    fn run(failures: u32) -> (u32, bool, Vec<String>) {
        let (runs, reports) = (Cell::new(0), RefCell::new(Vec::new()));
        let body = || {
            runs.set(runs.get() + 1);
            assert!(runs.get() > failures, "run {}\nfailed", runs.get());
        };
        let report =
            |name: &str, failure: &str| reports.borrow_mut().push(format!("{name}: {failure}"));
        let passed =
            catch_unwind(AssertUnwindSafe(|| run_twice("a::test", &report, &body))).is_ok();
        (runs.get(), passed, reports.take())
    }

    #[test]
    fn a_body_that_passes_runs_once_and_is_not_reported() {
        assert_eq!(run(0), (1, true, vec![]));
    }

    #[test]
    fn a_body_that_fails_once_passes_and_is_reported_as_flaky() {
        assert_eq!(run(1), (2, true, vec!["a::test: run 1 failed".to_string()]));
    }

    #[test]
    fn a_body_that_fails_twice_fails_and_is_not_reported_as_flaky() {
        assert_eq!(run(2), (2, false, vec![]));
    }

    #[test]
    fn a_broken_promise_is_not_retried() {
        let (runs, reports) = (Cell::new(0), RefCell::new(0));
        let body = || {
            runs.set(runs.get() + 1);
            promise(|| assert!(runs.get() > 1, "lost: a write"));
        };
        let report = |_: &str, _: &str| *reports.borrow_mut() += 1;
        let failed = catch_unwind(AssertUnwindSafe(|| run_twice("a::test", &report, &body)));
        assert_eq!(super::panic_text(&*failed.unwrap_err()), "broken promise: lost: a write");
        assert_eq!((runs.get(), reports.take()), (1, 0));
    }

    #[test]
    fn the_log_of_flaky_tests_keeps_all_lines() {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("flaky");
        append(&log, "a::test: run 1 failed\n");
        append(&log, "b::test: run 1 failed\n");
        assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 2);
    }

    #[test]
    fn the_name_is_that_of_the_test() {
        let name = "support::retry::tests::the_name_is_that_of_the_test";
        assert_eq!(name_of(&|| ()), name);
        assert_eq!(name_of(&async || ()), name);
    }
}
