//! What the API refuses before it asks anybody, seen through the port.

use bytes::Bytes;
use machinegun::clock::{Clock, Snowflakes};
use machinegun::config::{NamespaceSettings, Settings, StorageSettings};
use machinegun::service::{self, Running};
use machinegun::wire::{
    self, Call, DescribedParams, DescriptorParams, Exception, GetMachine, HistoryRange, Limits, MachineDescriptor,
    Method, Reference, Start, StartParams, Value,
};
use machinegun::woody::{Class, Client, ClientSettings, Context, Error};

/// A service in memory whose processor nobody is: whatever asks it does not pass for refused.
struct World {
    running: Running,
    client: Client,
}

// === impl World ===

impl World {
    async fn start() -> Self {
        let namespace = NamespaceSettings::new("NS", "http://127.0.0.1:1/nobody");
        let mut settings = Settings::default_with(StorageSettings::Memory).with_namespace(namespace);
        settings.woody_server.ip = [127, 0, 0, 1].into();
        settings.woody_server.port = 0;
        let running = service::start(settings).await.expect("it starts");
        let clock = Clock::system();
        let ids = Snowflakes::new(0, clock.clone());
        Self { running, client: Client::new(ClientSettings::default(), clock, ids) }
    }

    async fn call<M: Method>(&self, args: &M::Args) -> Result<Result<M::Success, Exception>, Error> {
        let url = format!("http://{}/v1/automaton", self.running.address()).parse().expect("a url");
        let deadline = Clock::system().now() + 10_000;
        let reply = self.client.call(&url, &Context::default(), Some(deadline), wire::write_call::<M>(args, 0)).await?;
        Ok(wire::read_reply::<M>(reply, Limits::default()).expect("a result"))
    }

    async fn stop(self) {
        self.running.stop().await.expect("it stops in order");
    }
}

fn described(range: HistoryRange) -> MachineDescriptor {
    MachineDescriptor { ns: "NS".into(), r#ref: Reference::Id("id".into()), range }
}

#[tokio::test]
async fn a_negative_limit_is_a_bad_request_before_anything_is_called() {
    let world = World::start().await;
    let range = HistoryRange { limit: Some(-1), ..HistoryRange::ALL };
    let call = DescribedParams { desc: described(range.clone()), a: Value::nil() };
    let get = DescriptorParams { desc: described(range) };
    for error in [
        world.call::<Call>(&call).await.expect_err("a bad request"),
        world.call::<GetMachine>(&get).await.expect_err("a bad request"),
    ] {
        assert_eq!(error.class, Class::ResultUnexpected);
        assert!(error.details.contains("negative limit -1"), "{error}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_start_with_an_id_that_can_not_be_fails_with_a_plain_reason() {
    let world = World::start().await;
    for id in [Bytes::new(), Bytes::from(vec![b'x'; 1025])] {
        let start = StartParams { ns: "NS".into(), id, a: Value::nil() };
        let error = world.call::<Start>(&start).await.expect_err("no declared exception");
        assert_eq!(error.class, Class::ResultUnexpected);
        assert!(error.details.starts_with("MachineNotFound: "), "{error}");
    }
    world.stop().await;
}
