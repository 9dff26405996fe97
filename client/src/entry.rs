//! A key as a read showed it, together with the context of that read.
//!
//! In: replies. Out: [`Entry`], which writes with its own context and takes over the one that
//! the write answers with: forgetting it takes more effort than keeping it. Absent: merging.

use crate::{
    Keyspace,
    context::Context,
    error::{self, Error, Uncertain},
};
use bytes::Bytes;
use merganser_core::id::Dot;
use merganser_proto::v1;

/// Whether there is something under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never written, or deleted so long ago that nothing remembers.
    NotFound,
    /// One value or several.
    Found,
    /// Deleted; the context knows of it.
    Deleted,
}

/// One of several concurrent versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Sibling {
    /// The bytes, or that this version is a delete.
    pub content: Content,
    /// Every write that put these bytes.
    pub dots: Vec<Dot>,
    /// When it was written, as the writing node's clock told: for people, not for order.
    pub stamp: v1::Stamp,
    /// As the writer said.
    pub content_type: String,
    /// Where this version is the stored result of a resolution.
    pub receipt: Option<v1::Receipt>,
    /// Why an operand of a lattice is joined with nothing: it was not validated yet, or is set aside. Empty: it is not one.
    pub apart: String,
    /// Of an operand that is apart: covers it alone, so that a delete with this context removes it and nothing else.
    pub context: Context,
}

/// What a version holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Value(Bytes),
    /// A delete.
    Tombstone,
}

impl Sibling {
    /// Its bytes, unless it is a delete.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Value(value) => Some(value),
            Content::Tombstone => None,
        }
    }

    fn from_wire(sibling: v1::Sibling) -> Result<Sibling, Error> {
        let content = match sibling.content {
            Some(v1::sibling::Content::Value(value)) => Content::Value(value),
            Some(v1::sibling::Content::Tombstone(_)) => Content::Tombstone,
            None => return Err(Error::protocol("a sibling without content")),
        };
        Ok(Sibling {
            content,
            dots: sibling.dots.into_iter().map(error::dot).collect(),
            stamp: sibling.stamp.unwrap_or_default(),
            content_type: sibling.content_type,
            receipt: sibling.receipt,
            apart: sibling.apart,
            context: Context::from_bytes(sibling.context),
        })
    }
}

/// What became of the conflict, if there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// One version, nothing to settle.
    NoneNeeded,
    /// The value shown is what the keyspace's plugin made of the siblings.
    Resolved {
        /// BLAKE3 of the plugin.
        plugin_hash: Bytes,
        /// Under which policy epoch.
        policy_epoch: u64,
    },
    /// No plugin answer is shown.
    Unresolved {
        /// Why.
        reason: String,
    },
    /// Siblings are what the keyspace's policy, or this call, asked for.
    Siblings,
}

impl Resolution {
    pub(crate) fn from_wire(resolution: Option<v1::Resolution>) -> Resolution {
        use v1::resolution::Kind;
        let resolution = resolution.unwrap_or_default();
        match resolution.kind() {
            Kind::NoneNeeded => Resolution::NoneNeeded,
            Kind::Resolved => Resolution::Resolved {
                plugin_hash: resolution.plugin_hash,
                policy_epoch: resolution.policy_epoch,
            },
            Kind::Unresolved => Resolution::Unresolved { reason: resolution.reason },
            Kind::Siblings => Resolution::Siblings,
        }
    }
}

/// What a write answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The write's own dot.
    pub dot: Option<Dot>,
    /// Covers the write and what it saw: the context for the next write of this key.
    pub context: Context,
    /// Which replicas acknowledged.
    pub acks: v1::Acks,
    /// Concurrent versions at the coordinator, this one included: more than 1 = a race was lost.
    pub siblings: u32,
    /// Why the plugin did not look at the value in time: it is stored, and in a lattice joined only once it was validated.
    /// Empty: it was, or there is no plugin to ask.
    pub unvalidated: String,
    /// How often it was sent; unknown of a part of a batch. What was sent more than once may have been
    /// carried out by two nodes, apart; then it has two dots, and this is the one that answered.
    pub attempts: Option<u32>,
}

impl Written {
    pub(crate) fn from_wire(reply: v1::WriteReply, attempts: Option<u32>) -> Written {
        Written {
            dot: reply.dot.map(error::dot),
            context: Context::from_bytes(reply.context),
            acks: reply.acks.unwrap_or_default(),
            siblings: reply.siblings,
            unvalidated: reply.unvalidated,
            attempts,
        }
    }
}

