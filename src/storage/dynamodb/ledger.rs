//! Ledgers in the table: a block is an item that never changes, under the id of its first entry.
//!
//! There is no item that says where a ledger ends: its end is where no block stands yet. It is looked for from where it was
//! seen last, in strides that double, for no bucket before the end is empty: a block has fewer entries than a bucket.

use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use bytes::Bytes;

use super::client::{Item, Page, binary, bytes_of, fault, key, limit_of, number};
use super::commit::NOTHING_THERE;
use super::layout::{MOST_INLINE, PART, decode_events, encode_events, encoded_size};
use super::{Dynamodb, keys, read};
use crate::failpoint::{self, Failpoint};
use crate::storage::StorageError;
use crate::storage::ledger::{Append, Block, Hash, Head, Ledger, Link, Run, Source};

const VERSION: u8 = 1;

/// Bytes of entries after which a page of blocks ends.
const PAGE_BYTES: usize = 4 << 20;

/// The longest name of a ledger, in bytes.
const LONGEST_SINK: usize = 512;

/// A part of a bucket: blocks between two first entries, both included.
struct Cut<'a> {
    sink: &'a str,
    bucket: i64,
    from: i64,
    to: i64,
}

/// What of a block a query brings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Whole,
    Link,
}

// === impl Cut ===

impl<'a> Cut<'a> {
    /// The bucket that holds the block behind entry `after`, from there on.
    fn behind(sink: &'a str, after: i64) -> Option<Self> {
        let from = after.checked_add(1)?;
        Some(Self { sink, bucket: keys::bucket(from), from, to: i64::MAX })
    }

    /// A bucket up to a block.
    fn up_to(sink: &'a str, bucket: i64, to: i64) -> Self {
        Self { sink, bucket, from: i64::MIN, to }
    }
}

// === impl Dynamodb ===

impl Dynamodb {
    fn check_sink(&self, sink: &str) -> Result<(), StorageError> {
        self.check_open()?;
        match sink.len() {
            0..=LONGEST_SINK => Ok(()),
            length => {
                let text = format!("a ledger's name of {length} bytes can't be stored, {LONGEST_SINK} are the most");
                Err(StorageError::Unavailable(text))
            }
        }
    }

