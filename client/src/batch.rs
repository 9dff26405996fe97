//! Many gets or writes at once: sorted by the node that holds each key, one call to each node,
//! and an outcome for each item in the order given.
//!
//! ```text
//!  items ─▶ by first candidate ─▶ parts (≤ 1,000 items, ≤ 3 MiB) ─▶ one attempt each, together
//!                                        └── items that another attempt may cure ─▶ one by one
//! ```
//!
//! Not a transaction: items succeed and fail each on its own. A write that is tried again keeps
//! its request id. Absent: waiting for more items; a batch is what the caller hands in.

use crate::{
    Keyspace,
    client::{PendingWrite, check_key, with_timeout},
    context::Context,
    entry::{Entry, Written},
    error::Error,
    link::{Link, is_reply_too_large, until_of},
    retry::{self, Fate},
};
use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream};
use merganser_proto::v1::{
    self, get_outcome, pipeline_reply::Outcome, pipeline_request::Request, write_item, write_outcome,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The wire's limit.
const ITEMS_MAX: usize = 1000;
/// Well below what a node takes as one message.
const PART_BYTES_MAX: usize = 3 << 20;
/// Items of a batch that are tried one by one at the same time.
const SINGLE_IN_FLIGHT: usize = 64;

/// One write of a batch.
#[derive(Clone, Debug)]
pub enum Write {
    /// As [`Keyspace::put`].
    Put {
        /// 1 to 256 bytes.
        key: Bytes,
        /// At most 1 MiB.
        value: Bytes,
        /// Of the read or write that this put is based on.
        context: Context,
    },
    /// As [`Keyspace::put_blind`].
    PutBlind {
        /// 1 to 256 bytes.
        key: Bytes,
        /// At most 1 MiB.
        value: Bytes,
    },
    /// As [`Keyspace::join`].
    Join {
        /// 1 to 256 bytes.
        key: Bytes,
        /// At most 1 MiB.
        value: Bytes,
    },
    /// As [`Keyspace::delete`].
    Delete {
        /// 1 to 256 bytes.
        key: Bytes,
        /// Covers what is deleted.
        context: Context,
    },
    /// As [`Keyspace::delete_blind`].
    DeleteBlind {
        /// 1 to 256 bytes.
        key: Bytes,
    },
    /// As [`Keyspace::apply`].
    Apply {
        /// 1 to 256 bytes.
        key: Bytes,
        /// In the plugin's own language.
        op: Bytes,
    },
}

impl Keyspace {
    /// Many gets; an outcome for each key, in order.
    pub async fn batch_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Entry, Error>> {
        let get = |key: &[u8]| {
            check_key(key)?;
            Ok(Request::Get(self.get_request(key, v1::Want::Resolved)))
        };
        let requests: Vec<_> = keys.into_iter().map(|key| get(key.as_ref())).collect();
        let keys: Vec<Bytes> = requests.iter().map(|request| key_of(request.as_ref().ok())).collect();
        let outcomes = self.batch(requests).await;
        let entries = outcomes.into_iter().zip(keys);
        entries
            .map(|(outcome, key)| match outcome? {
                Outcome::Get(reply) => Entry::from_wire(self.clone(), key, reply),
                _ => Err(Error::protocol("another kind of reply than a get's")),
            })
            .collect()
    }

    /// Many writes; an outcome for each, in order. Not a transaction.
    pub async fn batch_write(&self, writes: impl IntoIterator<Item = Write>) -> Vec<Result<Written, Error>> {
        let requests: Vec<_> = writes.into_iter().map(|write| self.write_request(write)).collect();
        let sent: Vec<Option<Request>> = requests.iter().map(|request| request.clone().ok()).collect();
        let began = Instant::now();
        let outcomes = self.batch(requests).await.into_iter().zip(sent);
        outcomes
            .map(|(outcome, request)| match (outcome, request) {
                (Ok(Outcome::Write(reply)), _) => Ok(Written::from_wire(reply, None)),
                (Ok(_), _) => Err(Error::protocol("another kind of reply than a write's")),
                (Err(Error::Uncertain(mut facts)), Some(request)) => {
                    let (client, timeout) = (self.client().clone(), self.timeout());
                    facts.pending = Some(PendingWrite { client, request, timeout, sent_before: Some(began) });
                    Err(Error::Uncertain(facts))
                }
                (Err(error), _) => Err(error),
            })
            .collect()
    }

    fn write_request(&self, write: Write) -> Result<Request, Error> {
        let request = match write {
            Write::Put { key, value, context } => {
                Request::Put(self.put_request(&key, value, context.to_wire(), false)?)
            }
            Write::PutBlind { key, value } => {
                Request::Put(self.put_request(&key, value, Bytes::new(), true)?)
            }
            Write::Join { key, value } => Request::Put(self.put_request(&key, value, Bytes::new(), false)?),
            Write::Delete { key, context } => {
                Request::Delete(self.delete_request(&key, context.to_wire(), false))
            }
            Write::DeleteBlind { key } => Request::Delete(self.delete_request(&key, Bytes::new(), true)),
            Write::Apply { key, op } => Request::Apply(self.apply_request(&key, op)?),
        };
        check_key(&key_of(Some(&request)))?;
        Ok(request)
    }

    async fn batch(&self, requests: Vec<Result<Request, Error>>) -> Vec<Result<Outcome, Error>> {
        let deadline = Instant::now() + self.timeout();
        let mut outcomes: Vec<Option<Result<Outcome, Error>>> = requests.iter().map(|_| None).collect();
        let mut parts: BTreeMap<Arc<str>, Vec<(usize, Request)>> = BTreeMap::new();
        for (index, request) in requests.into_iter().enumerate() {
            match request {
                Ok(request) => {
                    let key = key_of(Some(&request));
                    let node = self.client().inner.candidates(Some((self.name(), &key))).swap_remove(0);
                    parts.entry(node).or_default().push((index, request));
                }
                Err(error) => outcomes[index] = Some(Err(error)),
            }
        }
        let parts = parts
            .into_iter()
            .flat_map(|(node, items)| split(items).into_iter().map(move |part| (Arc::clone(&node), part)));
        let said = join_all(parts.map(|(node, items)| self.say(node, items))).await;
        let mut again = Vec::new();
        for (index, request, outcome) in said.into_iter().flatten() {
            match outcome {
                Err(error) if retry::is_curable(&error) || is_reply_too_large(&error) => {
                    again.push((index, request, error));
                }
                outcome => outcomes[index] = Some(outcome),
            }
        }
        let again = again.into_iter().map(|(index, request, first)| async move {
            (index, self.once_more(&request, first, deadline).await)
        });
        let mut again = stream::iter(again).buffer_unordered(SINGLE_IN_FLIGHT);
        while let Some((index, outcome)) = again.next().await {
            outcomes[index] = Some(outcome);
        }
        outcomes.into_iter().map(|outcome| outcome.expect("each item is in one part")).collect()
    }

    /// One attempt for one part.
    async fn say(
        &self,
        node: Arc<str>,
        items: Vec<(usize, Request)>,
    ) -> Vec<(usize, Request, Result<Outcome, Error>)> {
        let limit = self.timeout().min(self.client().inner.settings.attempt_timeout);
        let attempt = |link: Arc<Link>, limit| {
            let part = items.iter().map(|(_, request)| with_timeout(request.clone(), limit)).collect();
            say(link, part, limit)
        };
        let outcomes = match self.client().attempt(&node, limit, &attempt).await {
            Ok(outcomes) if outcomes.len() == items.len() => outcomes,
            Ok(outcomes) => {
                let (got, sent) = (outcomes.len(), items.len());
                let error = Error::protocol(format!("{got} outcomes for {sent} items of a batch"));
                items.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) => items.iter().map(|_| Err(error.clone())).collect(),
        };
        let items = items.into_iter().zip(outcomes);
        items.map(|((index, request), outcome)| (index, request, outcome)).collect()
    }

    /// An item on its own, after its first attempt ended in `first`.
    async fn once_more(&self, request: &Request, first: Error, deadline: Instant) -> Result<Outcome, Error> {
        let remaining: Duration = deadline.duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(first);
        }
        let key = key_of(Some(request));
        match self
            .client()
            .request_again((self.name(), &key), remaining, request, deadline - self.timeout())
            .await
        {
            Ok(outcome) => Ok(outcome),
            Err(error) if matches!(request, Request::Get(_)) => Err(error),
            Err(error) => {
                let mut fate = Fate::default();
                fate.note(&first);
                Err(fate.outcome(error))
            }
        }
    }
}

