//! Tables that are not what they should be.

use machinegun::clock::Clock;
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions, schema};

use super::services;

#[tokio::test]
async fn a_missing_table_is_refused_with_the_command_that_makes_it() {
    let options = services::table_at(&services::dynamodb());
    let line = Dynamodb::open(&options).await.unwrap_err().to_string();
    assert!(line.contains(&options.table) && line.contains("machinegun schema create --config"), "{line}");
    assert_eq!(schema::check(&options).await.unwrap_err().to_string(), line);
}

#[tokio::test]
async fn a_table_is_made_once_and_checked_after_that() {
    let options = services::made_table().await;
    schema::check(&options).await.unwrap();
    schema::create(&options, &Clock::system()).await.unwrap();
}

#[tokio::test]
async fn another_number_of_shards_is_refused() {
    let options = DynamodbOptions { shards: 5, ..services::made_table().await };
    for line in [
        Dynamodb::open(&options).await.unwrap_err().to_string(),
        schema::create(&options, &Clock::system()).await.unwrap_err().to_string(),
    ] {
        assert!(line.contains("4 shards") && line.ends_with("write `shards: 4`"), "{line}");
    }
}

#[tokio::test]
async fn a_service_out_of_reach_is_an_error_that_says_what_to_look_at() {
    let options = services::table_at("http://127.0.0.1:1");
    let line = schema::check(&options).await.unwrap_err().to_string();
    assert!(line.contains("can't be looked at") && line.contains("storage.endpoint_url"), "{line}");
}
