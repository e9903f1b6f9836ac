//! A temporary folder that goes away with its owner, or with the test process however that ends.

use super::reaper;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A Unix socket's path ends at 107 bytes, and a folder of the harness holds some.
const LONGEST_BASE: usize = 40;

pub(crate) struct Folder {
    inner: Option<TempDir>,
    path: PathBuf,
}

impl Folder {
    /// `name` tells a person which server left it, should one ever be left.
    pub(crate) fn new(name: &str) -> Self {
        let inner = tempfile::Builder::new()
            .prefix(&format!("rekey-{name}-"))
            .tempdir_in(base())
            .expect("a temporary folder");
        let path = inner.path().to_path_buf();
        reaper::watch_folder(&path);
        Self {
            inner: Some(inner),
            path,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.inner.take());
        // The children of a killed server may still have written while the folder was being removed.
        for _ in 0..100 {
            if !self.path.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            let _ = std::fs::remove_dir_all(&self.path);
        }
        reaper::forget_folder(&self.path);
    }
}

fn base() -> PathBuf {
    let wanted = std::env::temp_dir();
    let fits = wanted
        .to_str()
        .is_some_and(|path| path.len() <= LONGEST_BASE && !path.contains(char::is_whitespace));
    if fits { wanted } else { PathBuf::from("/tmp") }
}
