//! What requests cost by DynamoDB's documented rules, computed from their bytes: the meter beside the table.
//!
//! - An item's size is its attributes' names and values. A write is a unit per KB of the larger of the item before and
//!   after, one at least; in a transaction two. A condition that fails costs what the item that stands there does.
//! - An index is written where its entry changes: a put of what is new, a delete of what was, by the entry's own size.
//! - A read is a unit per 4 KB, half of that if it need not be the latest. A query's items are summed up before that.
//!
//! Whatever the meter does not know is an error: nothing is free by accident.

use std::collections::HashMap;

use serde_json::{Map, Value};

const WRITE_UNIT: usize = 1_024;
const READ_UNIT: usize = 4_096;

/// What one request was charged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Charge {
    pub operation: String,
    /// The index that was queried.
    pub index: Option<String>,
    pub write_units: f64,
    pub read_units: f64,
}

/// The table as its writes have left it, as far as sizes depend on it.
#[derive(Debug, Default)]
pub struct Meter {
    /// Attributes of each index's key, by its name.
    indexes: HashMap<String, Vec<String>>,
    items: HashMap<Key, Item>,
}

type Key = (String, String);
type Item = Map<String, Value>;

/// What kept a request from being charged, for the one who teaches the meter.
#[derive(Debug, thiserror::Error)]
#[error("the meter does not know what {0} costs")]
pub struct Unknown(String);

// === impl Meter ===

impl Meter {
    /// Charges a request that was answered so.
    pub fn charge(&mut self, operation: &str, status: u16, request: &Value, answer: &Value) -> Result<Charge, Unknown> {
        let mut charge = Charge { operation: operation.to_owned(), ..Charge::default() };
        if !(200..300).contains(&status) {
            charge.write_units = self.refused(operation, request, answer)?;
            return Ok(charge);
        }
        match operation {
            "PutItem" | "DeleteItem" | "UpdateItem" => {
                charge.write_units = self.write(operation.trim_end_matches("Item"), request)?;
            }
            "BatchWriteItem" => {
                for wish in object(request, "RequestItems")?.values().filter_map(Value::as_array).flatten() {
                    // `{"PutRequest": {...}}`
                    for (kind, of) in wish.as_object().into_iter().flatten() {
                        charge.write_units += self.write(kind.trim_end_matches("Request"), of)?;
                    }
                }
                let left = answer.get("UnprocessedItems").and_then(Value::as_object);
                if left.is_some_and(|left| !left.is_empty()) {
                    return Err(Unknown("a batch that was left unfinished".to_owned()));
                }
            }
            "TransactWriteItems" => {
                for (kind, of) in transacted(request)? {
                    charge.write_units += 2.0 * self.write(kind, of)?;
                }
            }
            "GetItem" => {
                let found = answer.get("Item").and_then(Value::as_object).map(size).transpose()?;
                charge.read_units = read_units(found.unwrap_or(0), is_consistent(request));
            }
            "BatchGetItem" => {
                for (table, found) in object(answer, "Responses")? {
                    let of = &request["RequestItems"][table];
                    let asked = of["Keys"].as_array().map_or(0, Vec::len);
                    let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
                    for item in found.iter().filter_map(Value::as_object) {
                        charge.read_units += read_units(size(item)?, is_consistent(of));
                    }
                    let nothing = asked.saturating_sub(found.len()) as f64;
                    charge.read_units += nothing * read_units(0, is_consistent(of));
                }
            }
            "Query" => {
                charge.index = request.get("IndexName").and_then(Value::as_str).map(str::to_owned);
                charge.read_units = self.query(request, answer)?;
            }
            "CreateTable" => self.create(request)?,
            "DescribeTable" | "ListTagsOfResource" => {}
            _ => return Err(Unknown(operation.to_owned())),
        }
        Ok(charge)
    }

    fn create(&mut self, request: &Value) -> Result<(), Unknown> {
        for index in request["GlobalSecondaryIndexes"].as_array().into_iter().flatten() {
            if index["Projection"]["ProjectionType"] != "KEYS_ONLY" {
                return Err(Unknown(format!("the index {}", index["IndexName"])));
            }
            let keys = index["KeySchema"].as_array().into_iter().flatten();
            let keys = keys.filter_map(|key| key["AttributeName"].as_str()).map(str::to_owned).collect();
            self.indexes.insert(text(index, "IndexName")?.to_owned(), keys);
        }
        Ok(())
    }