    fn heads(&self) -> MutexGuard<'_, std::collections::HashMap<String, Head>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn query(
        &self,
        cut: &Cut<'_>,
        of: Of,
        backward: bool,
        limit: Option<usize>,
        start: Option<Item>,
    ) -> Result<Page, StorageError> {
        if cut.from > cut.to {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let query = self.table.calls.query().table_name(&self.table.name).consistent_read(true);
        let query = query
            .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", binary(keys::ledger(cut.sink, cut.bucket)))
            .expression_attribute_values(":from", binary(keys::block(cut.from)))
            .expression_attribute_values(":to", binary(keys::block(cut.to)))
            .set_projection_expression((of == Of::Link).then(|| "sk, h, o".to_owned()))
            .scan_index_forward(!backward)
            .set_limit(limit.map(limit_of))
            .set_exclusive_start_key(start);
        let page = query.send().await.map_err(|error| fault(&error).error())?;
        Ok(Page { items: page.items.unwrap_or_default(), next: page.last_evaluated_key })
    }

    /// The last block of a cut, without its entries.
    async fn last_link(&self, cut: &Cut<'_>) -> Result<Option<Link>, StorageError> {
        let page = self.query(cut, Of::Link, true, Some(1), None).await?;
        page.items.first().map(decode_link).transpose()
    }

    async fn find_head(&self, sink: &str) -> Result<Head, StorageError> {
        let seen = self.heads().get(sink).copied();
        let mut head = match seen {
            Some(head) => head,
            None => self.noted_head(sink).await?,
        };
        let Some(next) = Cut::behind(sink, head.last) else { return Ok(head) };
        let Some(link) = self.last_link(&next).await? else { return Ok(head) };
        head = link.head();
        // INVARIANT: `low` holds `head`, `high` is empty.
        let (mut low, mut high, mut stride) = (next.bucket, None, 1);
        while keys::bucket(head.last.saturating_add(1)) != low {
            let probe = match high {
                None => low + stride,
                Some(high) if high - low > 1 => low + (high - low) / 2,
                Some(_) => break,
            };
            match self.last_link(&Cut::up_to(sink, probe, i64::MAX)).await? {
                Some(link) => (head, low, stride) = (link.head(), probe, stride * 2),
                None => high = Some(probe),
            }
        }
        Ok(head)
    }

    async fn noted_head(&self, sink: &str) -> Result<Head, StorageError> {
        let Some(note) = self.table.get(&keys::ledger_note(sink), keys::SELF).await? else { return Ok(Head::EMPTY) };
        let (last, hash) = decode_hash(bytes_of(&note, "h")?)?;
        Ok(Head { last, hash })
    }

    fn saw(&self, sink: &str, head: Head) {
        let mut heads = self.heads();
        let seen = heads.entry(sink.to_owned()).or_insert(head);
        if seen.last < head.last {
            *seen = head;
        }
    }

    /// The block that holds an entry.
    async fn holder(&self, sink: &str, entry: i64) -> Result<Option<Item>, StorageError> {
        let bucket = keys::bucket(entry);
        // It begins in the bucket, or in the one before.
        for bucket in [bucket, bucket - 1] {
            let page = self.query(&Cut::up_to(sink, bucket, entry), Of::Whole, true, Some(1), None).await?;
            if let Some(item) = page.items.into_iter().next() {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    async fn decode_block(&self, sink: &str, item: &Item) -> Result<Block, StorageError> {
        let Link { first, last, hash, .. } = decode_link(item)?;
        let digests = bytes_of(item, "g")?.as_chunks::<32>().0.iter().map(|digest| Hash(*digest)).collect::<Vec<_>>();
        let partition = keys::ledger(sink, keys::bucket(first));
        let missing = || StorageError::Corrupt(format!("entries of block {first} of ledger {sink:?} are missing"));
        let entries = match item.get("p") {
            None => decode_events(bytes_of(item, "e")?)?,
            Some(parts) => {
                let parts =
                    parts.as_n().ok().and_then(|parts| parts.parse().ok()).ok_or_else(|| read::malformed("block"))?;
                let key = |part| keys::block_blob(first, &hash.0, part);
                decode_events(&read::blob(&self.table, &partition, parts, key).await?.ok_or_else(missing)?)?
            }
        };
        match digests.len() as i64 == last - first + 1 {
            true => Ok(Block { first, hash, digests, entries }),
            false => Err(read::malformed("block")),
        }
    }
}

/// `version count hash`, under the key of the first entry; runs: `source last` each.
fn decode_link(item: &Item) -> Result<Link, StorageError> {
    let first = keys::first_entry(bytes_of(item, "sk")?)?;
    let (count, hash) = decode_hash(bytes_of(item, "h")?)?;
    let last = first.checked_add(count - 1).filter(|last| *last >= first).ok_or_else(|| read::malformed("block"))?;
    let runs = match item.get("o") {
        None => Vec::new(),
        Some(_) => bytes_of(item, "o")?.as_chunks::<24>().0.iter().map(decode_run).collect(),
    };
    Ok(Link { first, last, hash, runs })
}

fn decode_run(bytes: &[u8; 24]) -> Run {
    let (mut source, mut last) = ([0; 16], [0; 8]);
    source.copy_from_slice(&bytes[..16]);
    last.copy_from_slice(&bytes[16..]);
    Run { source: Source(source), last: i64::from_be_bytes(last) }
}

fn encode_runs(runs: &[Run]) -> Vec<u8> {
    runs.iter().flat_map(|run| [&run.source.0[..], &run.last.to_be_bytes()].concat()).collect()
}

/// `version number hash`
fn encode_hash(number: i64, hash: Hash) -> Vec<u8> {
    [&[VERSION], &number.to_be_bytes()[..], &hash.0].concat()
}

fn decode_hash(bytes: &[u8]) -> Result<(i64, Hash), StorageError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let (number, hash) = rest.split_first_chunk::<8>().ok_or_else(|| read::malformed("block"))?;
            let hash = hash.try_into().map_err(|_| read::malformed("block"))?;
            Ok((i64::from_be_bytes(*number), Hash(hash)))
        }
        _ => Err(read::malformed("block")),
    }
}

fn gap(sink: &str, entry: i64) -> StorageError {
    StorageError::Corrupt(format!("entry {entry} of ledger {sink:?} is missing"))
}

#[async_trait]
impl Ledger for Dynamodb {
    async fn head(&self, sink: &str) -> Result<Head, StorageError> {
        self.check_sink(sink)?;
        let head = self.find_head(sink).await?;
        self.saw(sink, head);
        Ok(head)
    }

    async fn entries(&self, sink: &str, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.check_sink(sink)?;
        if first > last {
            return Ok(Vec::new());
        }
        if first < 1 {
            return Err(gap(sink, first));
        }
        let item = self.holder(sink, first).await?.ok_or_else(|| gap(sink, first))?;
        let mut entries = Vec::new();
        let mut next = first;
        let mut take = |block: Block, next: &mut i64| {
            let end = block.head().last;
            if block.first > *next || end < *next {
                return Err(gap(sink, *next));
            }
            let whole = block.entries.len() == block.digests.len();
            let skipped = usize::try_from(*next - block.first).unwrap_or(usize::MAX);
            entries.extend(block.entries.into_iter().skip(skipped).take_while(|entry| {
                let wanted = *next <= last && whole && !entry.is_empty();
                *next += i64::from(wanted);
                wanted
            }));
            if *next <= last && *next <= end { Err(gap(sink, *next)) } else { Ok(()) }
        };
        take(self.decode_block(sink, &item).await?, &mut next)?;
        while next <= last {
            let cut = Cut { sink, bucket: keys::bucket(next), from: next, to: last };
            let mut start = None;
            let before = next;
            loop {
                let page = self.query(&cut, Of::Whole, false, None, start).await?;
                for item in &page.items {
                    take(self.decode_block(sink, item).await?, &mut next)?;
                }
                start = page.next;
                if start.is_none() || next > last {
                    break;
                }
            }
            if next == before {
                return Err(gap(sink, next));
            }
        }
        Ok(entries)
    }

