//! A client's request, from its arrival to its outcome.
//!
//! ```text
//!   begin ─▶ checks ─▶ a primary of the key? ── no ─▶ forward, once, to one that can be reached
//!                         │ yes                          └ none can: a stand-in coordinates, if sloppy
//!            put: validate? ─▶ dot ─▶ own copy + replicas ─▶ W durable ─▶ reply
//!            get: own copy ─▶ R-1 digests ─▶ join ─▶ view ─▶ reply ─▶ repair
//! ```
//!
//! The coordinator is always a replica of the key, or stands in for one with its own actor; a request that lands elsewhere is forwarded as
//! the client's request, with its id, and never forwarded twice (riak_kv#1046). In: requests,
//! answers of replicas. Out: outcomes. Absent: a node's own copy (`replica`).

mod catch_up;
mod flights;
mod get;
mod load;
mod pace;
mod put;
mod quorum;
mod replication;
mod show;
mod view;
mod view_cache;
mod write_back;

pub(crate) use flights::Flights;
pub(crate) use get::Reading;
pub(crate) use load::Load;
pub(crate) use pace::Paces;
pub(crate) use put::{Applying, Change, Step, Turn, Writing};
pub(crate) use replication::Replication;
pub(crate) use view::reason;
pub(crate) use view_cache::ViewCache;
pub(crate) use write_back::WriteBacks;

use crate::catalog::{KeyspaceEntry, TTL_MS_MAX};
use crate::event::{Effect, Effects};
use crate::id::{Millis, NodeId, OpId};
use crate::message::Message;
use crate::node::{Node, Origin, Timer};
use crate::plugin::KeyInfo;
use crate::request::{
    Acks, Basis, CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, Level, OPERATION_BYTES_MAX, Operation, Outcome,
    Problem, Request, Sloppiness, VALUE_BYTES_MAX,
};
use crate::target::Target;
use crate::version::context::CONTEXT_BYTES_MAX;
use bytes::Bytes;

/// When a client that was shed should come back.
const RETRY_AFTER_MS: u32 = 50;

/// A request that this node coordinates.
pub(crate) struct Admitted {
    origin: Origin,
    target: Target,
    /// How many replicas must answer.
    needed: u32,
    /// Whether stand-ins count.
    sloppy: bool,
    deadline: Millis,
    /// Those of the key; this node is one of them, or stands in.
    primaries: Vec<NodeId>,
    /// Of a retry: how long ago the first attempt was sent.
    retry_of_ms_ago: Option<u64>,
}

/// A request that another node coordinates.
pub(crate) struct Forwarding {
    origin: Origin,
    deadline: Millis,
    is_write: bool,
    needed: u32,
}

impl Node {
    /// A request arrives.
    pub(crate) fn begin(&mut self, now: Millis, origin: Origin, request: Request, effects: &mut Effects) {
        if let Err(problem) = check(&request) {
            return self.refuse(origin, problem, effects);
        }
        let patience =
            request.timeout_ms.unwrap_or(self.config.timeout_ms).clamp(1, self.config.timeout_ms_max);
        let patience = match self.patience_left(request.until, patience) {
            Ok(patience) => patience,
            Err(problem) => {
                self.counters.late += 1;
                return self.refuse(origin, problem, effects);
            }
        };
        let deadline = now.after(patience);
        let cost = load::cost(&request.operation);
        if let Err(problem) = self.load.admit(now, cost, &self.config) {
            self.counters.shed += 1;
            return self.refuse(origin, problem, effects);
        }
        let origin = origin.costing(cost);
        let Some(entry) = self.keyspaces.by_name(&request.keyspace) else {
            return self.refuse(origin, Problem::UnknownKeyspace { keyspace: request.keyspace }, effects);
        };
        let needed = match needed(&entry, &request) {
            Ok(needed) => needed,
            Err(problem) => return self.refuse(origin, problem, effects),
        };
        let target = Target::new(entry, &request.key);
        let primaries = self.ring.primaries(target.token, target.n());
        let own = self.config.node;
        let sloppy = match request.sloppiness {
            Sloppiness::Keyspace => target.entry.settings.sloppy,
            Sloppiness::Strict => false,
            Sloppiness::Sloppy => true,
        };
        let mut reachable = primaries.iter().filter(|node| self.is_reachable(**node)).count() as u32;
        let is_primary = primaries.contains(&own);
        // As a rule nobody needs to look further than the primaries.
        let may_stand_in = !is_primary && (reachable == 0 || matches!(origin, Origin::Peer { .. }));
        let look_further = sloppy && (reachable < needed || may_stand_in);
        let stand_ins = if look_further { self.reachable_stand_ins(&target) } else { Vec::new() };
        let is_any_primary_reachable = reachable > 0;
        reachable = (reachable + stand_ins.len() as u32).min(target.entry.settings.n);
        if reachable < needed {
            return self.refuse(origin, Problem::NotEnoughReplicas { needed, reachable }, effects);
        }
        if !is_primary {
            // Nothing is forwarded twice: who cannot reach a primary asked this node to stand in.
            let asked = matches!(origin, Origin::Peer { .. }) && stand_ins.contains(&own);
            let first = !is_any_primary_reachable && stand_ins.first() == Some(&own);
            if !(asked || first) {
                let candidates = primaries.iter().chain(&stand_ins).copied().collect::<Vec<_>>();
                let times = (deadline, self.own_time_at(now, deadline));
                return self.forward(origin, request, needed, times, &candidates, effects);
            }
        }
        if let Err(problem) = self.hot_keys.note(now, &target, request.operation.is_write()) {
            self.counters.too_hot += 1;
            return self.refuse(origin, problem, effects);
        }
        let retry_of_ms_ago = request.retry_of_ms_ago;
        let admitted = Admitted { origin, target, needed, sloppy, deadline, primaries, retry_of_ms_ago };
        match request.operation {
            Operation::Get { want } => self.begin_read(now, admitted, get::Goal::Get(want), effects),
            Operation::Query { path, context } => {
                let seen = match self.opened(&admitted.target, context.as_ref()) {
                    Ok(context) => context.map(|context| context.seen).unwrap_or_default(),
                    Err(problem) => return self.refuse(admitted.origin, problem, effects),
                };
                self.begin_read(now, admitted, get::Goal::Query { path, seen }, effects);
            }
            write => self.begin_write(now, admitted, write, effects),
        }
    }

