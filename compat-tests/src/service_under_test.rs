//! The one place that knows how the service is started.

use machinegun::{config, service};

/// A running service. It stops when told to.
#[derive(Debug)]
pub struct ServiceUnderTest {
    running: service::Running,
}

// === impl ServiceUnderTest ===

impl ServiceUnderTest {
    /// Starts the service in this process from a whole configuration.
    pub async fn start(configuration: &str) -> Result<Self, String> {
        // A replay must not depend on where it runs.
        let no_variables = |_: &str| None;
        let (settings, _) = config::parse(configuration, &no_variables).map_err(|errors| errors.to_string())?;
        let running = service::start(settings).await.map_err(|error| error.to_string())?;
        Ok(Self { running })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.running.address())
    }

    pub async fn stop(self) -> Result<(), String> {
        self.running.stop().await.map_err(|error| error.to_string())
    }
}
