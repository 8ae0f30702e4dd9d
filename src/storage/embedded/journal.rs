//! Looks through fjall's journals before fjall does, for damage that it would take for the end.
//!
//! A write that was cut off by a crash leaves a torn batch at the very end of the newest journal: it was acknowledged to
//! nobody, and it is cut off here. fjall drops all that follows the first batch that it can't parse, wherever that is;
//! with a batch behind it, that was acknowledged. Such a journal is refused, not shortened.
//!
//! A journal is a row of batches: `1 count(4) sequence(8)`, items, `3 checksum(8) "FJL" 3`; an item is
//! `2 kind(1) compression(1) table(8) key-length(2) length(4) stored-length(4) key value`, or `4 table(8)`; numbers are
//! little endian. Behind the last batch there are zeros, or nothing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// The head of a batch, and the tag of its first item.
const HEAD: usize = 13 + 1;

/// How far the sequence numbers of two batches in one journal may lie apart, where only single batches lie between.
const NEAR: u64 = 1 << 24;

/// Where the number before is not known: more than any store reaches, and few of all that eight bytes can say.
const ANY: u64 = 1 << 44;

const CHUNK: usize = 1 << 16;

struct Reader {
    file: BufReader<File>,
    length: u64,
    at: u64,
}

/// Where a journal stops making sense.
struct Break {
    /// The beginning of the batch that could not be parsed.
    batch: u64,
    /// The sequence number of the batch before it.
    sequence: Option<u64>,
}

enum End {
    Broken(Break),
    /// A batch that is whole, with a sequence number that does not go on from the one before.
    OutOfOrder(u64),
}