/// Says a part of a batch to a node; an outcome for each item, in order.
async fn say(
    link: Arc<Link>,
    mut part: Vec<Request>,
    limit: Duration,
) -> Result<Vec<Result<Outcome, Error>>, Error> {
    let deadline = Instant::now() + limit;
    if part.iter_mut().any(|request| until_of(request).is_some()) {
        let moment = link.moment(deadline).await?;
        part.iter_mut().filter_map(until_of).for_each(|until| *until = Some(moment));
    }
    let (mut gets, mut writes) = (Vec::new(), Vec::new());
    for request in part {
        match request {
            Request::Get(get) => gets.push(get),
            Request::Put(put) => writes.push(write_item::Write::Put(put)),
            Request::Delete(delete) => writes.push(write_item::Write::Delete(delete)),
            Request::Apply(apply) => writes.push(write_item::Write::Apply(apply)),
            Request::Query(_) => return Err(Error::protocol("queries have no batches")),
        }
    }
    assert!(gets.is_empty() || writes.is_empty(), "a batch is of one kind");
    if writes.is_empty() {
        let reply = link.kv().batch_get(v1::BatchGetRequest { items: gets }).await;
        let items = reply.map_err(|status| link.error(&status))?.into_inner().items;
        return Ok(items.into_iter().map(got).collect());
    }
    let items = writes.into_iter().map(|write| v1::WriteItem { write: Some(write) }).collect();
    let reply = link.kv().batch_write(v1::BatchWriteRequest { items }).await;
    let items = reply.map_err(|status| link.error(&status))?.into_inner().items;
    Ok(items.into_iter().map(written).collect())
}