    async fn blocks(&self, sink: &str, after: i64, limit: usize) -> Result<Vec<Block>, StorageError> {
        self.check_sink(sink)?;
        let mut blocks: Vec<Block> = Vec::new();
        let mut bytes = 0;
        let mut end = after;
        while blocks.len() < limit
            && bytes < PAGE_BYTES
            && let Some(cut) = Cut::behind(sink, end)
        {
            let page = self.query(&cut, Of::Whole, false, Some(limit - blocks.len()), None).await?;
            if page.items.is_empty() {
                break;
            }
            for item in &page.items {
                let block = match self.decode_block(sink, item).await {
                    Ok(block) => block,
                    Err(StorageError::Corrupt(_)) if !blocks.is_empty() => return Ok(blocks),
                    Err(error) => return Err(error),
                };
                end = block.head().last;
                bytes += block.entries.iter().map(Bytes::len).sum::<usize>();
                blocks.push(block);
                if bytes >= PAGE_BYTES {
                    break;
                }
            }
        }
        Ok(blocks)
    }
}

#[async_trait]
impl Append for Dynamodb {
    async fn append(&self, sink: &str, block: &Block, runs: &[Run]) -> Result<Option<Link>, StorageError> {
        self.check_sink(sink)?;
        let Head { last, hash } = block.head();
        let partition = keys::ledger(sink, keys::bucket(block.first));
        let mut item = key(&partition, &keys::block(block.first));
        item.insert("h".to_owned(), binary(encode_hash(block.digests.len() as i64, hash)));
        item.insert("g".to_owned(), binary(block.digests.iter().flat_map(|digest| digest.0).collect::<Vec<_>>()));
        item.insert("o".to_owned(), binary(encode_runs(runs)));
        let mut blobs = Vec::new();
        if encoded_size(&block.entries) > MOST_INLINE {
            let mut parts = Vec::new();
            for (part, content) in (0..).zip(encode_events(&block.entries).chunks(PART)) {
                let sort = keys::block_blob(block.first, &hash.0, part);
                let mut item = key(&partition, &sort);
                item.insert("v".to_owned(), binary(content));
                parts.push(item);
                blobs.push(sort);
            }
            item.insert("p".to_owned(), number(blobs.len()));
            // IMPORTANT: before the block that points at them.
            self.table.put_all(parts).await?;
        } else {
            item.insert("e".to_owned(), binary(encode_events(&block.entries)));
        }
        let put = self.table.calls.put_item().table_name(&self.table.name).set_item(Some(item));
        let put = put.condition_expression(NOTHING_THERE);
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        failpoint::reached(Failpoint::BeforeBlock);
        let there = match put.send().await {
            Ok(_) => {
                failpoint::reached(Failpoint::BlockPut);
                self.saw(sink, Head { last, hash });
                return Ok(None);
            }
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {
                match answer.into_err() {
                    PutItemError::ConditionalCheckFailedException(failed) => failed.item,
                    _ => None,
                }
            }
            Err(error) => return Err(fault(&error).error()),
        };
        let there = match there {
            Some(item) => Some(item),
            // Some tables don't say what stood in the way.
            None => self.table.get(&partition, &keys::block(block.first)).await?,
        };
        let link = decode_link(&there.ok_or_else(|| gap(sink, block.first))?)?;
        // Nothing will ever point at them: the place is taken.
        if link.hash != hash
            && let Err(error) = self.table.delete_all(&partition, &blobs).await
        {
            tracing::debug!(error.reason = %error, "the entries of a block that lost its place stay");
        }
        self.saw(sink, link.head());
        Ok(Some(link))
    }

    async fn links(&self, sink: &str, after: i64) -> Result<Vec<Link>, StorageError> {
        self.check_sink(sink)?;
        let Some(cut) = Cut::behind(sink, after) else { return Ok(Vec::new()) };
        let page = self.query(&cut, Of::Link, false, None, None).await?;
        page.items.iter().map(decode_link).collect()
    }

    async fn note_head(&self, sink: &str, head: Head) -> Result<(), StorageError> {
        self.check_sink(sink)?;
        let update = self.table.calls.update_item().table_name(&self.table.name);
        let update = update
            .set_key(Some(key(&keys::ledger_note(sink), keys::SELF)))
            .update_expression("SET h = :head, n = :last")
            // Another instance may have noted a later one.
            .condition_expression("attribute_not_exists(n) OR n < :last")
            .expression_attribute_values(":head", binary(encode_hash(head.last, head.hash)))
            .expression_attribute_values(":last", number(head.last));
        match update.send().await {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => Ok(()),
            Err(error) => Err(fault(&error).error()),
        }
    }
}
