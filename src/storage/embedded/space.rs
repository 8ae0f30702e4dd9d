//! The reserve of free space: writes stop before the disk is full, so that reads and deletions go on.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::stats::WriterStats;
use crate::clock::Stopwatch;
use crate::storage::StorageError;

const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Space {
    folder: PathBuf,
    reserve: u64,
    /// When the volume was last looked at, and what was free.
    looked: Option<(Stopwatch, u64)>,
}

// === impl Space ===

impl Space {
    pub fn new(folder: PathBuf, reserve: u64) -> Self {
        Self { folder, reserve, looked: None }
    }

    /// Refuses while less than the reserve is free. Looks at the volume once a second at most.
    pub fn check(&mut self, stats: &WriterStats) -> Result<(), StorageError> {
        let free = match &self.looked {
            Some((since, free)) if since.elapsed() < LOOK_AGAIN => *free,
            _ => {
                let free = look(&self.folder, stats)?;
                self.looked = Some((Stopwatch::start(), free));
                free
            }
        };
        if free >= self.reserve {
            return Ok(());
        }
        Err(StorageError::Unavailable(format!(
            "{} has {free} bytes free, {} are kept in reserve: no writes until space is made",
            self.folder.display(),
            self.reserve
        )))
    }
}

/// The bytes that are free on a folder's volume, which the metrics show from now on. Blocks.
pub fn look(folder: &Path, stats: &WriterStats) -> Result<u64, StorageError> {
    let found = rustix::fs::statvfs(folder).map_err(|error| {
        StorageError::Unavailable(format!("can't tell the free space of {}: {error}", folder.display()))
    })?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    stats.free_bytes.store(free, Relaxed);
    Ok(free)
}
