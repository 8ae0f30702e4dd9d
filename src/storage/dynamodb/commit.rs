//! Commits: what has to stand before the put, the put, and what its answer means.
//!
//! INVARIANT: no key is ever written twice with different bytes, the machine's own item aside. Chunks hold committed
//! events only, so their content follows from their key; all else that a step writes has its commit id in the key.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use bytes::Bytes;

use super::client::{Fault, Item, binary, fault, key, number};
use super::keys::{self, FIRST_GENERATION};
use super::layout::{
    Layout, MOST_INLINE, MOST_RECORD, PART, RECORD_HEAD, Run, Standing, TAIL, encode_events, encode_runs, encoded_size,
};
use super::read::{self, Found};
use super::{Dynamodb, Mark};
use crate::failpoint::{self, Failpoint};
use crate::machine::{CommitId, Record};
use crate::storage::{Commit, Outcome, StorageError};

/// The condition that a record's put stands under, and a record's deletion.
pub(super) const NOTHING_THERE: &str = "attribute_not_exists(pk)";
pub(super) const AS_READ: &str = "c = :read";

/// What became of one put.
pub(super) enum Put {
    Done,
    /// The condition did not hold: the item that stands there, if the answer brought it.
    Failed(Option<Item>),
    /// A tag's condition did not hold, or another transaction was in the way: look again.
    Again,
}

/// A machine's next item, and how its events will lie.
pub(super) struct Plan {
    pub item: Item,
    standing: Standing,
}

// === impl Dynamodb ===

impl Dynamodb {
    /// A commit with its deletions: it is done only once the entries that it deletes are gone.
    pub(super) async fn commit_whole(&self, commit: &Commit) -> Outcome {
        let id = match &commit.record {
            Some(record) => record.commit,
            None => commit.expect.unwrap_or(FIRST_GENERATION),
        };
        let mark = (commit.key.clone(), id, commit.record.is_some());
        let earlier = !self.pending().insert(mark.clone());
        let put = match &commit.record {
            Some(record) => self.put_record(commit, record).await,
            None => self.forget(commit).await,
        };
        let outcome = match put {
            // IMPORTANT: behind the commit, which notes them as handled: an entry never goes before its note.
            Outcome::Committed => {
                match self.settle(&commit.key, &commit.delete_notifications, &commit.park_notifications).await {
                    Ok(()) => Outcome::Committed,
                    Err(error) => Outcome::Unknown(error),
                }
            }
            outcome => {
                self.standings().forget(&commit.key);
                outcome
            }
        };
        self.answered(mark, earlier, outcome)
    }

