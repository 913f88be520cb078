//! A failpoint that blocks the log's writes, so that a test can kill a member that has sent entries to
//! others and not written them itself. Only in debug builds.
//!
//! While the file that `KVD_FAULT_HOLD_WAL` names exists, no write to a file of the log begins. Blocking
//! the sync would not do: a written page survives `kill -9` in the page cache, synced or not.

use std::path::Path;

/// The failpoint of one file.
#[derive(Debug)]
pub struct WalHold {
    #[cfg(debug_assertions)]
    file: Option<std::path::PathBuf>,
}

impl WalHold {
    #[cfg(debug_assertions)]
    pub fn of(path: &Path) -> WalHold {
        let held = path.parent().is_some_and(|dir| dir.ends_with("wal"));
        let file = held.then(|| std::env::var_os("KVD_FAULT_HOLD_WAL")).flatten();
        WalHold { file: file.map(Into::into) }
    }

    #[cfg(not(debug_assertions))]
    pub fn of(_: &Path) -> WalHold {
        WalHold {}
    }

    /// Blocks while the failpoint is active.
    #[cfg_attr(
        debug_assertions,
        expect(clippy::disallowed_methods, reason = "part of the disk port")
    )]
    pub fn wait(&self) {
        #[cfg(debug_assertions)]
        while self.file.as_ref().is_some_and(|file| file.exists()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