/// Cuts off a torn batch at the end. Returns what else is wrong with the journals of a database, as part of a line.
pub fn check(data: &Path) -> io::Result<Option<String>> {
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for file in std::fs::read_dir(data)? {
        let path = file?.path();
        let number = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
        if let (Some(number), Some("jnl")) = (number, path.extension().and_then(|it| it.to_str())) {
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    let newest = journals.last().map(|(number, _)| *number);
    for (number, path) in journals {
        let mut reader = Reader::open(&path)?;
        let (at, damaged) = match reader.find_end()? {
            None => continue,
            Some(End::OutOfOrder(at)) => (at, true),
            // Zeros, as the file was made of.
            Some(End::Broken(end)) if !reader.anything_from(end.batch)? => continue,
            // An older journal was whole when the next one was begun.
            Some(End::Broken(end)) => (end.batch, Some(number) != newest || reader.batch_behind(&end)?),
        };
        if damaged {
            return Ok(Some(format!("data/{number}.jnl is broken at byte {at} with more behind it")));
        }
        tracing::warn!(journal = number, at, "a write that a crash cut off is dropped");
        let file = File::options().write(true).open(&path)?;
        file.set_len(at)?;
        file.sync_all()?;
    }
    Ok(None)
}

// === impl Reader ===

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(CHUNK, file), length, at: 0 })
    }

    /// None: the journal ends with a whole batch.
    fn find_end(&mut self) -> io::Result<Option<End>> {
        let (mut batch, mut sequence) = (0, None);
        while self.at < self.length {
            let Some(next) = self.batch()? else { return Ok(Some(End::Broken(Break { batch, sequence }))) };
            // The checksum does not cover the sequence number, and a wrong one turns new and old around.
            if sequence.is_some_and(|last| !(last.saturating_add(1)..last.saturating_add(NEAR)).contains(&next)) {
                return Ok(Some(End::OutOfOrder(batch)));
            }
            (batch, sequence) = (self.at, Some(next));
        }
        Ok(None)
    }

    /// The sequence number of the next batch, if it is whole.
    fn batch(&mut self) -> io::Result<Option<u64>> {
        let Some([1, a, b, c, d, sequence @ ..]) = self.take::<13>(None)? else { return Ok(None) };
        // As stored, compressed or not: what can't be decompressed is found as well.
        let mut hash = Xxh3::new();
        for _ in 0..u32::from_le_bytes([a, b, c, d]) {
            let rest = match self.take::<1>(Some(&mut hash))? {
                Some([2]) => match self.take::<20>(Some(&mut hash))? {
                    Some([_, _, _, _, _, _, _, _, _, _, k, l, _, _, _, _, a, b, c, d]) => {
                        u64::from(u16::from_le_bytes([k, l])) + u64::from(u32::from_le_bytes([a, b, c, d]))
                    }
                    None => return Ok(None),
                },
                Some([4]) => 8,
                _ => return Ok(None),
            };
            if rest > self.length - self.at {
                return Ok(None);
            }
            self.hash(rest, &mut hash)?;
        }
        match self.take::<13>(None)? {
            Some([3, checksum @ .., b'F', b'J', b'L', 3]) if checksum == hash.digest().to_le_bytes() => {
                Ok(Some(u64::from_le_bytes(sequence)))
            }
            _ => Ok(None),
        }
    }

    fn take<const N: usize>(&mut self, hash: Option<&mut Xxh3>) -> io::Result<Option<[u8; N]>> {
        if N as u64 > self.length - self.at {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        if let Some(hash) = hash {
            hash.update(&bytes);
        }
        Ok(Some(bytes))
    }

    fn hash(&mut self, mut length: u64, hash: &mut Xxh3) -> io::Result<()> {
        self.at += length;
        while length > 0 {
            let chunk = self.file.fill_buf()?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let part = chunk.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            hash.update(&chunk[..part]);
            self.file.consume(part);
            length -= part as u64;
        }
        Ok(())
    }

    fn anything_from(&mut self, at: u64) -> io::Result<bool> {
        self.chunks(at, |_, chunk| chunk.iter().any(|byte| *byte != 0))
    }

    /// Whether a later batch stands behind the one that is broken: a whole one, whose checksum is right, with a number
    /// that goes on from those before. The broken one's own bytes may look like the head of another by chance; they
    /// don't look like all of it.
    fn batch_behind(&mut self, end: &Break) -> io::Result<bool> {
        let later = match end.sequence {
            Some(last) => last.saturating_add(1)..last.saturating_add(NEAR),
            None => 0..ANY,
        };
        let mut heads: Vec<u64> = Vec::new();
        let mut kept: Vec<u8> = Vec::new();
        let mut next = 0;
        self.chunks(end.batch + 1, |at, chunk| {
            // Zeros were passed over in between: nothing goes on across them.
            if at != next {
                kept.clear();
            }
            next = at + chunk.len() as u64;
            kept.extend_from_slice(chunk);
            let begin = next - kept.len() as u64;
            let found = kept.windows(HEAD).enumerate().filter(|(_, head)| match head {
                [1, a, b, c, d, sequence @ .., 2 | 4] => {
                    let items = u32::from_le_bytes([*a, *b, *c, *d]);
                    let sequence = sequence.try_into().map_or(0, u64::from_le_bytes);
                    items > 0 && later.contains(&sequence)
                }
                _ => false,
            });
            heads.extend(found.map(|(place, _)| begin + place as u64));
            kept.drain(..kept.len().saturating_sub(HEAD - 1));
            false
        })?;
        for head in heads {
            self.at = head;
            self.file.seek(SeekFrom::Start(head))?;
            if self.batch()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `is_it` is said of any chunk from `at` on, which it is told with its place. Chunks of zeros, which a journal is made of at first, are
    /// passed over.
    fn chunks(&mut self, mut at: u64, mut is_it: impl FnMut(u64, &[u8]) -> bool) -> io::Result<bool> {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        self.file.seek(SeekFrom::Start(at))?;
        loop {
            let chunk = self.file.fill_buf()?;
            let length = chunk.len();
            if length == 0 {
                return Ok(false);
            }
            if *chunk != ZEROS[..length] && is_it(at, chunk) {
                return Ok(true);
            }
            self.file.consume(length);
            at += length as u64;
        }
    }
}
