//! Notifications' entries: an item each beside their machine's, in the dues' index until they are parked.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Dynamodb;
use super::client::{AT_ONCE, Fault, Item, binary, bytes_of, fault, key, number};
use super::commit::NOTHING_THERE;
use super::layout::{MOST_INLINE, PART};
use super::{keys, read};
use crate::machine::{MachineKey, Notification, NotificationId};
use crate::storage::{Outcome, StorageError};

const VERSION: u8 = 1;

/// How a notification lies in items of its own: its digest and how many they are.
struct Pointer {
    digest: [u8; 16],
    parts: u32,
}

// === impl Dynamodb ===

impl Dynamodb {
    pub(super) async fn put_entry(&self, machine: &MachineKey, it: &Notification, due: i64) -> Outcome {
        let partition = keys::machine(machine);
        let mut value = vec![VERSION];
        value.extend_from_slice(&it.encode());
        let mut entry = key(&partition, &keys::notification(it.id));
        if value.len() > MOST_INLINE {
            let digest = keys::digest(&value);
            let mut items = Vec::new();
            for (part, content) in (0..).zip(value.chunks(PART)) {
                let mut item = key(&partition, &keys::notification_blob(it.id, digest, part));
                item.insert("v".to_owned(), binary(content));
                items.push(item);
            }
            entry.insert("h".to_owned(), binary(digest));
            entry.insert("p".to_owned(), number(items.len()));
            // Parts that no entry points at are nothing; those of another notification have other keys.
            if let Err(error) = self.table.put_all(items).await {
                return Outcome::Refused(error);
            }
        } else {
            entry.insert("v".to_owned(), binary(value));
        }
        if due != i64::MAX {
            entry.insert("ds".to_owned(), number(machine.shard(self.shards)));
            entry.insert("d".to_owned(), binary(keys::due(due, &partition, Some(it.id))));
        }
        let put = self.table.commits.put_item().table_name(&self.table.name).set_item(Some(entry.clone()));
        let put = put
            .condition_expression(NOTHING_THERE)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let stands = match put.send().await {
            Ok(_) => return Outcome::Committed,
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {
                match answer.into_err() {
                    PutItemError::ConditionalCheckFailedException(failed) => failed.item,
                    _ => None,
                }
            }
            Err(error) => {
                return match fault(&error) {
                    Fault::Refused(error) => Outcome::Refused(error),
                    Fault::Unknown(error) => Outcome::Unknown(error),
                };
            }
        };
        let stands = match stands {
            Some(stands) => Ok(Some(stands)),
            // Some tables don't say what stood in the way.
            None => self.table.get(&partition, &keys::notification(it.id)).await,
        };
        match stands {
            Ok(Some(stands)) if is_same(&stands, &entry) => Outcome::Committed,
            Ok(Some(_)) => Outcome::Conflict,
            Ok(None) => {
                let text = "an entry that stood in the way is gone, and may have been the same";
                Outcome::Unknown(StorageError::Unavailable(text.to_owned()))
            }
            Err(error) => Outcome::Unknown(error),
        }
    }

    pub(super) async fn entries(&self, machine: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        let partition = keys::machine(machine);
        let (from, to) = (keys::notification(i64::MIN), keys::notification(i64::MAX));
        let mut entries = Vec::new();
        let mut start = None;
        while entries.len() < limit {
            let left = limit - entries.len();
            let page = self.table.range(&partition, (&from, &to), Some(left), start).await?;
            for item in &page.items {
                // One whose parts are gone was deleted, just now or before it was put for the last time.
                entries.extend(self.entry(&partition, item).await?);
            }
            start = page.next;
            if start.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    async fn entry(&self, partition: &[u8], item: &Item) -> Result<Option<Notification>, StorageError> {
        let id = keys::notification_id(bytes_of(item, "sk")?)?;
        let value = match Pointer::of(item)? {
            None => bytes_of(item, "v")?.to_vec(),
            Some(Pointer { digest, parts }) => {
                let key = |part| keys::notification_blob(id, digest, part);
                match read::blob(&self.table, partition, parts, key).await? {
                    Some(value) => value,
                    None => {
                        self.delete_orphan(partition, id, digest).await?;
                        return Ok(None);
                    }
                }
            }
        };
        match value.split_first() {
            Some((&VERSION, encoded)) => Notification::decode(id, encoded).map(Some).map_err(read::corrupt),
            _ => Err(read::malformed("notification")),
        }
    }

    pub(super) async fn settle(
        &self,
        machine: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        if delete.is_empty() && park.is_empty() {
            return Ok(());
        }
        let partition = &keys::machine(machine);
        // IMPORTANT: one after the other: an entry may be in both.
        let parked = stream::iter(park.to_vec()).map(|id| self.park_entry(partition, id)).buffer_unordered(AT_ONCE);
        parked.try_collect::<()>().await?;
        let deleted =
            stream::iter(delete.to_vec()).map(|id| self.delete_entry(partition, id)).buffer_unordered(AT_ONCE);
        deleted.try_collect::<()>().await
    }

    async fn delete_entry(&self, partition: &[u8], id: NotificationId) -> Result<(), StorageError> {
        let Some(old) = self.table.delete(partition, &keys::notification(id)).await? else { return Ok(()) };
        let Some(Pointer { digest, parts }) = Pointer::of(&old)? else { return Ok(()) };
        let sorts: Vec<_> = (0..parts).map(|part| keys::notification_blob(id, digest, part)).collect();
        self.table.delete_all(partition, &sorts).await
    }

    /// An entry whose parts were not found. If it still stands, a late put has brought it back: nobody would ever read it,
    /// and its due would wake its machine for ever.
    ///
    /// INVARIANT: an entry is put after its parts, and deleted before them. So one that stands after a part of it was
    /// missing was deleted before, and is deleted only then: its notification was dealt with.
    async fn delete_orphan(&self, partition: &[u8], id: NotificationId, digest: [u8; 16]) -> Result<(), StorageError> {
        let delete = self.table.calls.delete_item().table_name(&self.table.name);
        let delete = delete
            .set_key(Some(key(partition, &keys::notification(id))))
            .condition_expression("h = :digest")
            .expression_attribute_values(":digest", binary(digest));
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => Ok(()),
            Err(error) => Err(fault(&error).error()),
        }
    }

    async fn park_entry(&self, partition: &[u8], id: NotificationId) -> Result<(), StorageError> {
        let update = self.table.calls.update_item().table_name(&self.table.name);
        let update = update
            .set_key(Some(key(partition, &keys::notification(id))))
            .update_expression("REMOVE ds, d")
            .condition_expression("attribute_exists(pk)");
        match update.send().await {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => Ok(()),
            Err(error) => Err(fault(&error).error()),
        }
    }
}

/// Whether two entries hold the same notification, or point at the same, whenever it is due.
fn is_same(one: &Item, other: &Item) -> bool {
    ["v", "h", "p"].iter().all(|name| one.get(*name) == other.get(*name))
}

// === impl Pointer ===

impl Pointer {
    /// None: the entry holds its notification itself.
    fn of(item: &Item) -> Result<Option<Self>, StorageError> {
        let Some(AttributeValue::N(parts)) = item.get("p") else { return Ok(None) };
        let parts = parts.parse().map_err(|_| read::malformed("notification"))?;
        let digest = bytes_of(item, "h")?.try_into().map_err(|_| read::malformed("notification"))?;
        Ok(Some(Self { digest, parts }))
    }
}
