//! Leases: a partition of heartbeats and one of shards' owners. Each change is one conditional write of one item.
//!
//! Whose turn it is is said by the condition, never by a clock: a write that comes late finds that another stands where
//! its predecessor should.

use async_trait::async_trait;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::Dynamodb;
use super::client::{Item, binary, bytes_of, fault, key, number};
use super::commit::NOTHING_THERE;
use super::keys;
use super::read::malformed;
use crate::storage::StorageError;
use crate::storage::leases::{Heartbeat, InstanceId, Leases, Owner};

/// Of a heartbeat: its number, the changes of owners, the address, whether it is leaving; of a shard: epoch, instance.
const BEAT: &str = "b";
const CHANGES: &str = "n";
const ADDRESS: &str = "a";
const LEAVING: &str = "g";
const EPOCH: &str = "e";
const INSTANCE: &str = "i";

/// What a conditional write met.
enum Written {
    Done,
    /// This stands there, if anything does.
    Met(Option<Item>),
}

// === impl Dynamodb ===

#[async_trait]
impl Leases for Dynamodb {
    fn shards(&self) -> u16 {
        self.shards
    }

    async fn beat(&self, heartbeat: &Heartbeat) -> Result<bool, StorageError> {
        self.check_open()?;
        let mut item = key(&keys::instances(), &heartbeat.instance.0);
        item.insert(BEAT.to_owned(), number(heartbeat.beat));
        item.insert(CHANGES.to_owned(), number(heartbeat.changes));
        item.insert(ADDRESS.to_owned(), AttributeValue::S(heartbeat.address.clone()));
        item.insert(LEAVING.to_owned(), AttributeValue::Bool(heartbeat.leaving));
        Ok(match self.put_behind(item, BEAT, heartbeat.beat).await? {
            Written::Done => true,
            Written::Met(Some(met)) => decode_heartbeat(&met)?.as_ref() == Some(heartbeat),
            Written::Met(None) => false,
        })
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StorageError> {
        let items = self.all_of(&keys::instances(), (&[0; 16], &[0xff; 16])).await?;
        items.iter().filter_map(|item| decode_heartbeat(item).transpose()).collect()
    }

    async fn fence(&self, instance: InstanceId, beat: u64) -> Result<bool, StorageError> {
        self.check_open()?;
        // IMPORTANT: a first beat expects nothing, so one that is still under way would stand again if there was nothing:
        // a mark takes its place. Later ones expect their predecessors, which never come back.
        let (partition, condition) = (keys::instances(), "b = :beat");
        let failed = match beat {
            1 => {
                let mark = key(&partition, &instance.0);
                let put = self.leases.commits.put_item().table_name(&self.leases.name).set_item(Some(mark));
                let put = put.condition_expression(condition).expression_attribute_values(":beat", number(beat));
                match put.send().await {
                    Ok(_) => return Ok(true),
                    Err(SdkError::ServiceError(it)) if it.err().is_conditional_check_failed_exception() => None,
                    Err(error) => Some(fault(&error).error()),
                }
            }
            _ => {
                let delete = self.leases.commits.delete_item().table_name(&self.leases.name);
                let delete = delete.set_key(Some(key(&partition, &instance.0))).condition_expression(condition);
                match delete.expression_attribute_values(":beat", number(beat)).send().await {
                    Ok(_) => return Ok(true),
                    Err(SdkError::ServiceError(it)) if it.err().is_conditional_check_failed_exception() => None,
                    Err(error) => Some(fault(&error).error()),
                }
            }
        };
        if let Some(error) = failed {
            return Err(error);
        }
        let met = self.leases.get(&partition, &instance.0).await?;
        let met = met.as_ref().map(decode_heartbeat).transpose()?;
        Ok(met.flatten().is_none())
    }

    async fn owners(&self) -> Result<Vec<Owner>, StorageError> {
        let items = self.all_of(&keys::owners(), (&[0; 2], &[0xff; 2])).await?;
        items.iter().map(decode_owner).collect()
    }

    async fn assign(&self, owner: &Owner) -> Result<bool, StorageError> {
        self.check_open()?;
        let mut item = key(&keys::owners(), &keys::owner(owner.shard));
        item.insert(EPOCH.to_owned(), number(owner.epoch));
        if let Some(instance) = owner.instance {
            item.insert(INSTANCE.to_owned(), binary(instance.0));
        }
        Ok(match self.put_behind(item, EPOCH, owner.epoch).await? {
            Written::Done => true,
            Written::Met(Some(met)) => decode_owner(&met)? == *owner,
            Written::Met(None) => false,
        })
    }
}

impl Dynamodb {
    /// Puts the item of this number where the one of the number before it stands; where nothing does, if it is the first.
    async fn put_behind(&self, item: Item, counter: &str, number_of_it: u64) -> Result<Written, StorageError> {
        let own = key(bytes_of(&item, "pk")?, bytes_of(&item, "sk")?);
        let put = self.leases.commits.put_item().table_name(&self.leases.name).set_item(Some(item));
        let put = match number_of_it.checked_sub(1) {
            Some(before @ 1..) => put
                .condition_expression("#counter = :before")
                .expression_attribute_names("#counter", counter)
                .expression_attribute_values(":before", number(before)),
            _ => put.condition_expression(NOTHING_THERE),
        };
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let met = match put.send().await {
            Ok(_) => return Ok(Written::Done),
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {
                match answer.into_err() {
                    PutItemError::ConditionalCheckFailedException(failed) => failed.item,
                    _ => None,
                }
            }
            Err(error) => return Err(fault(&error).error()),
        };
        match met {
            Some(met) => Ok(Written::Met(Some(met))),
            // Some tables don't say what stood in the way.
            None => Ok(Written::Met(self.leases.get(bytes_of(&own, "pk")?, bytes_of(&own, "sk")?).await?)),
        }
    }

