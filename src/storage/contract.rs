//! What every storage promises, as tests that run on any of them.
//!
//! A backend of one's own is proven in its tests by
//!
//! ```text
//! machinegun::storage_contract!(my_store, || MySubject::new());
//! machinegun::tag_contract!(my_store_tags, || MySubject::new());
//! machinegun::durable_storage_contract!(my_store_reopened, || MySubject::new());
//! ```
//!
//! where `MySubject` implements [`Subject`]. Each promise becomes a `#[test]` of its own name and gets a fresh store.
//!
//! Compiled always, not behind a feature: it needs nothing that the service doesn't, a binary that doesn't call it does
//! not hold it, and one feature set serves library, integration tests and third parties.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use super::Storage;

pub mod books;
pub mod commits;
pub mod concurrency;
pub mod dues;
pub mod durable;
pub mod events;
pub mod leases;
pub mod ledgers;
pub mod listings;
pub mod names;
pub mod notifications;
pub mod sample;
pub mod tags;

/// One store under test: where it is kept, and how it is opened.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Opens the store: empty the first time, with what it was left with after that. What was opened before is closed.
    async fn open(&self) -> Arc<dyn Storage>;
}

/// Runs one promise to its end. Panics where the promise is broken.
pub fn run<S: Subject, F: Future<Output = ()>>(make: impl FnOnce() -> S, promise: impl FnOnce(Arc<S>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    // A test that has no threads to run on has nothing to prove.
    let runtime = runtime.expect("the system gives a test its threads");
    runtime.block_on(promise(Arc::new(make())));
}

/// A module of tests: the promises that every storage keeps.
#[macro_export]
macro_rules! storage_contract {
    ($name:ident, $make:expr) => {
        $crate::contract_tests! { $name, $make;
            commits::{
                a_machine_never_written_is_none,
                a_commit_is_read_back,
                a_record_is_read_back_with_all_its_parts,
                a_commit_over_nothing_needs_nothing_there,
                a_commit_expecting_a_record_needs_one,
                a_conflict_writes_nothing,
                a_commit_put_again_is_committed_and_writes_nothing_more,
                a_commit_is_recognised_after_seven_later_ones,
                a_commit_older_than_the_kept_ones_conflicts,
                forgetting_deletes_the_record_and_its_due,
                forgetting_again_is_committed,
                forgetting_needs_the_expected_commit,
                a_start_over_a_tombstone_begins_a_new_epoch,
                what_stands_is_the_last_commit,
            }
            events::{
                ranges_are_cut_as_asked,
                no_range_reads_no_events,
                events_are_read_by_epoch_and_ids,
                a_gap_is_an_error,
                epochs_keep_their_events_apart,
                a_tombstone_hides_events_but_keeps_them,
                a_deleted_epoch_is_gone_and_nothing_else,
                deleting_an_epoch_stops_at_the_last_event,
                a_replaced_event_is_read_as_replaced,
                events_are_replaced_while_others_are_appended,
                replacing_what_is_not_stored_is_refused_whole,
                a_replacement_is_conditional_and_recognised,
                an_event_of_a_megabyte_is_read_back,
                thousands_of_events_are_read_back_and_deleted,
            }
            notifications::{
                entries_are_in_the_order_of_their_ids,
                a_limit_keeps_the_oldest,
                an_entry_put_again_changes_nothing,
                an_id_that_another_notification_has_conflicts,
                an_entry_wakes_its_machine,
                a_parked_entry_keeps_waiting_without_a_due,
                a_deleted_entry_is_gone_with_its_due,
                settling_again_changes_nothing,
                a_commit_settles_entries_with_the_record,
                a_conflict_settles_no_entry,
                machines_keep_their_entries_apart,
            }
            dues::{
                dues_are_in_the_order_of_time,
                until_is_included,
                a_limit_and_cursors_page_through_all,
                a_cursor_stays_good_when_its_due_goes,
                a_cursor_finds_what_comes_later_in_order,
                a_replaced_due_vanishes,
                extreme_times_are_in_order,
                dues_at_one_time_are_all_found,
                dues_are_those_of_the_shards_asked_for,
                a_due_says_whether_it_is_of_an_entry,
            }
            listings::{
                every_machine_is_listed_once_in_one_order,
                machines_are_listed_by_status,
                namespaces_are_listed_apart_and_together,
                a_cursor_stays_good_when_machines_come_and_go,
                the_longest_ids_are_listed,
                shards_are_listed_apart,
                hundreds_of_machines_are_paged,
            }
            names::{
                ids_may_be_any_bytes,
                the_longest_id_is_kept,
                namespaces_may_hold_slashes,
                names_that_run_together_do_not_mix,
                an_id_that_begins_like_another_does_not_mix,
            }
            concurrency::{
                of_many_commits_over_one_record_one_wins,
                commits_of_many_machines_all_succeed,
                a_reader_never_sees_a_record_without_its_events,
                one_commit_put_many_times_at_once_is_committed_once,
            }
        }
    };
}

/// A module of tests: the promises of a storage where commits may claim tags ([`Storage::has_tags`]).
#[macro_export]
macro_rules! tag_contract {
    ($name:ident, $make:expr) => {
        $crate::contract_tests! { $name, $make;
            tags::{
                a_tag_finds_the_machine_that_claimed_it,
                a_tag_of_another_machine_is_taken_and_nothing_is_written,
                a_machine_claims_its_own_tag_again,
                a_tag_outlives_its_machine_until_another_claims_it,
                tags_of_namespaces_do_not_mix,
                a_conflict_claims_no_tag,
                a_claim_put_again_is_committed,
                a_tag_may_be_any_bytes_up_to_the_longest,
                of_two_machines_that_race_for_a_tag_one_wins,
                a_reader_never_finds_a_tag_without_its_machine,
            }
        }
    };
}

/// A module of tests: the promises of a storage that has ledgers.
#[macro_export]
macro_rules! ledger_contract {
    ($name:ident, $make:expr) => {
        $crate::contract_tests! { $name, $make;
            ledgers::{
                a_ledger_never_written_is_empty,
                events_are_entered_in_the_order_of_their_commits,
                entries_are_cut_as_asked,
                blocks_are_paged_behind_an_entry,
                a_commit_put_again_enters_nothing_more,
                what_is_not_committed_is_not_entered,
                a_commit_without_events_enters_nothing,
                a_commit_is_entered_in_each_of_its_ledgers_once,
                replaced_events_keep_their_entries,
                removed_machines_keep_their_entries,
                names_of_ledgers_do_not_mix,
                large_blocks_are_verified_in_pages,
                many_namespaces_share_one_ledger,
                a_reader_never_sees_a_head_without_its_entries,
            }
        }
    };
}

/// A module of tests: the promises of a storage that several instances may share.
#[macro_export]
macro_rules! leases_contract {
    ($name:ident, $make:expr) => {
        $crate::contract_tests! { $name, $make;
            leases::{
                nobody_beats_and_owns_at_first,
                beats_stand_in_their_order,
                a_beat_put_again_is_recognised,
                instances_beat_beside_each_other,
                a_fenced_instance_beats_no_more,
                a_beat_that_lands_after_the_fence_does_nothing,
                a_fence_of_an_older_beat_is_refused,
                a_fence_put_again_is_recognised,
                of_a_beat_and_its_fence_one_wins,
                owners_are_in_the_order_of_their_shards,
                an_owner_is_assigned_over_the_epoch_before_it,
                an_assignment_put_again_is_recognised,
                of_many_who_take_a_shard_one_wins,
            }
        }
    };
}

/// A module of tests: the promises of a storage that outlives its process.
#[macro_export]
macro_rules! durable_storage_contract {
    ($name:ident, $make:expr) => {
        $crate::contract_tests! { $name, $make;
            durable::{
                everything_is_there_after_reopening,
                a_commit_is_recognised_after_reopening,
                deletions_stay_deleted_after_reopening,
                tags_are_kept_after_reopening,
                ledgers_go_on_after_reopening,
                a_closed_store_refuses,
                what_was_under_way_at_closing_is_kept_if_it_was_acknowledged,
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($name:ident, $make:expr; $($part:ident::{ $($promise:ident),* $(,)? })*) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $($(
                #[test]
                fn $promise() {
                    $crate::storage::contract::run($make, $crate::storage::contract::$part::$promise);
                }
            )*)*
        }
    };
}
