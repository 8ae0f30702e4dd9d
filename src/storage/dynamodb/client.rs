//! The SDK, as far as this store needs it: typed calls, and what became of one that failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedHttpClient, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, ReturnValue, WriteRequest};
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use futures_util::StreamExt;
use futures_util::stream;

use super::places::{Bounded, Places, Purpose, Taken};
use crate::clock::{Clock, random_unit};
use crate::config::DynamodbSettings;
use crate::storage::StorageError;

/// Where the table is, and how it is reached.
#[derive(Clone, Debug)]
pub struct DynamodbOptions {
    pub table: String,
    pub region: String,
    /// None: the region's own.
    pub endpoint_url: Option<String>,
    /// Over how many partitions of the indexes the machines are spread. The table says which number it was made with.
    pub shards: u16,
    /// Of one request. A commit is put once in it, everything else as often as fits.
    pub request_timeout: Duration,
    /// Requests under way at once; those about leases, and scans, aside.
    pub max_concurrent_requests: usize,
    /// Key id and secret; none: from where AWS's own tools take them.
    pub credentials: Option<(String, String)>,
}

pub type Item = HashMap<String, AttributeValue>;

/// One page of a query, and where to go on.
pub struct Page {
    pub items: Vec<Item>,
    pub next: Option<Item>,
}

/// A table under its name.
#[derive(Clone, Debug)]
pub struct Table {
    /// For what may be done twice.
    pub calls: Client,
    /// The same for what looks through the indexes.
    pub scans: Client,
    /// IMPORTANT: never tries again by itself: what became of a commit is decided by the store.
    pub commits: Client,
    pub name: String,
    /// As it is configured, for messages.
    pub region: String,
    pub places: Arc<Places>,
}

/// A call that failed: what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Surely not done.
    Refused(StorageError),
    /// Done or not.
    Unknown(StorageError),
}

/// How many deletes one request takes.
const DELETED_AT_ONCE: usize = 25;

/// How many requests of one call are under way at once.
pub const AT_ONCE: usize = 16;

/// How often deletes that the table puts off are asked for again, before the caller hears of it.
const DELETE_ATTEMPTS: u32 = 8;

/// Milliseconds before the first of several tries, and before later ones: twice as long each time, give or take a half.
const PAUSE_MS: i64 = 20;
const LONGEST_PAUSE_MS: i64 = 500;

// === impl DynamodbOptions ===

impl From<&DynamodbSettings> for DynamodbOptions {
    fn from(settings: &DynamodbSettings) -> Self {
        Self {
            table: settings.table.clone(),
            region: settings.region.clone(),
            endpoint_url: settings.endpoint_url.clone(),
            shards: settings.shards,
            request_timeout: settings.request_timeout,
            max_concurrent_requests: settings.max_concurrent_requests,
            credentials: None,
        }
    }
}

// === impl Table ===

