//! What the disk under a folder costs: the floor below which no durable answer can be.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use machinegun::clock::Stopwatch;
use serde::Serialize;

use crate::Failure;

/// As the embedded store's journal: made large at once, then filled from its start.
const FILE_SIZE: u64 = 64 << 20;
const BLOCK: [u8; 4096] = [0x5a; 4096];

#[derive(Debug, Serialize)]
pub struct Disk {
    pub syncs: u64,
    /// fdatasync alone, in microseconds.
    pub p50_us: u64,
    pub p99_us: u64,
}

/// Appends 4 KiB and syncs, again and again.
pub fn measure(folder: &Path, during: Duration) -> Result<Disk, Failure> {
    let mut file = File::create(folder.join("fdatasync"))?;
    file.set_len(FILE_SIZE)?;
    let mut syncs = Histogram::<u64>::new(3)?;
    let whole = Stopwatch::start();
    while whole.elapsed() < during && (syncs.len() + 1) * (BLOCK.len() as u64) < FILE_SIZE {
        file.write_all(&BLOCK)?;
        let one = Stopwatch::start();
        file.sync_data()?;
        syncs.record(u64::try_from(one.elapsed().as_micros())?)?;
    }
    std::fs::remove_file(folder.join("fdatasync"))?;
    Ok(Disk { syncs: syncs.len(), p50_us: syncs.value_at_quantile(0.5), p99_us: syncs.value_at_quantile(0.99) })
}