    async fn all_of(&self, partition: &[u8], range: (&[u8], &[u8])) -> Result<Vec<Item>, StorageError> {
        self.check_open()?;
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let page = self.leases.range(partition, range, None, start).await?;
            items.extend(page.items);
            start = page.next;
            if start.is_none() {
                return Ok(items);
            }
        }
    }
}

/// None: the mark of one that was fenced.
fn decode_heartbeat(item: &Item) -> Result<Option<Heartbeat>, StorageError> {
    if !item.contains_key(BEAT) {
        return Ok(None);
    }
    let (Some(AttributeValue::S(address)), Some(AttributeValue::Bool(leaving))) =
        (item.get(ADDRESS), item.get(LEAVING))
    else {
        return Err(malformed("heartbeat"));
    };
    Ok(Some(Heartbeat {
        instance: InstanceId(bytes_of(item, "sk")?.try_into().map_err(|_| malformed("heartbeat"))?),
        beat: number_of(item, BEAT)?,
        changes: number_of(item, CHANGES)?,
        address: address.clone(),
        leaving: *leaving,
    }))
}

fn decode_owner(item: &Item) -> Result<Owner, StorageError> {
    let instance = match item.contains_key(INSTANCE) {
        true => Some(InstanceId(bytes_of(item, INSTANCE)?.try_into().map_err(|_| malformed("owner"))?)),
        false => None,
    };
    let shard = bytes_of(item, "sk")?.try_into().map_err(|_| malformed("owner"))?;
    Ok(Owner { shard: u16::from_be_bytes(shard), epoch: number_of(item, EPOCH)?, instance })
}

fn number_of(item: &Item, name: &str) -> Result<u64, StorageError> {
    match item.get(name) {
        Some(AttributeValue::N(number)) => number.parse().map_err(|_| malformed("lease")),
        _ => Err(malformed("lease")),
    }
}
