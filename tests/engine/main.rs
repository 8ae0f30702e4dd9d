//! The engine with a scripted processor, a clock turned by hand, and a store that fails on demand. Every promise is held
//! on every storage.

mod backlog;
mod bounds;
mod census;
mod conflicts;
mod deadlines;
#[path = "../crash/dice.rs"]
mod dice;
mod differential;
mod failpoints;
mod faulty;
mod hammer;
mod ledgers;
mod modernizing;
mod notifications;
mod outage;
mod ownership;
mod policies;
mod quotas;
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
mod suicides;
mod tags;
mod timers;
mod world;

/// Runs each promise on every storage. A promise that is not listed is dead code, which clippy finds.
macro_rules! on_every_storage {
    ($($promise:ident),* $(,)?) => {
        $($crate::promise_on! { $promise;
            memory => crate::world::memory(),
            shared => crate::world::shared(),
            embedded => crate::world::embedded(),
            #[cfg(feature = "dynamodb")]
            dynamodb => crate::world::dynamodb().await,
        })*
    };
}
pub(crate) use on_every_storage;

/// The same on the storages that instances can share.
macro_rules! on_every_shared_storage {
    ($($promise:ident),* $(,)?) => {
        $($crate::promise_on! { $promise;
            memory => crate::world::shared(),
            #[cfg(feature = "dynamodb")]
            dynamodb => crate::world::dynamodb().await,
        })*
    };
}
pub(crate) use on_every_shared_storage;

macro_rules! promise_on {
    ($promise:ident; $($(#[$only:meta])* $storage:ident => $mg:expr,)*) => {
        mod $promise {
            $(
                $(#[$only])*
                #[tokio::test]
                async fn $storage() {
                    crate::world::guarded(super::$promise($mg)).await;
                }
            )*
        }
    };
}
pub(crate) use promise_on;
