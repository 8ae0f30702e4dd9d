//! The table: what it must look like, and how it is made.

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
};

use super::abilities::{self, Abilities};
use super::client::{DynamodbOptions, Table, describe, key, number};
use super::commit::NOTHING_THERE;
use super::keys;
use crate::clock::Clock;

/// The index of what is due: partition `ds` (shard), sort `d`.
pub const DUES: &str = "dues";

/// The index of machines: partition `ls` (shard), sort `l`.
pub const MACHINES: &str = "machines";

/// The format of everything in the table that has no version of its own.
const FORMAT: &str = "1";

type Attribute = (&'static str, ScalarAttributeType);

/// The tables' and indexes' keys: index (none: the table), partition key, sort key.
const KEYS: [(Option<&str>, Attribute, Attribute); 3] = [
    (None, ("pk", ScalarAttributeType::B), ("sk", ScalarAttributeType::B)),
    (Some(DUES), ("ds", ScalarAttributeType::N), ("d", ScalarAttributeType::B)),
    (Some(MACHINES), ("ls", ScalarAttributeType::N), ("l", ScalarAttributeType::B)),
];

/// How often, and for how many times, a table that is being made is looked at.
const LOOK_EVERY_MS: i64 = 500;
const LOOKS: usize = 240;

/// Why a table won't do. One line for the operator: what is wrong, and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "there is no table {table:?} in region {region:?}: check storage.region, or make the table with `machinegun schema \
         create --config FILE`"
    )]
    Missing { table: String, region: String },
    #[error(
        "table {table:?} may not be used for {operation}: {detail}; attach the policy of deploy/iam-policy.json, and look again with \
         `machinegun schema check --config FILE`"
    )]
    NotAllowed { table: String, operation: &'static str, detail: String },
    #[error(
        "table {table:?} can't be reached with these credentials: {detail}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a \
         profile or role, and look again with `machinegun schema check --config FILE`"
    )]
    Credentials { table: String, detail: String },
    #[error(
        "table {table:?} does not say that it keeps conditions ({found} `system:write_isolation`), so commits could be lost: run \
         `aws dynamodb tag-resource --resource-arn {arn} --tags Key=system:write_isolation,Value=always_use_lwt`"
    )]
    Isolation { table: String, found: String, arn: String },
    #[error(
        "table {table:?} {wrong}: name another one in storage.table, and make it with `machinegun schema create --config FILE`"
    )]
    Wrong { table: String, wrong: String },
    #[error("table {0:?} was not finished: do it with `machinegun schema create --config FILE`")]
    Unfinished(String),
    #[error(
        "table {table:?} is divided into {stored} shards and storage.shards says {configured}, so that timers would never be \
         found: write `shards: {stored}`"
    )]
    Shards { table: String, stored: String, configured: u16 },
    #[error("table {table:?} has format {stored}, this release reads {FORMAT}: run the release that made it")]
    Format { table: String, stored: String },
    #[error(
        "table {table:?} can't be looked at: {detail}; check storage.region, storage.endpoint_url and the credentials"
    )]
    Unreachable { table: String, detail: String },
    #[error("table {table:?} can't be made: {detail}; check storage.region, storage.endpoint_url and the credentials")]
    NotMade { table: String, detail: String },
}

/// What a look at a table found.
enum Seen {
    Nothing,
    NotReady,
    /// Under this name of its own, if it says one.
    Ready(Option<String>),
}

/// Whether the table is as it should be.
pub async fn check(options: &DynamodbOptions) -> Result<(), SchemaError> {
    check_table(&Table::new(options).await, options).await.map(|_| ())
}

/// As `check`, and what the table can do.
pub(super) async fn check_table(table: &Table, options: &DynamodbOptions) -> Result<Abilities, SchemaError> {
    match look(table).await? {
        Seen::Nothing => Err(SchemaError::Missing { table: table.name.clone(), region: table.region.clone() }),
        Seen::NotReady => Err(SchemaError::Unfinished(table.name.clone())),
        Seen::Ready(arn) => {
            abilities::check_isolation(table, arn.as_deref()).await?;
            check_meta(table, options).await?;
            abilities::probe(table).await
        }
    }
}

/// Makes the table, or finishes it; one that is there is only checked.
pub async fn create(options: &DynamodbOptions, clock: &Clock) -> Result<(), SchemaError> {
    let table = Table::new(options).await;
    let name = &table.name;
    let not_made = |detail: String| SchemaError::NotMade { table: name.clone(), detail };
    if matches!(look(&table).await?, Seen::Nothing) {
        make(&table).await?;
    }
    for _ in 0..LOOKS {
        if matches!(look(&table).await?, Seen::Ready(_)) {
            let mut meta = key(&keys::meta(), keys::SELF);
            meta.insert("format".to_owned(), AttributeValue::N(FORMAT.to_owned()));
            meta.insert("shards".to_owned(), number(options.shards));
            let put = table.calls.put_item().table_name(name).set_item(Some(meta));
            return match put.condition_expression(NOTHING_THERE).send().await {
                Ok(_) => check_meta(&table, options).await,
                Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {
                    check_meta(&table, options).await
                }
                Err(error) => Err(not_made(describe(&error))),
            };
        }
        clock.sleep_until(clock.now() + LOOK_EVERY_MS).await;
    }
    Err(not_made("it is still not active".to_owned()))
}

async fn make(table: &Table) -> Result<(), SchemaError> {
    let not_made = |detail: String| SchemaError::NotMade { table: table.name.clone(), detail };
    let built = |error: BuildError| not_made(error.to_string());
    let mut create = table.calls.create_table().table_name(&table.name).billing_mode(BillingMode::PayPerRequest);
    for (index, partition, sort) in KEYS {
        let mut schema = Vec::new();
        for ((name, kind), role) in [(partition, KeyType::Hash), (sort, KeyType::Range)] {
            let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind);
            create = create.attribute_definitions(attribute.build().map_err(built)?);
            schema.push(KeySchemaElement::builder().attribute_name(name).key_type(role).build().map_err(built)?);
        }
        create = match index {
            None => create.set_key_schema(Some(schema)),
            Some(index) => {
                let keys_only = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
                let index = GlobalSecondaryIndex::builder().index_name(index).set_key_schema(Some(schema));
                create.global_secondary_indexes(index.projection(keys_only).build().map_err(built)?)
            }
        };
    }
    match create.send().await {
        Ok(_) => Ok(()),
        // Someone else is making it.
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(not_made(describe(&error))),
    }
}

async fn look(table: &Table) -> Result<Seen, SchemaError> {
    let name = &table.name;
    let described = match table.calls.describe_table().table_name(name).send().await {
        Ok(described) => described.table,
        Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(Seen::Nothing),
        Err(error) => return Err(SchemaError::refused(table, "DescribeTable", &error)),
    };
    let Some(described) = described else { return Ok(Seen::Nothing) };
    match wrong(&described) {
        Some(wrong) => Err(SchemaError::Wrong { table: name.to_owned(), wrong }),
        None if is_ready(&described) => Ok(Seen::Ready(described.table_arn)),
        None => Ok(Seen::NotReady),
    }
}

/// What is not as it should be; continues "table ...".
fn wrong(table: &TableDescription) -> Option<String> {
    for (index, partition, sort) in KEYS {
        let (schema, of) = match index {
            None => (table.key_schema(), "it".to_owned()),
            Some(index) => {
                let found = table.global_secondary_indexes().iter().find(|it| it.index_name() == Some(index));
                let Some(found) = found else { return Some(format!("has no index {index:?}")) };
                (found.key_schema(), format!("its index {index:?}"))
            }
        };
        for ((name, kind), role) in [(partition, KeyType::Hash), (sort, KeyType::Range)] {
            let has = schema.iter().any(|key| key.attribute_name() == name && *key.key_type() == role);
            let mut attributes = table.attribute_definitions().iter();
            let typed = attributes.any(|it| it.attribute_name() == name && *it.attribute_type() == kind);
            if !has || !typed {
                let role = if role == KeyType::Hash { "partition" } else { "sort" };
                return Some(format!(
                    "is not one of this service: the {role} key of {of} is not `{name}` of type {kind}"
                ));
            }
        }
    }
    None
}

fn is_ready(table: &TableDescription) -> bool {
    // Some tables don't say the state of an index.
    let ready = |status: Option<&IndexStatus>| status.is_none_or(|status| *status == IndexStatus::Active);
    table.table_status() == Some(&TableStatus::Active)
        && table.global_secondary_indexes().iter().all(|index| ready(index.index_status()))
}

async fn check_meta(table: &Table, options: &DynamodbOptions) -> Result<(), SchemaError> {
    let name = || table.name.clone();
    let get = table.calls.get_item().table_name(&table.name).set_key(Some(key(&keys::meta(), keys::SELF)));
    let got = get.consistent_read(true).send().await;
    let meta = got.map_err(|error| SchemaError::refused(table, "GetItem", &error))?.item;
    let Some(meta) = meta else { return Err(SchemaError::Unfinished(name())) };
    let said = |attribute: &str| match meta.get(attribute) {
        Some(AttributeValue::N(number)) => number.clone(),
        _ => "none".to_owned(),
    };
    if said("format") != FORMAT {
        return Err(SchemaError::Format { table: name(), stored: said("format") });
    }
    match said("shards") {
        stored if stored == options.shards.to_string() => Ok(()),
        stored => Err(SchemaError::Shards { table: name(), stored, configured: options.shards }),
    }
}
