//! What this service may do on its table, and what the table can do: tried out before anything depends on it.
//!
//! Every call that is made here changes nothing: its condition can't hold, or it reads.

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{ConditionCheck, DeleteRequest, TransactWriteItem, WriteRequest};

use super::client::{Table, binary, describe, key};
use super::commit::NOTHING_THERE;
use super::keys::{self, SELF};
use super::schema::{DUES, MACHINES, SchemaError};

/// What not every service with DynamoDB's API has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Several items in one write: what claims of tags need.
    pub transactions: bool,
}

/// How tables of ScyllaDB's Alternator are named.
const ALTERNATOR: &str = "arn:scylla:";
const ISOLATION: &str = "system:write_isolation";

/// The values of that tag under which conditions are kept by lightweight transactions.
const ISOLATED: [&str; 5] = ["a", "always", "always_use_lwt", "o", "only_rmw_uses_lwt"];

/// A sort key that nothing has.
const NOTHING: &[u8] = b"probe";

/// Tries each operation that serving takes.
pub async fn probe(table: &Table) -> Result<Abilities, SchemaError> {
    let meta = keys::meta();
    let (calls, name) = (&table.calls, &table.name);
    let own = || Some(key(&meta, SELF));
    // The table's own item is there: what is made only of nothing is never made over it.
    let put = calls.put_item().table_name(name).set_item(own()).condition_expression(NOTHING_THERE);
    allowed(table, "PutItem", put.send().await)?;
    let update = calls.update_item().table_name(name).set_key(own()).update_expression("REMOVE nothing");
    allowed(table, "UpdateItem", update.condition_expression(NOTHING_THERE).send().await)?;
    let delete = calls.delete_item().table_name(name).set_key(own()).condition_expression(NOTHING_THERE);
    allowed(table, "DeleteItem", delete.send().await)?;
    let nothing = DeleteRequest::builder().set_key(Some(key(&meta, NOTHING))).build();
    let nothing = nothing.map_err(|error| SchemaError::unreachable(table, error.to_string()))?;
    let batch = calls.batch_write_item();
    let batch = batch.request_items(name, vec![WriteRequest::builder().delete_request(nothing).build()]);
    allowed(table, "BatchWriteItem", batch.send().await)?;
    for index in [None, Some(DUES), Some(MACHINES)] {
        let query = calls.query().table_name(name).set_index_name(index.map(str::to_owned)).limit(1);
        let query = match index {
            None => query.key_condition_expression("pk = :of").expression_attribute_values(":of", binary(&*meta)),
            Some(index) => {
                let partition = if index == DUES { "ds = :of" } else { "ls = :of" };
                query.key_condition_expression(partition).expression_attribute_values(":of", super::client::number(0))
            }
        };
        allowed(table, "Query", query.send().await)?;
    }
    let check = ConditionCheck::builder().table_name(name).set_key(own()).condition_expression(NOTHING_THERE).build();
    let check = check.map_err(|error| SchemaError::unreachable(table, error.to_string()))?;
    let transaction = TransactWriteItem::builder().condition_check(check).build();
    let tried = calls.transact_write_items().transact_items(transaction).send().await;
    // Alternator has no such operation.
    let unknown = |error: &SdkError<_, HttpResponse>| {
        matches!(ProvideErrorMetadata::code(error), Some("UnknownOperationException"))
    };
    if tried.as_ref().is_err_and(unknown) {
        return Ok(Abilities { transactions: false });
    }
    allowed(table, "TransactWriteItems", tried)?;
    Ok(Abilities { transactions: true })
}

/// Alternator keeps conditions only as its tables are told to: one that does not would lose commits.
pub async fn check_isolation(table: &Table, arn: Option<&str>) -> Result<(), SchemaError> {
    let Some(arn) = arn.filter(|arn| arn.starts_with(ALTERNATOR)) else { return Ok(()) };
    let listed = table.calls.list_tags_of_resource().resource_arn(arn).send().await;
    let tags = listed.map_err(|error| SchemaError::refused(table, "ListTagsOfResource", &error))?;
    let isolation = tags.tags().iter().find(|tag| tag.key() == ISOLATION).map(|tag| tag.value());
    match isolation {
        Some(value) if ISOLATED.contains(&value) => Ok(()),
        value => Err(SchemaError::Isolation {
            table: table.name.clone(),
            found: value.map_or_else(|| "no tag".to_owned(), |value| format!("{value:?} in the tag")),
            arn: arn.to_owned(),
        }),
    }
}

/// A call that was answered, if only by its condition, was allowed.
fn allowed<T, E>(
    table: &Table,
    operation: &'static str,
    tried: Result<T, SdkError<E, HttpResponse>>,
) -> Result<(), SchemaError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match tried {
        Ok(_) => Ok(()),
        Err(error) => match ProvideErrorMetadata::code(&error) {
            Some("ConditionalCheckFailedException" | "TransactionCanceledException") => Ok(()),
            _ => Err(SchemaError::refused(table, operation, &error)),
        },
    }
}

// === impl SchemaError ===

impl SchemaError {
    /// From what a call was answered, or why it was not.
    pub(super) fn refused<E>(table: &Table, operation: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (table, region, detail) = (table.name.clone(), table.region.clone(), describe(error));
        match ProvideErrorMetadata::code(error) {
            Some("AccessDeniedException") => Self::NotAllowed { table, operation, detail },
            Some("ResourceNotFoundException") => Self::Missing { table, region },
            Some(
                "UnrecognizedClientException"
                | "InvalidSignatureException"
                | "MissingAuthenticationTokenException"
                | "IncompleteSignatureException"
                | "ExpiredTokenException",
            ) => Self::Credentials { table, detail },
            // The SDK's own words where its chain of providers ends.
            None if ["CredentialsNotLoaded", "no providers in chain", "CredentialsProvider"]
                .iter()
                .any(|words| detail.contains(words)) =>
            {
                Self::Credentials { table, detail: "there are none".to_owned() }
            }
            _ => Self::Unreachable { table, detail },
        }
    }

    fn unreachable(table: &Table, detail: String) -> Self {
        Self::Unreachable { table: table.name.clone(), detail }
    }
}
