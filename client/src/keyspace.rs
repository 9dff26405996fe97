//! The keys of one keyspace, and how its calls differ from the defaults.
//!
//! In: keys, values, contexts. Out: entries and written contexts. A put has three names, one for
//! each thing it may mean: [`Keyspace::put`] with a context, [`Keyspace::put_blind`] without one
//! on purpose, [`Keyspace::join`] where the keyspace is a lattice. Absent: admin calls.

use crate::{
    VALUE_BYTES_MAX,
    client::{Client, PendingWrite, check_key},
    context::Context,
    entry::{Entry, Resolution, State, Written},
    error::Error,
};
use bytes::Bytes;
use merganser_proto::v1::{self, pipeline_reply::Outcome, pipeline_request::Request, quorum::Level};
use std::{fmt, time::Duration};

/// How many replicas must answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    /// The keyspace's own number.
    #[default]
    Keyspace,
    /// One.
    One,
    /// A majority of N.
    Majority,
    /// All N.
    All,
    /// So many, 1 to N.
    Replicas(u32),
}

/// Whether stand-ins may answer for primaries that are away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// As the keyspace says.
    #[default]
    Keyspace,
    /// Primaries only: with R + W > N a read sees every write acknowledged before it.
    Strict,
    /// Stand-ins count; the reply says so where they did.
    Sloppy,
}

impl Quorum {
    fn to_wire(self, strictness: Strictness) -> Option<v1::Quorum> {
        use v1::quorum::Kind;
        let kind = match self {
            Quorum::Keyspace if strictness == Strictness::Keyspace => return None,
            Quorum::Keyspace => Kind::Level(Level::Keyspace as i32),
            Quorum::One => Kind::Level(Level::One as i32),
            Quorum::Majority => Kind::Level(Level::Quorum as i32),
            Quorum::All => Kind::Level(Level::All as i32),
            Quorum::Replicas(replicas) => Kind::Replicas(replicas),
        };
        let strictness = match strictness {
            Strictness::Keyspace => v1::quorum::Strictness::Keyspace,
            Strictness::Strict => v1::quorum::Strictness::Strict,
            Strictness::Sloppy => v1::quorum::Strictness::Sloppy,
        };
        Some(v1::Quorum { kind: Some(kind), strictness: strictness.into() })
    }
}

impl std::str::FromStr for Quorum {
    type Err = String;

    /// `ONE`, `QUORUM`, `ALL`, or a number.
    fn from_str(text: &str) -> Result<Quorum, String> {
        match text.to_ascii_uppercase().as_str() {
            "ONE" => Ok(Quorum::One),
            "QUORUM" => Ok(Quorum::Majority),
            "ALL" => Ok(Quorum::All),
            number => match number.parse::<u32>() {
                Ok(replicas) if replicas > 0 => Ok(Quorum::Replicas(replicas)),
                _ => Err(format!("`{text}` is not a quorum; use ONE, QUORUM, ALL or a number from 1")),
            },
        }
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quorum::Keyspace => f.write_str("the keyspace's"),
            Quorum::One => f.write_str("ONE"),
            Quorum::Majority => f.write_str("QUORUM"),
            Quorum::All => f.write_str("ALL"),
            Quorum::Replicas(replicas) => write!(f, "{replicas}"),
        }
    }
}

/// A handle to one keyspace. Cheap to clone; the `with_*` methods give a changed one.
#[derive(Clone, Debug)]
pub struct Keyspace {
    client: Client,
    name: String,
    read: Quorum,
    write: Quorum,
    strictness: Strictness,
    timeout: Duration,
    content_type: String,
    ttl: Option<Duration>,
}

/// What a plugin answered to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Queried {
    /// Whether there is something under the key.
    pub state: State,
    /// In the plugin's own language.
    pub result: Bytes,
    /// Covers what the answer was made from.
    pub context: Context,
    /// Unresolved where operands of the key are not in the state that was asked: which, and why.
    pub resolution: Resolution,
    /// Which replicas answered.
    pub acks: v1::Acks,
}

