//! A DynamoDB API to measure on: the one that `TEST_DYNAMODB_ENDPOINT` names, or one of our own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// It ends when the pipe to it does: with this, however that ends.
pub struct Service {
    pub address: String,
    _process: Option<Child>,
}

// === impl Service ===

impl Service {
    pub fn start() -> Result<Self, Failure> {
        if let Ok(address) = std::env::var("TEST_DYNAMODB_ENDPOINT") {
            return Ok(Self { address, _process: None });
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/test-services.sh");
        let mut process = Command::new(script).arg("dynamodb").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(process.stdout.take().ok_or("the script has no stdout")?).read_line(&mut address)?;
        match address.starts_with("http://") {
            true => Ok(Self { address: address.trim_end().to_owned(), _process: Some(process) }),
            false => Err("deploy/test-services.sh has not started a DynamoDB API: it says above why".into()),
        }
    }
}
