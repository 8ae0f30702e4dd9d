//! The index of dues: a partition per shard, each in the order of time, merged.
//!
//! It lags behind the table on real DynamoDB: what it says may be outdated, and what it doesn't say yet is found by the
//! next scan, which begins at the start. The record decides.

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::Dynamodb;
use super::client::{AT_ONCE, Item, binary, bytes_of, fault, limit_of, number, pause};
use super::keys;
use super::schema::DUES;
use crate::machine::Shard;
use crate::storage::{Due, StorageError};

/// How often shards are asked that gave no answer, while others did: so many shards never all answer at once where some
/// requests are lost.
const ROUNDS: u32 = 5;

// === impl Dynamodb ===

impl Dynamodb {
    pub(super) async fn dues_of_shards(
        &self,
        shards: impl Iterator<Item = Shard> + Send,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Behind a cursor: the first bytes that are greater. Up to a time: no due is as long as this end.
        let from = after.map_or_else(|| vec![0], |cursor| [cursor, &[0][..]].concat());
        let to = keys::due_end(until).unwrap_or_else(|| vec![0xff; 64]);
        if from > to {
            return Ok(Vec::new());
        }
        let (mut found, mut left) = (Vec::new(), shards.collect::<Vec<_>>());
        let all = left.len();
        for round in 1.. {
            let (mut missed, mut failed) = (Vec::new(), None);
            let ask = |shard| {
                let (from, to) = (&from, &to);
                async move { (shard, self.dues_of(shard, from, to, limit).await) }
            };
            let mut answers = stream::iter(left).map(ask).buffer_unordered(AT_ONCE);
            while let Some((shard, dues)) = answers.next().await {
                match dues {
                    Ok(dues) => found.extend(dues),
                    Err(error) => {
                        missed.push(shard);
                        failed = Some(error);
                    }
                }
            }
            match failed {
                None => break,
                Some(error) if missed.len() == all || round == ROUNDS => return Err(error),
                Some(_) => pause(round).await,
            }
            left = missed;
        }
        found.sort_unstable_by(|a, b| a.cursor.cmp(&b.cursor));
        found.truncate(limit);
        Ok(found)
    }

    /// At most `limit` of one shard, in order.
    async fn dues_of(&self, shard: Shard, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Due>, StorageError> {
        let mut dues = Vec::new();
        let mut start: Option<Item> = None;
        while dues.len() < limit {
            let query = self.table.scans.query().table_name(&self.table.name).index_name(DUES);
            let query = query
                .key_condition_expression("ds = :shard AND d BETWEEN :from AND :to")
                .expression_attribute_values(":shard", number(shard))
                .expression_attribute_values(":from", binary(from))
                .expression_attribute_values(":to", binary(to))
                .limit(limit_of(limit - dues.len()))
                .set_exclusive_start_key(start);
            let page = query.send().await.map_err(|error| fault(&error).error())?;
            for item in page.items.unwrap_or_default() {
                dues.push(due(&item)?);
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(dues)
    }
}

fn due(item: &Item) -> Result<Due, StorageError> {
    let cursor = match item.get("d") {
        Some(AttributeValue::B(cursor)) => Bytes::copy_from_slice(cursor.as_ref()),
        _ => return Err(super::read::malformed("due")),
    };
    let entry = bytes_of(item, "sk")?.starts_with(b"n");
    Ok(Due { at: keys::due_time(&cursor)?, key: keys::decode_machine(bytes_of(item, "pk")?)?, entry, cursor })
}
