//! `machinegun schema check` and `schema create`: the table of a storage that is a service of its own.

use std::error::Error;
use std::path::PathBuf;

use clap::Subcommand;

use crate::config::{self, Settings, StorageSettings};
#[cfg(feature = "dynamodb")]
use crate::storage::dynamodb::schema;
#[cfg(not(feature = "dynamodb"))]
use without as schema;

/// What the command line asks about a table.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Look at the table; says what is wrong with it and exits 1 if anything is
    Check {
        /// The configuration, in YAML
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make the table, or finish it; one that is there is only checked
    Create {
        /// The configuration, in YAML
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Whether the table of a configuration is as it should be. Returns the line that says so.
pub async fn check(settings: &Settings) -> Result<String, Box<dyn Error>> {
    let StorageSettings::Dynamodb(dynamodb) = &settings.storage else { return Err(OTHER_STORAGE.into()) };
    schema::check(&dynamodb.into()).await?;
    Ok(format!("table {:?} is as it should be", dynamodb.table))
}

/// Makes the table of a configuration. Returns the line that says so.
pub async fn create(settings: &Settings) -> Result<String, Box<dyn Error>> {
    let StorageSettings::Dynamodb(dynamodb) = &settings.storage else { return Err(OTHER_STORAGE.into()) };
    schema::create(&dynamodb.into(), &crate::clock::Clock::system()).await?;
    Ok(format!("table {:?} is there, with {} shards", dynamodb.table, dynamodb.shards))
}

/// A program without the feature reads no configuration that asks for a table.
#[cfg(not(feature = "dynamodb"))]
mod without {
    use crate::clock::Clock;
    use crate::config::DynamodbSettings;

    /// Where a table would be.
    pub struct Options;

    impl From<&DynamodbSettings> for Options {
        fn from(_: &DynamodbSettings) -> Self {
            Self
        }
    }

    const WITHOUT: &str = "this program was built without the feature `dynamodb`";

    pub async fn check(_: &Options) -> Result<(), &'static str> {
        Err(WITHOUT)
    }

    pub async fn create(_: &Options, _: &Clock) -> Result<(), &'static str> {
        Err(WITHOUT)
    }
}

const OTHER_STORAGE: &str = "only `storage.type: dynamodb` has a schema to look at";

/// Does what the command line asks: the answer goes to standard output.
pub async fn run(command: SchemaCommand) -> Result<(), Box<dyn Error>> {
    let line = match command {
        SchemaCommand::Check { config } => check(&config::load(&config)?.0).await?,
        SchemaCommand::Create { config } => create(&config::load(&config)?.0).await?,
    };
    println!("{line}");
    Ok(())
}