impl Keyspace {
    pub(crate) fn new(client: Client, name: String) -> Keyspace {
        let timeout = client.inner.settings.timeout;
        let (read, write) = (Quorum::Keyspace, Quorum::Keyspace);
        let strictness = Strictness::Keyspace;
        Keyspace { client, name, read, write, strictness, timeout, content_type: String::new(), ttl: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same keys, read at another quorum.
    #[must_use]
    pub fn with_read(&self, read: Quorum) -> Keyspace {
        Keyspace { read, ..self.clone() }
    }

    /// The same keys, with or without stand-ins for primaries that are away.
    #[must_use]
    pub fn with_strictness(&self, strictness: Strictness) -> Keyspace {
        Keyspace { strictness, ..self.clone() }
    }

    /// The same keys; what is put reads as deleted after so long, a millisecond at least.
    #[must_use]
    pub fn with_ttl(&self, ttl: Duration) -> Keyspace {
        Keyspace { ttl: Some(ttl), ..self.clone() }
    }

    /// The same keys, written at another quorum.
    #[must_use]
    pub fn with_write(&self, write: Quorum) -> Keyspace {
        Keyspace { write, ..self.clone() }
    }

    /// The same keys, with another time for a whole request.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Keyspace {
        Keyspace { timeout, ..self.clone() }
    }

    /// The same keys; values put through it are marked with this content type.
    #[must_use]
    pub fn with_content_type(&self, content_type: impl Into<String>) -> Keyspace {
        Keyspace { content_type: content_type.into(), ..self.clone() }
    }

    pub(crate) fn content_type(&self) -> &str {
        &self.content_type
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The key as the keyspace's policy shows it.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Entry, Error> {
        self.get_as(key.as_ref(), v1::Want::Resolved).await
    }

    /// All versions of the key, tombstones too, with no plugin asked.
    pub async fn get_siblings(&self, key: impl AsRef<[u8]>) -> Result<Entry, Error> {
        self.get_as(key.as_ref(), v1::Want::Siblings).await
    }

    async fn get_as(&self, key: &[u8], want: v1::Want) -> Result<Entry, Error> {
        check_key(key)?;
        let get = self.get_request(key, want);
        let key = get.key.clone();
        match self.client.request((&self.name, &key), self.timeout, &Request::Get(get)).await? {
            Outcome::Get(reply) => Entry::from_wire(self.clone(), key, reply),
            _ => Err(Error::protocol("another kind of reply than a get's")),
        }
    }

    pub(crate) fn get_request(&self, key: &[u8], want: v1::Want) -> v1::GetRequest {
        v1::GetRequest {
            keyspace: self.name.clone(),
            key: Bytes::copy_from_slice(key),
            read: self.read.to_wire(self.strictness),
            want: want as i32,
            timeout_ms: 0,
        }
    }

    /// Replaces what `context` covers. [`Entry::put`] does this with the right context.
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        context: &Context,
    ) -> Result<Written, Error> {
        let put = self.put_request(key.as_ref(), value.into(), context.to_wire(), false)?;
        self.send(Request::Put(put)).await
    }