    /// IMPORTANT: refused means that no earlier put of the commit was done either. After one whose fate is unknown only
    /// what stands there decides: that put may still be under way.
    fn answered(&self, mark: Mark, earlier: bool, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Unknown(_) => outcome,
            Outcome::Refused(error) if earlier => Outcome::Unknown(error),
            Outcome::TagTaken if earlier => {
                let text = "a tag is taken, but an earlier put of the same commit may have claimed it";
                Outcome::Unknown(StorageError::Unavailable(text.to_owned()))
            }
            Outcome::Committed | Outcome::Conflict | Outcome::TagTaken | Outcome::Refused(_) => {
                self.pending().remove(&mark);
                outcome
            }
        }
    }

    async fn put_record(&self, commit: &Commit, record: &Record) -> Outcome {
        let partition = keys::machine(&commit.key);
        for _ in 0..TAG_ATTEMPTS {
            let base = match self.base(commit, record, &partition).await {
                Ok(Ok(base)) => base,
                Ok(Err(outcome)) => return outcome,
                Err(error) => return Outcome::Refused(error),
            };
            let plan = match self.plan(commit, record, base.as_ref(), &partition).await {
                Ok(plan) => plan,
                Err(error) => return Outcome::Refused(error),
            };
            failpoint::reached(Failpoint::PartsWritten);
            let put = match &commit.tag {
                None => self.put_item(commit.expect, plan.item).await,
                Some(tag) => match self.claim(commit, tag, plan.item).await {
                    Ok(Some(put)) => put,
                    Ok(None) => return Outcome::TagTaken,
                    Err(error) => return Outcome::Refused(error),
                },
            };
            match put {
                Ok(Put::Done) => {
                    failpoint::reached(Failpoint::ItemPut);
                    self.standings().keep(&commit.key, plan.standing);
                    self.drop_record_blobs(&partition, base.as_ref()).await;
                    return Outcome::Committed;
                }
                Ok(Put::Failed(item)) => return self.what_stands(commit, record.commit, &partition, item).await,
                Ok(Put::Again) => {}
                Err(Fault::Refused(error)) => return Outcome::Refused(error),
                Err(Fault::Unknown(error)) => return Outcome::Unknown(error),
            }
        }
        Outcome::Refused(StorageError::Unavailable("too many others claim the same tag".to_owned()))
    }

    /// What the commit is made over. The inner error is the outcome, if what stands there decides it already.
    async fn base(
        &self,
        commit: &Commit,
        record: &Record,
        partition: &[u8],
    ) -> Result<Result<Option<Standing>, Outcome>, StorageError> {
        if commit.tag.is_none() {
            // The put's condition finds out if this is outdated.
            let held = self.standings().get(&commit.key).filter(|held| Some(held.commit) == commit.expect);
            if held.is_some() || (commit.expect.is_none() && commit.replaced_events.is_empty()) {
                return Ok(Ok(held));
            }
        }
        let found = read::found(&self.table, partition).await?;
        match judge(found.as_ref(), commit.expect, record.commit)? {
            Some(outcome) => {
                self.keep_if_of(commit, record.commit, found);
                Ok(Err(outcome))
            }
            None => Ok(Ok(found.map(|found| found.standing))),
        }
    }

    /// Writes all that has to stand before the put, and makes the item.
    async fn plan(
        &self,
        commit: &Commit,
        record: &Record,
        base: Option<&Standing>,
        partition: &[u8],
    ) -> Result<Plan, StorageError> {
        let mut before = Vec::new();
        let same = base.filter(|base| base.epoch == record.epoch);
        let mut layout = same.map_or(Layout::EMPTY, |base| base.layout.clone());
        if let Some(old) = base.filter(|base| base.epoch != record.epoch) {
            before.extend(end_of_epoch(partition, old));
        }
        let size = encoded_size(&commit.events);
        if !commit.replaced_events.is_empty() {
            self.replace(commit, record, same, partition, &mut before).await?;
            layout.generation = record.commit;
            layout.tail = Vec::new();
        } else if let Some(base) = same
            && !layout.tail.is_empty()
            && layout.tail_size() + size.min(MOST_INLINE) > TAIL
        {
            before.extend(chunk(partition, base, layout.generation, &layout.tail));
            layout.tail = Vec::new();
        }
        if size > MOST_INLINE {
            let run = event_blob(partition, record, record.last_event, &commit.events, &mut before);
            layout.tail.push(run);
        } else if let Some(run) = Run::inline(record.last_event, &commit.events) {
            append(&mut layout.tail, run);
        }
        let mut bytes = record.encode().to_vec();
        layout.record_parts = 0;
        if bytes.len() > MOST_RECORD {
            let rest = bytes.split_off(RECORD_HEAD);
            for (part, content) in (0..).zip(rest.chunks(PART)) {
                before.push(immutable(partition, &keys::record_blob(record.epoch, record.commit, part), content));
                layout.record_parts = part + 1;
            }
        }
        // IMPORTANT: all of it stands before the put that points at it, and before the put that drops it from the tail.
        self.table.put_all(before).await?;
        let mut item = key(partition, keys::SELF);
        item.insert("c".to_owned(), binary(record.commit.0));
        item.insert("r".to_owned(), binary(bytes));
        item.insert("t".to_owned(), binary(layout.encode()));
        let shard = commit.key.shard(self.shards);
        item.insert("ls".to_owned(), number(shard));
        item.insert("l".to_owned(), binary(keys::listing(&commit.key, record.kind())));
        if let Some(due) = record.due().filter(|due| *due != i64::MAX) {
            item.insert("ds".to_owned(), number(shard));
            item.insert("d".to_owned(), binary(keys::due(due, partition, None)));
        }
        Ok(Plan { item, standing: Standing { commit: record.commit, epoch: record.epoch, layout } })
    }

    /// All events of the epoch, with those of the commit in the places of the old, as chunks of a new generation.
    async fn replace(
        &self,
        commit: &Commit,
        record: &Record,
        base: Option<&Standing>,
        partition: &[u8],
        before: &mut Vec<Item>,
    ) -> Result<(), StorageError> {
        let missing = || StorageError::Corrupt("an event that should be replaced is not stored".to_owned());
        let base = base.ok_or_else(missing)?;
        let mut events = read::all_events(&self.table, partition, base).await?;
        for (id, event) in &commit.replaced_events {
            *events.get_mut(id).ok_or_else(missing)? = event.clone();
        }
        let mut packed: Vec<Bytes> = Vec::new();
        let mut last = 0;
        let mut flush = |last: i64, packed: &mut Vec<Bytes>| {
            let run = match encoded_size(packed) > MOST_INLINE {
                true => Some(event_blob(partition, record, last, packed, before)),
                false => Run::inline(last, packed),
            };
            if let Some(run) = run {
                before.extend(chunk(partition, base, record.commit, &[run]));
            }
            packed.clear();
        };
        for (id, event) in events {
            if id != last + 1 || encoded_size(&packed) + event.len() > MOST_INLINE {
                flush(last, &mut packed);
            }
            packed.push(event);
            last = id;
        }
        flush(last, &mut packed);
        Ok(())
    }

    async fn put_item(&self, expect: Option<CommitId>, item: Item) -> Result<Put, Fault> {
        let put = self.table.commits.put_item().table_name(&self.table.name).set_item(Some(item));
        let put = match expect {
            None => put.condition_expression(NOTHING_THERE),
            Some(read) => put.condition_expression(AS_READ).expression_attribute_values(":read", binary(read.0)),
        };
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(Put::Done),
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {
                match answer.into_err() {
                    PutItemError::ConditionalCheckFailedException(failed) => Ok(Put::Failed(failed.item)),
                    _ => Ok(Put::Failed(None)),
                }
            }
            Err(error) => Err(fault(&error)),
        }
    }

    /// The outcome of a put whose condition did not hold. That answer is definite: the commit that it expected stands no
    /// more, and never again, so no put of it that is still under way can be done either.
    async fn what_stands(&self, commit: &Commit, id: CommitId, partition: &[u8], item: Option<Item>) -> Outcome {
        let found = match item {
            Some(item) => Found::decode(&item).map(Some),
            None => read::found(&self.table, partition).await,
        };
        match found.and_then(|found| Ok((judge(found.as_ref(), commit.expect, id)?, found))) {
            Ok((Some(outcome), found)) => {
                self.keep_if_of(commit, id, found);
                outcome
            }
            // The expected record, though the condition says it is not: someone's hand was in the table.
            Ok((None, _)) => Outcome::Conflict,
            Err(error) => Outcome::Unknown(error),
        }
    }

    /// A commit whose answer was lost leaves its machine as hot as any other.
    fn keep_if_of(&self, commit: &Commit, id: CommitId, found: Option<Found>) {
        if let Some(found) = found.filter(|found| found.standing.commit == id) {
            self.standings().keep(&commit.key, found.standing);
        }
    }

    async fn forget(&self, commit: &Commit) -> Outcome {
        let partition = keys::machine(&commit.key);
        let Some(expect) = commit.expect else {
            return match self.table.get(&partition, keys::SELF).await {
                Ok(None) => Outcome::Committed,
                Ok(Some(_)) => Outcome::Conflict,
                Err(error) => Outcome::Refused(error),
            };
        };
        let delete = self.table.commits.delete_item().table_name(&self.table.name);
        let delete = delete
            .set_key(Some(key(&partition, keys::SELF)))
            .condition_expression(AS_READ)
            .expression_attribute_values(":read", binary(expect.0))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let item = match delete.send().await {
            Ok(deleted) => {
                self.standings().forget(&commit.key);
                let old = deleted.attributes.as_ref().and_then(|item| Found::decode(item).ok());
                self.drop_record_blobs(&partition, old.map(|old| old.standing).as_ref()).await;
                return Outcome::Committed;
            }
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {
                match answer.into_err() {
                    DeleteItemError::ConditionalCheckFailedException(failed) => failed.item,
                    _ => None,
                }
            }
            Err(error) => {
                return match fault(&error) {
                    Fault::Refused(error) => Outcome::Refused(error),
                    Fault::Unknown(error) => Outcome::Unknown(error),
                };
            }
        };
        match item {
            Some(_) => Outcome::Conflict,
            // Some tables don't say what stood in the way.
            None => match self.table.get(&partition, keys::SELF).await {
                Ok(None) => Outcome::Committed,
                Ok(Some(_)) => Outcome::Conflict,
                Err(error) => Outcome::Unknown(error),
            },
        }
    }

    /// What was left of a record that is replaced now. If that fails nothing points at them: they cost room until the
    /// machine is removed, no more.
    async fn drop_record_blobs(&self, partition: &[u8], old: Option<&Standing>) {
        let Some(old) = old.filter(|old| old.layout.record_parts > 0) else { return };
        let parts = (0..old.layout.record_parts).map(|part| keys::record_blob(old.epoch, old.commit, part));
        if let Err(error) = self.table.delete_all(partition, &parts.collect::<Vec<_>>()).await {
            tracing::debug!(error.reason = %error, "the blobs of an old record stay");
        }
    }
}

