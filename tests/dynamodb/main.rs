//! The DynamoDB storage over HTTP: the contract of every storage, and what only this one can meet.
#![cfg(feature = "dynamodb")]

mod crowded;
mod faults;
mod lacking;
mod layout;
mod ledger;
mod proxy;
mod schema;
mod service;
#[path = "../services/mod.rs"]
mod services;
mod shim;

use std::sync::Arc;

use async_trait::async_trait;
use machinegun::clock::Clock;
use machinegun::storage::Storage;
use machinegun::storage::contract::Subject;
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions, schema as tables};

/// A table of its own.
struct Table(DynamodbOptions);

// === impl Table ===

impl Table {
    fn new() -> Self {
        Self(services::table_at(&services::dynamodb()))
    }
}

#[async_trait]
impl Subject for Table {
    async fn open(&self) -> Arc<dyn Storage> {
        tables::create(&self.0, &Clock::system()).await.expect("a table is made");
        Dynamodb::open(&self.0).await.expect("a table is opened")
    }
}

machinegun::storage_contract!(dynamodb, Table::new);
machinegun::tag_contract!(dynamodb_tags, Table::new);
machinegun::leases_contract!(dynamodb_leases, Table::new);
machinegun::ledger_contract!(dynamodb_ledgers, Table::new);
machinegun::durable_storage_contract!(dynamodb_reopened, Table::new);
