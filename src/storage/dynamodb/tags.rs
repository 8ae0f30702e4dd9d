//! Tags: an item each, claimed in one transaction with the machine's own.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Put as PutRequest, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};

use super::Dynamodb;
use super::client::{Fault, Item, binary, fault, key};
use super::commit::{AS_READ, NOTHING_THERE, Put};
use super::{keys, read};
use crate::machine::{MachineKey, StatusKind};
use crate::storage::{Commit, StorageError};

const HELD: &str = "i = :holder";
const VERSION: u8 = 1;

const FAILED: &str = "ConditionalCheckFailed";
const BUSY: &str = "TransactionConflict";

// === impl Dynamodb ===

impl Dynamodb {
    /// Puts the machine's item together with its claim. None: another machine that exists holds the tag.
    pub(super) async fn claim(
        &self,
        commit: &Commit,
        tag: &[u8],
        item: Item,
    ) -> Result<Option<Result<Put, Fault>>, StorageError> {
        let partition = keys::tag(&commit.key.ns, tag);
        let stored = self.table.get(&partition, keys::SELF).await?;
        let holder = stored.as_ref().map(read::holder).transpose()?;
        let mut claimed = key(&partition, keys::SELF);
        let value = |id: &[u8]| binary([&[VERSION], id].concat());
        claimed.insert("i".to_owned(), value(commit.key.id.as_bytes()));
        let put = PutRequest::builder().table_name(&self.table.name).set_item(Some(claimed));
        let put = match &holder {
            None => put.condition_expression(NOTHING_THERE),
            Some(holder) => {
                put.condition_expression(HELD).expression_attribute_values(":holder", value(holder.as_bytes()))
            }
        };
        let own = PutRequest::builder().table_name(&self.table.name).set_item(Some(item));
        let own = match commit.expect {
            None => own.condition_expression(NOTHING_THERE),
            Some(read) => own.condition_expression(AS_READ).expression_attribute_values(":read", binary(read.0)),
        };
        let own = own.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let mut writes = vec![
            TransactWriteItem::builder().put(own.build().map_err(unbuilt)?).build(),
            TransactWriteItem::builder().put(put.build().map_err(unbuilt)?).build(),
        ];
        if let Some(other) = holder.filter(|holder| *holder != commit.key.id) {
            let other = keys::machine(&MachineKey { ns: commit.key.ns.clone(), id: other });
            let found = read::found(&self.table, &other).await?;
            let head = found.as_ref().map(read::Found::head).transpose()?;
            if head.is_some_and(|head| head.status != StatusKind::Removed) {
                return Ok(None);
            }
            // IMPORTANT: it must not have been started anew when the tag goes over.
            let check = ConditionCheck::builder().table_name(&self.table.name).set_key(Some(key(&other, keys::SELF)));
            let check = match head {
                None => check.condition_expression(NOTHING_THERE),
                Some(head) => {
                    check.condition_expression(AS_READ).expression_attribute_values(":read", binary(head.commit.0))
                }
            };
            writes.push(TransactWriteItem::builder().condition_check(check.build().map_err(unbuilt)?).build());
        }
        let sent = self.table.commits.transact_write_items().set_transact_items(Some(writes)).send().await;
        let error = match sent {
            Ok(_) => return Ok(Some(Ok(Put::Done))),
            Err(error) => error,
        };
        let cancelled = match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => cancelled,
            _ => return Ok(Some(Err(fault(&error)))),
        };
        let reasons = cancelled.cancellation_reasons();
        let is = |code| move |reason: &CancellationReason| reason.code() == Some(code);
        // IMPORTANT: the machine's own condition first: a conflict is said before a taken tag.
        Ok(Some(match reasons.first() {
            Some(own) if is(FAILED)(own) => Ok(Put::Failed(own.item().cloned())),
            _ if reasons.iter().any(is(FAILED)) || reasons.iter().any(is(BUSY)) => Ok(Put::Again),
            // Throttled, or not valid.
            _ => Err(fault(&error)),
        }))
    }
}

fn unbuilt(error: aws_sdk_dynamodb::error::BuildError) -> StorageError {
    StorageError::Unavailable(error.to_string())
}