/// How often a step that claims a tag looks again when others were faster.
const TAG_ATTEMPTS: usize = 16;

/// What the item that stands there means for a commit; none: it may be put.
pub(super) fn judge(
    found: Option<&Found>,
    expect: Option<CommitId>,
    id: CommitId,
) -> Result<Option<Outcome>, StorageError> {
    let head = found.map(Found::head).transpose()?;
    Ok(match head {
        Some(head) if head.remembers(id) => Some(Outcome::Committed),
        head if head.map(|head| head.commit) != expect => Some(Outcome::Conflict),
        _ => None,
    })
}

/// What must stand of an epoch before a new one's item takes the place of its own.
fn end_of_epoch(partition: &[u8], old: &Standing) -> Vec<Item> {
    let cut = old.layout.cut;
    let tail: Vec<_> = old.layout.tail.iter().filter_map(|run| behind(run, cut)).collect();
    let mut items: Vec<_> = chunk(partition, old, old.layout.generation, &tail).into_iter().collect();
    if old.layout.generation != FIRST_GENERATION {
        let mut end = key(partition, &keys::epoch_end(old.epoch));
        end.insert("g".to_owned(), binary(old.layout.generation.0));
        items.push(end);
    }
    items
}

/// The part of a run that is not deleted.
fn behind(run: &Run, cut: i64) -> Option<Run> {
    match run {
        run if run.last() <= cut => None,
        Run::Inline { first, events } if *first <= cut => {
            let kept = usize::try_from(run.last() - cut).unwrap_or(usize::MAX).min(events.len());
            Run::inline(run.last(), &events[events.len() - kept..])
        }
        run => Some(run.clone()),
    }
}