    fn forward(
        &mut self,
        origin: Origin,
        mut request: Request,
        needed: u32,
        (deadline, until_ms): (Millis, u64),
        candidates: &[NodeId],
        effects: &mut Effects,
    ) {
        let own = self.config.node;
        let is_write = request.operation.is_write();
        // A write goes only to a member of which is known how long it has run: it may lie there.
        let to =
            candidates.iter().filter(|node| **node != own && self.is_reachable(**node)).find_map(|node| {
                let until = self.moment_at(*node, until_ms).filter(|_| is_write);
                (until.is_some() || !is_write).then_some((*node, until))
            });
        let (Origin::Client { .. }, Some((to, until))) = (origin, to) else {
            // A peer's view of the ring is not ours: nothing is forwarded twice.
            return self.refuse(origin, Problem::NotEnoughReplicas { needed, reachable: 0 }, effects);
        };
        self.counters.forwards += 1;
        let op = self.op();
        request.until = until;
        self.forwarding.insert(op, Forwarding { origin, deadline, is_write, needed });
        self.set_timer(deadline, Timer::Forward(op));
        effects.push(Effect::Send { to, message: Message::Forward { op, request } });
    }

    /// The coordinator has answered.
    pub(crate) fn forwarded(&mut self, op: OpId, outcome: Outcome, effects: &mut Effects) {
        let Some(forwarding) = self.forwarding.remove(&op) else { return };
        self.clear_timer(forwarding.deadline, Timer::Forward(op));
        self.answer(forwarding.origin, outcome, effects);
    }

    pub(crate) fn forward_timed_out(&mut self, op: OpId, effects: &mut Effects) {
        let Some(forwarding) = self.forwarding.remove(&op) else { return };
        let needed = forwarding.needed;
        let problem = if forwarding.is_write {
            self.counters.uncertain += 1;
            Problem::Uncertain { dot: None, acks: Acks { needed, ..Acks::default() } }
        } else {
            Problem::NotEnoughReplicas { needed, reachable: 0 }
        };
        self.refuse(forwarding.origin, problem, effects);
    }
}

/// The plugin's view of which key a call is about.
pub(crate) fn key_info(target: &Target) -> KeyInfo {
    let entry = &target.entry;
    KeyInfo {
        keyspace: entry.name.clone(),
        key: target.key.clone(),
        config: entry.settings.plugin_config.clone(),
    }
}

/// How many replicas must answer.
fn needed(entry: &KeyspaceEntry, request: &Request) -> Result<u32, Problem> {
    let n = entry.settings.n;
    let needed = match request.level {
        Level::Keyspace if request.operation.is_write() => entry.settings.w,
        Level::Keyspace => entry.settings.r,
        Level::One => 1,
        Level::Quorum => n / 2 + 1,
        Level::All => n,
        Level::Count(count) if (1..=n).contains(&count) => count,
        Level::Count(count) => {
            return Err(Problem::InvalidArgument {
                field: "level",
                reason: format!("must be 1 to n = {n}, is {count}"),
            });
        }
    };
    Ok(needed)
}

/// What can be judged of a request alone.
fn check(request: &Request) -> Result<(), Problem> {
    if request.key.is_empty() {
        return Err(Problem::InvalidArgument { field: "key", reason: "must not be empty".into() });
    }
    limit("key", request.key.len(), KEY_BYTES_MAX)?;
    match &request.operation {
        Operation::Get { .. } => {}
        Operation::Put { value, content_type, basis, ttl_ms, .. } => {
            limit("value", value.len(), VALUE_BYTES_MAX)?;
            limit("content type", content_type.as_ref().map_or(0, Bytes::len), CONTENT_TYPE_BYTES_MAX)?;
            check_basis(basis)?;
            if let Some(ttl_ms) = ttl_ms.filter(|ttl_ms| *ttl_ms > TTL_MS_MAX) {
                let reason = format!("must be at most {TTL_MS_MAX}, is {ttl_ms}");
                return Err(Problem::InvalidArgument { field: "ttl_ms", reason });
            }
        }
        Operation::Delete { basis, .. } => check_basis(basis)?,
        Operation::Apply { op, context, .. } => {
            limit("operation", op.len(), OPERATION_BYTES_MAX)?;
            limit("context", context.as_ref().map_or(0, Bytes::len), CONTEXT_BYTES_MAX)?;
        }
        Operation::Query { path, context } => {
            limit("path", path.len(), OPERATION_BYTES_MAX)?;
            limit("context", context.as_ref().map_or(0, Bytes::len), CONTEXT_BYTES_MAX)?;
        }
    }
    Ok(())
}

fn check_basis(basis: &Basis) -> Result<(), Problem> {
    match basis {
        Basis::Context(token) => limit("context", token.len(), CONTEXT_BYTES_MAX),
        Basis::Blind | Basis::Unsaid => Ok(()),
    }
}

fn limit(what: &'static str, size: usize, limit: usize) -> Result<(), Problem> {
    if size > limit {
        return Err(Problem::TooLarge { what, size_bytes: size as u64, limit_bytes: limit as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod expiry_test;