    /// Units of a write that was done: `Put`, `Delete`, `Update`, or `ConditionCheck`, which writes nothing.
    fn write(&mut self, kind: &str, request: &Value) -> Result<f64, Unknown> {
        let after = match kind {
            "Put" => Some(object(request, "Item")?.clone()),
            "Delete" => None,
            "Update" => Some(self.updated(request)?),
            "ConditionCheck" => self.items.get(&key(object(request, "Key")?)?).cloned(),
            _ => return Err(Unknown(format!("a {kind}"))),
        };
        let key = match &after {
            Some(item) => key(item)?,
            None => key(object(request, "Key")?)?,
        };
        let before = self.items.remove(&key);
        let larger = before.as_ref().map(size).transpose()?.max(after.as_ref().map(size).transpose()?);
        let mut units = write_units(larger.unwrap_or(0));
        for keys in self.indexes.values() {
            let old = before.as_ref().and_then(|item| entry(item, keys));
            let new = after.as_ref().and_then(|item| entry(item, keys));
            if old != new {
                for entry in [old, new].into_iter().flatten() {
                    units += write_units(size(&entry)?);
                }
            }
        }
        if let Some(item) = after {
            self.items.insert(key, item);
        }
        Ok(units)
    }

    /// The item that `SET a = :v, ... REMOVE b, ...` leaves.
    fn updated(&self, request: &Value) -> Result<Item, Unknown> {
        let expression = text(request, "UpdateExpression")?;
        let unknown = || Unknown(format!("the update {expression:?}"));
        let named = |name: &str| match name.starts_with('#') {
            true => request["ExpressionAttributeNames"][name].as_str().map(str::to_owned).ok_or_else(unknown),
            false => Ok(name.to_owned()),
        };
        let own = object(request, "Key")?;
        let mut item = self.items.get(&key(own)?).unwrap_or(own).clone();
        let spaced = expression.replace(',', " ").replace('=', " = ");
        let mut words = spaced.split_whitespace();
        let mut setting = None;
        while let Some(word) = words.next() {
            match (word, setting) {
                ("SET", _) => setting = Some(true),
                ("REMOVE", _) => setting = Some(false),
                (name, Some(false)) => drop(item.remove(&named(name)?)),
                (name, Some(true)) => {
                    let (Some("="), Some(value)) = (words.next(), words.next()) else { return Err(unknown()) };
                    let value = request["ExpressionAttributeValues"].get(value).ok_or_else(unknown)?;
                    item.insert(named(name)?, value.clone());
                }
                (_, None) => return Err(unknown()),
            }
        }
        Ok(item)
    }

    /// Units of a write whose condition did not hold. What was turned away before that costs nothing.
    fn refused(&self, operation: &str, request: &Value, answer: &Value) -> Result<f64, Unknown> {
        let kind = answer.get("__type").and_then(Value::as_str).unwrap_or_default();
        let mut units = 0.0;
        if kind.ends_with("#ConditionalCheckFailedException") {
            units = self.stands(operation.trim_end_matches("Item"), request)?;
        } else if kind.ends_with("#TransactionCanceledException") {
            for (kind, of) in transacted(request)? {
                units += 2.0 * self.stands(kind, of)?;
            }
        }
        Ok(units)
    }

    fn stands(&self, kind: &str, request: &Value) -> Result<f64, Unknown> {
        let key = key(object(request, if kind == "Put" { "Item" } else { "Key" })?)?;
        Ok(write_units(self.items.get(&key).map(size).transpose()?.unwrap_or(0)))
    }

    fn query(&self, request: &Value, answer: &Value) -> Result<f64, Unknown> {
        if request.get("FilterExpression").is_some() || request.get("Select").is_some() {
            return Err(Unknown("a query that leaves out what it read".to_owned()));
        }
        let mut read = 0;
        for item in answer["Items"].as_array().into_iter().flatten() {
            let item = item.as_object().ok_or_else(|| Unknown("an item that is none".to_owned()))?;
            read += match (request.get("IndexName"), request.get("ProjectionExpression")) {
                // What is left out of an item was read too: the meter knows how large it is.
                (None, Some(_)) => {
                    let partition = &request["ExpressionAttributeValues"][":pk"];
                    let sort = item.get("sk").ok_or_else(|| Unknown("a query without sort keys".to_owned()))?;
                    let stored = self.items.get(&(partition.to_string(), sort.to_string()));
                    size(stored.ok_or_else(|| Unknown("an item that was never put".to_owned()))?)?
                }
                _ => size(item)?,
            };
        }
        Ok(read_units(read, is_consistent(request)))
    }
}