/// Committed events as an item of their own; none of none.
fn chunk(partition: &[u8], of: &Standing, generation: CommitId, runs: &[Run]) -> Option<Item> {
    let (first, last) = (runs.first()?.first(), runs.last()?.last());
    Some(immutable(partition, &keys::chunk(of.epoch, generation, first, last), &encode_runs(runs)))
}

/// Events that don't fit an item, in parts that do, under this commit's id. They end at `last`.
fn event_blob(partition: &[u8], record: &Record, last: i64, events: &[Bytes], before: &mut Vec<Item>) -> Run {
    let first = last - events.len() as i64 + 1;
    let mut parts = 0;
    for content in encode_events(events).chunks(PART) {
        let sort = keys::event_blob(record.epoch, record.commit, first, last, parts);
        before.push(immutable(partition, &sort, content));
        parts += 1;
    }
    Run::Blob { first, last, commit: record.commit, parts }
}

/// Neighbours become one: how a tail is cut into runs follows from its events.
fn append(tail: &mut Vec<Run>, run: Run) {
    match (tail.last_mut(), run) {
        (Some(Run::Inline { first, events }), Run::Inline { first: next, events: new })
            if *first + events.len() as i64 == next =>
        {
            events.extend(new);
        }
        (_, run) => tail.push(run),
    }
}

fn immutable(partition: &[u8], sort: &[u8], content: &[u8]) -> Item {
    let mut item = key(partition, sort);
    item.insert("v".to_owned(), binary(content));
    item
}
