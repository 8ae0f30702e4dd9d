//! The index of machines: a partition per shard, each in the order of namespace, status and id.
//!
//! It lags behind the table on real DynamoDB by a moment; what is listed is what the index says.

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Dynamodb;
use super::client::{AT_ONCE, Item, binary, bytes_of, fault, limit_of, number};
use super::keys::{self, SELF};
use super::read::malformed;
use super::schema::MACHINES;
use crate::machine::Shard;
use crate::storage::{Listed, Listing, MachinePage, StorageError};

/// Shards that one page looks into: most of them may have nothing to say.
const MOST_SHARDS: usize = 256;

/// A place in the listing: in this shard, behind the entry of these keys; without them, at the shard's beginning.
struct Place {
    shard: Shard,
    entry: Option<Entry>,
}

/// An entry of the index by its sort key and its table's partition key.
#[derive(Clone)]
struct Entry {
    sort: Vec<u8>,
    partition: Vec<u8>,
}

// === impl Dynamodb ===

impl Dynamodb {
    pub(super) async fn list(
        &self,
        of: &Listing,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<MachinePage, StorageError> {
        let mut shards = of.shards.clone().unwrap_or_else(|| (0..self.shards).collect());
        shards.sort_unstable();
        shards.dedup();
        shards.retain(|shard| *shard < self.shards);
        let start = after.map(|cursor| Place::decode(cursor)).transpose()?;
        let mut at = start.as_ref().map_or(0, |place| shards.partition_point(|shard| *shard < place.shard));
        let behind = |shard| start.as_ref().filter(|place| place.shard == shard).and_then(|place| place.entry.clone());
        let end = (at + MOST_SHARDS).min(shards.len());
        let mut machines = Vec::new();
        // The first alone, since it may fill the page; then more and more at once.
        let mut width = 1;
        while at < end {
            let wave = shards[at..(at + width).min(end)].to_vec();
            let left = limit.saturating_sub(machines.len()).max(1);
            let starts: Vec<_> = wave.iter().map(|shard| (*shard, behind(*shard))).collect();
            let pages = stream::iter(starts).map(|(shard, after)| self.list_shard(of, shard, after, left));
            let pages: Vec<_> = pages.buffered(AT_ONCE).try_collect().await?;
            for (shard, page) in wave.iter().zip(pages) {
                for (listed, entry) in page {
                    machines.extend(listed);
                    if machines.len() >= limit {
                        let next = Place { shard: *shard, entry: Some(entry) };
                        return Ok(MachinePage { machines, next: Some(next.encode()) });
                    }
                }
            }
            at += wave.len();
            width = (2 * width).min(AT_ONCE);
        }
        let next = shards.get(at).map(|shard| Place { shard: *shard, entry: None }.encode());
        Ok(MachinePage { machines, next })
    }

    /// At most `limit` entries of one shard, in order; without their machine where the status is not asked for.
    async fn list_shard(
        &self,
        of: &Listing,
        shard: Shard,
        after: Option<Entry>,
        limit: usize,
    ) -> Result<Vec<(Option<Listed>, Entry)>, StorageError> {
        let prefix = of.ns.as_ref().map_or_else(Vec::new, |ns| keys::listing_prefix(ns, of.status));
        let mut entries = Vec::new();
        let mut start = after.map(|Entry { sort, partition }| {
            let mut key = super::client::key(&partition, SELF);
            key.insert("ls".to_owned(), number(shard));
            key.insert("l".to_owned(), binary(sort));
            key
        });
        while entries.len() < limit {
            let query = self.table.scans.query().table_name(&self.table.name).index_name(MACHINES);
            let query = query.expression_attribute_values(":shard", number(shard));
            let query = match prefix.is_empty() {
                true => query.key_condition_expression("ls = :shard"),
                false => query
                    .key_condition_expression("ls = :shard AND begins_with(l, :prefix)")
                    .expression_attribute_values(":prefix", binary(prefix.clone())),
            };
            let query = query.limit(limit_of(limit - entries.len())).set_exclusive_start_key(start);
            let page = query.send().await.map_err(|error| fault(&error).error())?;
            for item in page.items.unwrap_or_default() {
                let (listed, entry) = decode(&item)?;
                entries.push((Some(listed).filter(|it| of.status.is_none_or(|status| status == it.status)), entry));
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(entries)
    }
}

fn decode(item: &Item) -> Result<(Listed, Entry), StorageError> {
    let sort = match item.get("l") {
        Some(AttributeValue::B(sort)) => sort.as_ref().to_vec(),
        _ => return Err(malformed("listing")),
    };
    let partition = bytes_of(item, "pk")?.to_vec();
    let listed = Listed { key: keys::decode_machine(&partition)?, status: keys::listed_status(&sort)? };
    Ok((listed, Entry { sort, partition }))
}

// === impl Place ===

impl Place {
    /// `shard [len(sort) sort partition]`
    fn encode(&self) -> Bytes {
        let mut bytes = self.shard.to_be_bytes().to_vec();
        if let Some(Entry { sort, partition }) = &self.entry {
            // A sort key has 1 KB at most.
            bytes.extend_from_slice(&u16::try_from(sort.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(sort);
            bytes.extend_from_slice(partition);
        }
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let foreign = || StorageError::Corrupt("a cursor of machines is not one of this store's".to_owned());
        let (shard, rest) = bytes.split_first_chunk::<2>().ok_or_else(foreign)?;
        let shard = u16::from_be_bytes(*shard);
        if rest.is_empty() {
            return Ok(Self { shard, entry: None });
        }
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(foreign)?;
        let split = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)));
        let (sort, partition) = split.filter(|(_, partition)| !partition.is_empty()).ok_or_else(foreign)?;
        Ok(Self { shard, entry: Some(Entry { sort: sort.to_vec(), partition: partition.to_vec() }) })
    }
}