impl Table {
    /// Reaches nothing yet.
    pub async fn new(options: &DynamodbOptions) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.request_timeout.min(Duration::from_secs(3)))
            .operation_timeout(options.request_timeout)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(options.region.clone()))
            .timeout_config(timeouts)
            // A body that waits for a place is not sent, and would count as one that is stuck on its way.
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().upload_enabled(false).build());
        if let Some(endpoint) = &options.endpoint_url {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some((id, secret)) = &options.credentials {
            loader = loader.credentials_provider(Credentials::new(id, secret, None, None, "given"));
        }
        // IMPORTANT: credentials are fetched over these, and all clients wait for them, so no place is needed here.
        let shared = loader.http_client(connections()).load().await;
        let places = Places::new(options.max_concurrent_requests, options.request_timeout);
        let connections = connections();
        let client = |purpose, retries| {
            let config = aws_sdk_dynamodb::config::Builder::from(&shared);
            let bounded = Bounded::new(connections.clone(), places.clone(), purpose);
            Client::from_conf(config.http_client(bounded).retry_config(retries).build())
        };
        Self {
            calls: client(Purpose::Call, RetryConfig::standard()),
            scans: client(Purpose::Scan, RetryConfig::standard()),
            commits: client(Purpose::Call, RetryConfig::disabled()),
            name: options.table.clone(),
            region: options.region.clone(),
            places,
        }
    }

    /// The same table over connections of its own, where nothing waits for a place, and nothing is tried again but by who
    /// asks. For leases: what else is under way to the table neither holds them up nor uses up what may be tried again.
    pub fn apart(&self) -> Self {
        let Self { commits: client, .. } = self;
        let config = client.config().to_builder().http_client(connections());
        let client = Client::from_conf(config.build());
        Self { calls: client.clone(), scans: client.clone(), commits: client, ..self.clone() }
    }

    /// The item as it is now.
    pub async fn get(&self, partition: &[u8], sort: &[u8]) -> Result<Option<Item>, StorageError> {
        let get = self.calls.get_item().table_name(&self.name).set_key(Some(key(partition, sort)));
        let got = get.consistent_read(true).send().await.map_err(|error| fault(&error).error())?;
        Ok(got.item)
    }

    /// The items whose sort keys lie between two, both included, ascending.
    pub async fn range(
        &self,
        partition: &[u8],
        (from, to): (&[u8], &[u8]),
        limit: Option<usize>,
        start: Option<Item>,
    ) -> Result<Page, StorageError> {
        let query = self.calls.query().table_name(&self.name).consistent_read(true);
        let query = query
            .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", binary(partition))
            .expression_attribute_values(":from", binary(from))
            .expression_attribute_values(":to", binary(to))
            .set_limit(limit.map(limit_of))
            .set_exclusive_start_key(start);
        let page = query.send().await.map_err(|error| fault(&error).error())?;
        Ok(Page { items: page.items.unwrap_or_default(), next: page.last_evaluated_key })
    }

    /// The sort keys that begin with `prefix`.
    pub async fn sort_keys(&self, partition: &[u8], prefix: &[u8]) -> Result<Vec<Vec<u8>>, StorageError> {
        let mut found = Vec::new();
        let mut start = None;
        loop {
            let query = self.calls.query().table_name(&self.name).consistent_read(true);
            let query = query
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .projection_expression("sk")
                .expression_attribute_values(":pk", binary(partition))
                .expression_attribute_values(":prefix", binary(prefix))
                .set_exclusive_start_key(start);
            let page = query.send().await.map_err(|error| fault(&error).error())?;
            for item in page.items.unwrap_or_default() {
                found.push(bytes_of(&item, "sk")?.to_vec());
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(found);
            }
        }
    }

    /// Puts items that never change: whoever puts one of these keys puts these bytes.
    pub async fn put_all(&self, items: Vec<Item>) -> Result<(), StorageError> {
        let puts = stream::iter(items).map(|item| self.calls.put_item().table_name(&self.name).set_item(Some(item)));
        let mut done = puts.map(|put| put.send()).buffer_unordered(AT_ONCE);
        while let Some(put) = done.next().await {
            put.map_err(|error| fault(&error).error())?;
        }
        Ok(())
    }

    /// What stood there.
    pub async fn delete(&self, partition: &[u8], sort: &[u8]) -> Result<Option<Item>, StorageError> {
        let delete = self.calls.delete_item().table_name(&self.name).set_key(Some(key(partition, sort)));
        let deleted = delete.return_values(ReturnValue::AllOld).send().await;
        Ok(deleted.map_err(|error| fault(&error).error())?.attributes)
    }

    /// Deletes many of one partition.
    pub async fn delete_all(&self, partition: &[u8], sorts: &[Vec<u8>]) -> Result<(), StorageError> {
        let pages: Vec<_> = sorts.chunks(DELETED_AT_ONCE).map(<[_]>::to_vec).collect();
        let pages = stream::iter(pages).map(|page| async move { self.delete_page(partition, &page).await });
        let mut done = pages.buffer_unordered(AT_ONCE);
        while let Some(page) = done.next().await {
            page?;
        }
        Ok(())
    }

    async fn delete_page(&self, partition: &[u8], sorts: &[Vec<u8>]) -> Result<(), StorageError> {
        let mut wanted = Vec::with_capacity(sorts.len());
        for sort in sorts {
            let delete = DeleteRequest::builder().set_key(Some(key(partition, sort))).build();
            let delete = delete.map_err(|error| StorageError::Unavailable(error.to_string()))?;
            wanted.push(WriteRequest::builder().delete_request(delete).build());
        }
        for tries in 0..DELETE_ATTEMPTS {
            if tries > 0 {
                pause(tries).await;
            }
            let batch = self.calls.batch_write_item().request_items(&self.name, wanted).send().await;
            let left = batch.map_err(|error| fault(&error).error())?.unprocessed_items;
            wanted = left.and_then(|mut left| left.remove(&self.name)).unwrap_or_default();
            if wanted.is_empty() {
                return Ok(());
            }
        }
        Err(StorageError::Unavailable("the table puts deletes off: it is throttled".to_owned()))
    }
}

/// Before something is asked for again, so many tries later.
pub async fn pause(tries: u32) {
    let longest = PAUSE_MS.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE_MS);
    let clock = Clock::system();
    let pause = (longest as f64 * (0.5 + random_unit())) as i64;
    clock.sleep_until_monotonic(clock.monotonic().saturating_add(pause)).await;
}

fn connections() -> SharedHttpClient {
    HttpBuilder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

// === impl Fault ===

impl Fault {
    pub fn error(self) -> StorageError {
        match self {
            Self::Refused(error) | Self::Unknown(error) => error,
        }
    }
}

/// What a failed call came to, conditions aside. Whatever is not surely undone is unknown.
pub fn fault<E>(error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let text = StorageError::Unavailable(describe(error));
    match error {
        SdkError::ConstructionFailure(_) => Fault::Refused(text),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(connector) if never_sent(connector) => Fault::Refused(text),
            _ => Fault::Unknown(text),
        },
        // The table's own refusals are answers: throttled, not allowed, not valid, no such table.
        SdkError::ServiceError(answer) if (400..500).contains(&answer.raw().status().as_u16()) => Fault::Refused(text),
        _ => Fault::Unknown(text),
    }
}

/// One line for the operator: the service's own words if it had any.
pub fn describe<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let service = error.as_service_error().and_then(|error| Some((error.code()?, error.message().unwrap_or_default())));
    match service {
        Some((code, message)) => format!("{code}: {message}"),
        None => DisplayErrorContext(error).to_string(),
    }
}

/// Whether a request had no place, no credentials, or no connection that it could have been sent on.
fn never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let not_connected = error.downcast_ref().is_some_and(hyper_util::client::legacy::Error::is_connect);
        if not_connected || error.is::<Taken>() || error.is::<CredentialsError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

pub fn key(partition: &[u8], sort: &[u8]) -> Item {
    HashMap::from([("pk".to_owned(), binary(partition)), ("sk".to_owned(), binary(sort))])
}

pub fn binary(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub fn bytes_of<'a>(item: &'a Item, name: &str) -> Result<&'a [u8], StorageError> {
    match item.get(name) {
        Some(AttributeValue::B(blob)) => Ok(blob.as_ref()),
        _ => Err(StorageError::Corrupt(format!("a stored item has no bytes in its attribute `{name}`"))),
    }
}

/// A limit as the API takes it.
pub fn limit_of(limit: usize) -> i32 {
    i32::try_from(limit.max(1)).unwrap_or(i32::MAX)
}
