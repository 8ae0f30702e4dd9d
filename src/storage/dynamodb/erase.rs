//! Deletes what is left of an epoch.

use aws_sdk_dynamodb::error::SdkError;

use super::Dynamodb;
use super::client::{binary, bytes_of, fault, key};
use super::layout::{Layout, Run};
use super::{keys, read};
use crate::machine::{Epoch, MachineKey};
use crate::storage::StorageError;

/// How often the item is read again when a commit was faster.
const ATTEMPTS: usize = 16;

/// Kinds of items that hold events, by their last.
const EVENTS: [u8; 2] = *b"cb";

// === impl Dynamodb ===

impl Dynamodb {
    /// The events 1 to `last` of an epoch, wherever they lie, and the entries that belong to it.
    pub(super) async fn erase(&self, machine: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        let partition = keys::machine(machine);
        // IMPORTANT: the item first: from then on no reader looks for what goes.
        let stands = self.cut(machine, &partition, epoch, last).await?;
        for kind in EVENTS {
            let mut gone = Vec::new();
            for sort in self.table.sort_keys(&partition, &keys::of_epoch(kind, epoch)).await? {
                if keys::last_event(&sort)? <= last {
                    gone.push(sort);
                }
            }
            self.table.delete_all(&partition, &gone).await?;
        }
        if !stands {
            let mut gone = self.table.sort_keys(&partition, &keys::of_epoch(b'r', epoch)).await?;
            gone.push(keys::epoch_end(epoch));
            self.table.delete_all(&partition, &gone).await?;
        }
        let entries = self.entries(machine, usize::MAX).await?;
        let gone: Vec<_> = entries.iter().filter(|it| it.epoch == epoch).map(|it| it.id).collect();
        self.settle(machine, &gone, &[]).await
    }

    /// Notes in the item that events are deleted, if it is still the epoch's: whether it is.
    async fn cut(&self, machine: &MachineKey, partition: &[u8], epoch: Epoch, last: i64) -> Result<bool, StorageError> {
        for _ in 0..ATTEMPTS {
            let Some(item) = self.table.get(partition, keys::SELF).await? else { return Ok(false) };
            let found = read::Found::decode(&item)?;
            if found.standing.epoch != epoch {
                return Ok(false);
            }
            let mut layout = found.standing.layout;
            if layout.cut >= last {
                return Ok(true);
            }
            layout =
                Layout { cut: last, tail: layout.tail.into_iter().filter(|run| stays(run, last)).collect(), ..layout };
            let update = self.table.calls.update_item().table_name(&self.table.name);
            let update = update
                .set_key(Some(key(partition, keys::SELF)))
                .update_expression("SET t = :next")
                .condition_expression("c = :read AND t = :was")
                .expression_attribute_values(":read", binary(found.standing.commit.0))
                .expression_attribute_values(":was", binary(bytes_of(&item, "t")?))
                .expression_attribute_values(":next", binary(layout.encode()));
            let updated = update.send().await;
            self.standings().forget(machine);
            match updated {
                Ok(_) => return Ok(true),
                Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {}
                Err(error) => return Err(fault(&error).error()),
            }
        }
        Err(StorageError::Unavailable("the machine changes faster than its events can be deleted".to_owned()))
    }
}

fn stays(run: &Run, cut: i64) -> bool {
    run.last() > cut
}
