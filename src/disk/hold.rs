//! Holds the log's writes back, so that a test can kill a member that has sent entries to others
//! and has not written them itself. Debug builds only: elsewhere nothing of it is compiled in.
//!
//! While the file that `KVD_FAULT_HOLD_WAL` names exists, no write to a file of the log begins.
//! The write is what must wait: a written page survives `kill -9` in the page cache, synced or not.

use std::path::Path;

/// Whether, and how, writes to one file are held back.
#[derive(Debug)]
pub(super) struct Hold {
    #[cfg(debug_assertions)]
    file: Option<std::path::PathBuf>,
}

impl Hold {
    #[cfg(debug_assertions)]
    pub(super) fn of(path: &Path) -> Hold {
        let held = path.parent().is_some_and(|dir| dir.ends_with("wal"));
        let file = held.then(|| std::env::var_os("KVD_FAULT_HOLD_WAL")).flatten();
        Hold { file: file.map(Into::into) }
    }

    #[cfg(not(debug_assertions))]
    pub(super) fn of(_: &Path) -> Hold {
        Hold {}
    }

    /// Blocks while writes are held back.
    #[cfg_attr(
        debug_assertions,
        expect(clippy::disallowed_methods, reason = "part of the disk port")
    )]
    pub(super) fn wait(&self) {
        #[cfg(debug_assertions)]
        while self.file.as_ref().is_some_and(|file| file.exists()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