    /// Stores a value without having looked: beside whatever is there, as one more sibling (in an
    /// `lww` keyspace: over it).
    pub async fn put_blind(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written, Error> {
        let put = self.put_request(key.as_ref(), value.into(), Bytes::new(), true)?;
        self.send(Request::Put(put)).await
    }

    /// Lattice keyspaces: joins `value` to the state. Needs no context.
    pub async fn join(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written, Error> {
        let put = self.put_request(key.as_ref(), value.into(), Bytes::new(), false)?;
        self.send(Request::Put(put)).await
    }

    /// Deletes what `context` covers. [`Entry::delete`] does this with the right context.
    pub async fn delete(&self, key: impl AsRef<[u8]>, context: &Context) -> Result<Written, Error> {
        let delete = self.delete_request(key.as_ref(), context.to_wire(), false);
        self.send(Request::Delete(delete)).await
    }

    /// `lww` keyspaces: deletes whatever is older.
    pub async fn delete_blind(&self, key: impl AsRef<[u8]>) -> Result<Written, Error> {
        let delete = self.delete_request(key.as_ref(), Bytes::new(), true);
        self.send(Request::Delete(delete)).await
    }

    /// Applies an operation of the keyspace's replicated type, in its plugin's language. Applied
    /// once, however often it is retried.
    pub async fn apply(&self, key: impl AsRef<[u8]>, op: impl Into<Bytes>) -> Result<Written, Error> {
        let apply = self.apply_request(key.as_ref(), op.into())?;
        self.send(Request::Apply(apply)).await
    }

    /// As [`Keyspace::apply`], on a state that holds at least what the context covers: the context of an earlier get, query
    /// or write of this key. [`Error::Stale`] where no such state is within reach; then nothing was done.
    pub async fn apply_after(
        &self,
        key: impl AsRef<[u8]>,
        op: impl Into<Bytes>,
        context: &Context,
    ) -> Result<Written, Error> {
        let mut apply = self.apply_request(key.as_ref(), op.into())?;
        apply.context = Bytes::copy_from_slice(context.as_bytes());
        self.send(Request::Apply(apply)).await
    }

    /// A projection of the state, made by the plugin; an empty path means the whole.
    pub async fn query(&self, key: impl AsRef<[u8]>, path: impl Into<Bytes>) -> Result<Queried, Error> {
        self.query_of(key, path.into(), Bytes::new()).await
    }

    /// As [`Keyspace::query`], of a state that holds at least what the context covers, or [`Error::Stale`].
    pub async fn query_after(
        &self,
        key: impl AsRef<[u8]>,
        path: impl Into<Bytes>,
        context: &Context,
    ) -> Result<Queried, Error> {
        self.query_of(key, path.into(), Bytes::copy_from_slice(context.as_bytes())).await
    }

    async fn query_of(&self, key: impl AsRef<[u8]>, path: Bytes, context: Bytes) -> Result<Queried, Error> {
        check_key(key.as_ref())?;
        let query = v1::QueryRequest {
            keyspace: self.name.clone(),
            key: Bytes::copy_from_slice(key.as_ref()),
            path,
            read: self.read.to_wire(self.strictness),
            timeout_ms: 0,
            context,
        };
        let key = query.key.clone();
        let request = Request::Query(query);
        let Outcome::Query(reply) = self.client.request((&self.name, &key), self.timeout, &request).await?
        else {
            return Err(Error::protocol("another kind of reply than a query's"));
        };
        let state = match reply.state() {
            v1::State::NotFound => State::NotFound,
            v1::State::Found => State::Found,
            v1::State::Deleted => State::Deleted,
        };
        Ok(Queried {
            state,
            result: reply.result,
            context: Context::from_bytes(reply.context),
            resolution: Resolution::from_wire(reply.resolution),
            acks: reply.acks.unwrap_or_default(),
        })
    }

    pub(crate) async fn send(&self, request: Request) -> Result<Written, Error> {
        PendingWrite { client: self.client.clone(), request, timeout: self.timeout, sent_before: None }
            .send()
            .await
    }

    pub(crate) fn put_request(
        &self,
        key: &[u8],
        value: Bytes,
        context: Bytes,
        blind: bool,
    ) -> Result<v1::PutRequest, Error> {
        check_size("value", &value)?;
        Ok(v1::PutRequest {
            keyspace: self.name.clone(),
            key: Bytes::copy_from_slice(key),
            value,
            context,
            blind,
            write: self.write.to_wire(self.strictness),
            request_id: self.request_id(),
            content_type: self.content_type.clone(),
            timeout_ms: 0,
            ttl_ms: self.ttl.map_or(0, |ttl| (ttl.as_millis() as u64).max(1)),
            until: None,
            retry_of_ms_ago: 0,
        })
    }

    pub(crate) fn delete_request(&self, key: &[u8], context: Bytes, blind: bool) -> v1::DeleteRequest {
        v1::DeleteRequest {
            keyspace: self.name.clone(),
            key: Bytes::copy_from_slice(key),
            context,
            blind,
            write: self.write.to_wire(self.strictness),
            request_id: self.request_id(),
            timeout_ms: 0,
            until: None,
            retry_of_ms_ago: 0,
        }
    }

    pub(crate) fn apply_request(&self, key: &[u8], op: Bytes) -> Result<v1::ApplyRequest, Error> {
        check_size("operation", &op)?;
        Ok(v1::ApplyRequest {
            keyspace: self.name.clone(),
            key: Bytes::copy_from_slice(key),
            op,
            write: self.write.to_wire(self.strictness),
            request_id: self.request_id(),
            timeout_ms: 0,
            until: None,
            context: Bytes::new(),
        })
    }

    fn request_id(&self) -> Bytes {
        Bytes::copy_from_slice(&self.client.request_id())
    }
}

/// Refused here already, so that a megabyte too many is not sent ten times.
fn check_size(what: &str, bytes: &Bytes) -> Result<(), Error> {
    if bytes.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: what.into(),
        size_bytes: bytes.len() as u64,
        limit_bytes: VALUE_BYTES_MAX as u64,
    })
}
