//! The engine with a scripted processor, a clock turned by hand, and a store that fails on demand. Every promise is held
//! on every storage.

mod backlog;
mod bounds;
mod conflicts;
mod deadlines;
mod faulty;
mod hammer;
mod ledgers;
mod modernizing;
mod notifications;
mod recorder;
mod removal;
mod replies;
mod retries;
mod scripted;
#[cfg(feature = "dynamodb")]
#[path = "../services/mod.rs"]
mod services;
mod sinks;
mod steps;
mod stop;
mod tags;
mod timers;
mod world;

/// Runs each promise on every storage. A promise that is not listed is dead code, which clippy finds.
macro_rules! on_every_storage {
    ($($promise:ident),* $(,)?) => {$(
        mod $promise {
            #[tokio::test]
            async fn memory() {
                crate::world::guarded(super::$promise(crate::world::memory())).await;
            }

            #[tokio::test]
            async fn embedded() {
                crate::world::guarded(super::$promise(crate::world::embedded())).await;
            }

            #[cfg(feature = "dynamodb")]
            #[tokio::test]
            async fn dynamodb() {
                crate::world::guarded(super::$promise(crate::world::dynamodb().await)).await;
            }
        }
    )*};
}
pub(crate) use on_every_storage;