/// A key as it was read, ready to be written.
#[derive(Clone, Debug)]
pub struct Entry {
    keyspace: Keyspace,
    key: Bytes,
    state: State,
    siblings: Vec<Sibling>,
    context: Context,
    resolution: Resolution,
    acks: v1::Acks,
    uncertain: Option<(Uncertain, Option<Bytes>)>,
}

impl Entry {
    pub(crate) fn from_wire(keyspace: Keyspace, key: Bytes, reply: v1::GetReply) -> Result<Entry, Error> {
        let state = match reply.state() {
            v1::State::NotFound => State::NotFound,
            v1::State::Found => State::Found,
            v1::State::Deleted => State::Deleted,
        };
        let siblings: Vec<Sibling> =
            reply.siblings.into_iter().map(Sibling::from_wire).collect::<Result<_, _>>()?;
        if state == State::Found && siblings.is_empty() {
            return Err(Error::protocol("a key that is found, without a value"));
        }
        Ok(Entry {
            keyspace,
            key,
            state,
            siblings,
            context: Context::from_bytes(reply.context),
            resolution: Resolution::from_wire(reply.resolution),
            acks: reply.acks.unwrap_or_default(),
            uncertain: None,
        })
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether there is something.
    pub fn state(&self) -> State {
        self.state
    }

    /// The value; none where nothing is found. [`Error::Unresolved`] where there are siblings:
    /// then look at [`Entry::siblings`] and [`Entry::put`] what they should become.
    pub fn value(&self) -> Result<Option<&Bytes>, Error> {
        // Operands that are apart are shown beside the value.
        let shown: Vec<&Sibling> = self.siblings.iter().filter(|sibling| sibling.apart.is_empty()).collect();
        match (self.state, shown.as_slice()) {
            (State::Found, [one]) => Ok(one.value()),
            (State::Found, _) => {
                let several = &self.siblings;
                let why = match &self.resolution {
                    Resolution::Unresolved { reason } => reason.as_str(),
                    _ => "the keyspace keeps them",
                };
                let reason = format!("{} concurrent versions ({why})", several.len());
                Err(Error::Unresolved { reason })
            }
            (State::NotFound | State::Deleted, _) => Ok(None),
        }
    }

    /// Everything shown: one version where settled.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Covers what was shown, or what was written through this entry last.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What became of the conflict.
    pub fn resolution(&self) -> &Resolution {
        &self.resolution
    }

    /// Which replicas answered the last read or write.
    pub fn acks(&self) -> &v1::Acks {
        &self.acks
    }

    /// Replaces everything this entry shows. In a lattice keyspace: joins `value` to it.
    pub async fn put(&mut self, value: impl Into<Bytes>) -> Result<Written, Error> {
        let value = value.into();
        let written = match self.context.is_empty() {
            // The read saw nothing at all, so there is nothing that this put could overlook.
            true => self.keyspace.put_blind(&self.key, value.clone()).await,
            false => self.keyspace.put(&self.key, value.clone(), &self.context).await,
        };
        self.after(written, Some(value))
    }

    /// Deletes everything this entry shows.
    pub async fn delete(&mut self) -> Result<Written, Error> {
        let written = self.keyspace.delete(&self.key, &self.context).await;
        self.after(written, None)
    }

    /// Tries the last write again if it ended in [`Error::Uncertain`]: as the same write, so that
    /// a node that knows of it does not do it again. None if there is no such write.
    pub async fn retry(&mut self) -> Option<Result<Written, Error>> {
        let (uncertain, value) = self.uncertain.clone()?;
        let written = uncertain.retry().await;
        Some(self.after(written, value))
    }

    /// Reads the key again.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        *self = self.keyspace.get(&self.key).await?;
        Ok(())
    }

    fn after(&mut self, written: Result<Written, Error>, value: Option<Bytes>) -> Result<Written, Error> {
        self.uncertain = match &written {
            Err(Error::Uncertain(facts)) => Some(((**facts).clone(), value.clone())),
            _ => None,
        };
        let written = written?;
        self.context = written.context.clone();
        self.acks = written.acks.clone();
        self.resolution = Resolution::NoneNeeded;
        (self.state, self.siblings) = match value {
            Some(value) => (State::Found, vec![self.version(value, &written)]),
            None => (State::Deleted, Vec::new()),
        };
        Ok(written)
    }

    fn version(&self, value: Bytes, written: &Written) -> Sibling {
        Sibling {
            content: Content::Value(value),
            dots: written.dot.into_iter().collect(),
            stamp: v1::Stamp::default(),
            content_type: self.keyspace.content_type().to_owned(),
            receipt: None,
            apart: String::new(),
            context: Context::from_bytes(Bytes::new()),
        }
    }
}