fn write_units(size: usize) -> f64 {
    size.div_ceil(WRITE_UNIT).max(1) as f64
}

fn read_units(size: usize, consistent: bool) -> f64 {
    size.div_ceil(READ_UNIT).max(1) as f64 * if consistent { 1.0 } else { 0.5 }
}

fn is_consistent(request: &Value) -> bool {
    request.get("ConsistentRead").and_then(Value::as_bool).unwrap_or(false)
}

/// `(kind, request)` of each part of a transaction.
fn transacted(request: &Value) -> Result<Vec<(&str, &Value)>, Unknown> {
    let parts = request["TransactItems"].as_array().ok_or_else(|| Unknown("a transaction of nothing".to_owned()))?;
    let parts = parts.iter().filter_map(Value::as_object).flatten();
    Ok(parts.map(|(kind, of)| (kind.as_str(), of)).collect())
}

/// What a sparse KEYS_ONLY index holds of an item; none: the item has not all of its key.
fn entry(item: &Item, keys: &[String]) -> Option<Item> {
    if !keys.iter().all(|key| item.contains_key(key)) {
        return None;
    }
    let held = |name: &str| name == "pk" || name == "sk" || keys.iter().any(|key| key == name);
    Some(item.iter().filter(|(name, _)| held(name)).map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn key(item: &Item) -> Result<Key, Unknown> {
    let part = |name| item.get(name).map(Value::to_string).ok_or_else(|| Unknown(format!("an item without {name}")));
    Ok((part("pk")?, part("sk")?))
}

fn object<'a>(of: &'a Value, name: &str) -> Result<&'a Item, Unknown> {
    of.get(name).and_then(Value::as_object).ok_or_else(|| Unknown(format!("a request without {name}")))
}

fn text<'a>(of: &'a Value, name: &str) -> Result<&'a str, Unknown> {
    of.get(name).and_then(Value::as_str).ok_or_else(|| Unknown(format!("a request without {name}")))
}

/// Bytes of an item: names and values.
fn size(item: &Item) -> Result<usize, Unknown> {
    item.iter().map(|(name, value)| Ok(name.len() + value_size(value)?)).sum()
}