fn got(item: v1::GetOutcome) -> Result<Outcome, Error> {
    match item.outcome {
        Some(get_outcome::Outcome::Reply(reply)) => Ok(Outcome::Get(reply)),
        Some(get_outcome::Outcome::Problem(problem)) => Err(Error::from_problem(problem)),
        None => Err(Error::protocol("an item of a batch without an outcome")),
    }
}

fn written(item: v1::WriteOutcome) -> Result<Outcome, Error> {
    match item.outcome {
        Some(write_outcome::Outcome::Reply(reply)) => Ok(Outcome::Write(reply)),
        Some(write_outcome::Outcome::Problem(problem)) => Err(Error::from_problem(problem)),
        None => Err(Error::protocol("an item of a batch without an outcome")),
    }
}

fn key_of(request: Option<&Request>) -> Bytes {
    match request {
        Some(Request::Get(get)) => get.key.clone(),
        Some(Request::Put(put)) => put.key.clone(),
        Some(Request::Delete(delete)) => delete.key.clone(),
        Some(Request::Apply(apply)) => apply.key.clone(),
        Some(Request::Query(query)) => query.key.clone(),
        None => Bytes::new(),
    }
}

/// Parts of at most [`ITEMS_MAX`] items and about [`PART_BYTES_MAX`] bytes, in order.
fn split(items: Vec<(usize, Request)>) -> Vec<Vec<(usize, Request)>> {
    let mut parts: Vec<Vec<(usize, Request)>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let size = size_of(&item.1);
        match parts.last_mut() {
            Some(part) if part.len() < ITEMS_MAX && bytes + size <= PART_BYTES_MAX => {
                bytes += size;
                part.push(item);
            }
            _ => {
                bytes = size;
                parts.push(vec![item]);
            }
        }
    }
    parts
}

fn size_of(request: &Request) -> usize {
    use prost::Message;
    match request {
        Request::Get(get) => get.encoded_len(),
        Request::Put(put) => put.encoded_len(),
        Request::Delete(delete) => delete.encoded_len(),
        Request::Apply(apply) => apply.encoded_len(),
        Request::Query(query) => query.encoded_len(),
    }
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod batch_test;