fn value_size(value: &Value) -> Result<usize, Unknown> {
    let unknown = || Unknown(format!("a value like {value}"));
    let (kind, of) = value.as_object().and_then(|it| it.iter().next()).ok_or_else(unknown)?;
    Ok(match (kind.as_str(), of) {
        ("B", Value::String(base64)) => base64.trim_end_matches('=').len() * 3 / 4,
        ("S", Value::String(text)) => text.len(),
        // A byte for two significant digits, one more, and one for the sign.
        ("N", Value::String(number)) => {
            let digits = number.trim_start_matches('-').trim_start_matches('0').trim_end_matches('0');
            digits.len().div_ceil(2) + 1 + usize::from(number.starts_with('-'))
        }
        ("BOOL" | "NULL", _) => 1,
        _ => return Err(unknown()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// So many bytes as base64.
    fn bytes(length: usize) -> Value {
        let padding = (3 - length % 3) % 3;
        json!({ "B": "A".repeat(length.div_ceil(3) * 4 - padding) + &"=".repeat(padding) })
    }

    fn put(length: usize, due: Option<u32>) -> Value {
        // Keys take 2 + 1 bytes each, `v` one more.
        let mut item = json!({ "pk": bytes(1), "sk": bytes(1), "v": bytes(length - 7) });
        if let Some(due) = due {
            item["ds"] = json!({ "N": "7" });
            item["d"] = json!({ "N": due.to_string() });
        }
        json!({ "Item": item })
    }

    fn meter() -> Meter {
        let keys = json!([{ "AttributeName": "ds" }, { "AttributeName": "d" }]);
        let index = json!({ "IndexName": "dues", "KeySchema": keys, "Projection": { "ProjectionType": "KEYS_ONLY" } });
        let mut meter = Meter::default();
        meter.charge("CreateTable", 200, &json!({ "GlobalSecondaryIndexes": [index] }), &json!({})).unwrap();
        meter
    }

    #[track_caller]
    fn written(meter: &mut Meter, operation: &str, request: &Value) -> f64 {
        meter.charge(operation, 200, request, &json!({})).unwrap().write_units
    }

    #[test]
    fn a_write_pays_for_the_larger_of_before_and_after() {
        let meter = &mut meter();
        assert_eq!(written(meter, "PutItem", &put(1_024, None)), 1.0);
        assert_eq!(written(meter, "PutItem", &put(1_025, None)), 2.0);
        assert_eq!(written(meter, "PutItem", &put(5_000, None)), 5.0);
        assert_eq!(written(meter, "PutItem", &put(10, None)), 5.0);
        assert_eq!(written(meter, "PutItem", &put(10, None)), 1.0);
        let key = json!({ "Key": { "pk": bytes(1), "sk": bytes(1) } });
        assert_eq!(written(meter, "PutItem", &put(3_000, None)), 3.0);
        assert_eq!(written(meter, "DeleteItem", &key), 3.0);
        assert_eq!(written(meter, "DeleteItem", &key), 1.0);
    }

    #[test]
    fn an_index_pays_for_what_changes_in_it() {
        let meter = &mut meter();
        assert_eq!(written(meter, "PutItem", &put(100, Some(1))), 2.0);
        assert_eq!(written(meter, "PutItem", &put(100, Some(1))), 1.0);
        assert_eq!(written(meter, "PutItem", &put(100, Some(2))), 3.0);
        let update = json!({
            "Key": { "pk": bytes(1), "sk": bytes(1) }, "UpdateExpression": "SET v = :v REMOVE ds, d",
            "ExpressionAttributeValues": { ":v": bytes(2_000) },
        });
        assert_eq!(written(meter, "UpdateItem", &update), 3.0);
        assert_eq!(written(meter, "PutItem", &put(100, None)), 2.0);
        assert_eq!(written(meter, "PutItem", &put(100, None)), 1.0);
    }

    #[test]
    fn conditions_that_fail_cost_what_stands_there_and_transactions_twice() {
        let meter = &mut meter();
        let answer = |kind: &str| json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}") });
        let refused = |meter: &mut Meter, operation: &str, request: &Value, kind: &str| {
            meter.charge(operation, 400, request, &answer(kind)).unwrap().write_units
        };
        let failed = "ConditionalCheckFailedException";
        assert_eq!(refused(meter, "PutItem", &put(9_000, None), failed), 1.0);
        assert_eq!(written(meter, "PutItem", &put(2_000, None)), 2.0);
        assert_eq!(refused(meter, "PutItem", &put(100, None), failed), 2.0);
        assert_eq!(refused(meter, "PutItem", &put(100, None), "ThrottlingException"), 0.0);
        let both = json!({ "TransactItems": [
            { "Put": put(2_000, Some(1)) },
            { "ConditionCheck": { "Key": { "pk": bytes(2), "sk": bytes(1) } } },
        ] });
        assert_eq!(refused(meter, "TransactWriteItems", &both, "TransactionCanceledException"), 6.0);
        assert_eq!(written(meter, "TransactWriteItems", &both), 2.0 * (2.0 + 1.0) + 2.0);
    }

    #[test]
    fn reads_pay_by_four_kilobytes_and_half_if_they_may_be_late() {
        let meter = &mut meter();
        let mut read = |operation: &str, request: Value, answer: Value| {
            meter.charge(operation, 200, &request, &answer).unwrap().read_units
        };
        let item = |length| put(length, None)["Item"].clone();
        assert_eq!(read("GetItem", json!({ "ConsistentRead": true }), json!({})), 1.0);
        assert_eq!(read("GetItem", json!({}), json!({ "Item": item(4_097) })), 1.0);
        assert_eq!(read("GetItem", json!({ "ConsistentRead": true }), json!({ "Item": item(4_097) })), 2.0);
        let page = json!({ "Items": [item(3_000), item(3_000), item(3_000)] });
        assert_eq!(read("Query", json!({ "ConsistentRead": true }), page.clone()), 3.0);
        assert_eq!(read("Query", json!({ "IndexName": "dues" }), page), 1.5);
        assert_eq!(read("Query", json!({ "IndexName": "dues" }), json!({ "Items": [] })), 0.5);
    }

    #[test]
    fn what_the_meter_does_not_know_is_an_error() {
        let meter = &mut meter();
        for (operation, request) in [
            ("Scan", json!({})),
            ("Query", json!({ "FilterExpression": "a = :a" })),
            ("PutItem", json!({ "Item": { "pk": bytes(1), "sk": bytes(1), "l": { "L": [] } } })),
            ("UpdateItem", json!({ "Key": { "pk": bytes(1), "sk": bytes(1) }, "UpdateExpression": "ADD a :b" })),
        ] {
            assert!(meter.charge(operation, 200, &request, &json!({})).is_err(), "{operation} {request}");
        }
    }
}
