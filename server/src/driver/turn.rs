//! One turn: inputs become events, effects are carried out, each kind once.
//!
//! Reads are answered at once where storage need not wait, and their events handled in the same
//! turn, until no read is left. Writes go to storage in the order in which they were decided.

use super::{Driver, Input, Link, PRESSURE_PERIOD_MS, ReplyTo, Snapshot};
use crate::metrics::{self, metric};
use crate::store;
use bytes::{Bytes, BytesMut};
use merganser_core::event::{Effect, Event, Notice, StorageFailure};
use merganser_core::id::{ClientTicket, Millis, NodeId, Ticket};
use merganser_core::message::Message;
use merganser_core::request::{Outcome, Problem};
use merganser_storage::{KeySpan, PageRequest};
use std::sync::Arc;

/// Above this pressure of storage clients' writes are refused, to leave room for replication.
const PRESSURE_MAX: f32 = 0.95;
const SHED_RETRY_MS: u32 = 50;

impl Driver {
    /// An input becomes events.
    pub(super) fn take(&mut self, now: Millis, input: Input) {
        match input {
            Input::Client { request, reply } => {
                self.metrics.requests.add(1);
                if request.operation.is_write() && self.storage_is_behind(now) {
                    self.metrics.requests_shed.add(1);
                    let problem = Problem::Overloaded { retry_after_ms: SHED_RETRY_MS };
                    return self.reply(reply, Outcome::Failed(problem));
                }
                let ticket = self.next_ticket();
                self.under_way.clients.insert(ticket, reply);
                self.handle(now, Event::Client { ticket, request });
            }
            Input::Admin { request, reply } => {
                let ticket = self.next_ticket();
                self.under_way.operators.insert(ticket, reply);
                self.handle(now, Event::Admin { ticket, request });
            }
            Input::Now(reply) => {
                let _ = reply.send(self.node.moment());
            }
            Input::Look(reply) => {
                let _ = reply.send(self.snapshot(now));
            }
            Input::LinkUp { peer, link, outbox } => self.link_up(now, peer, link, outbox),
            Input::LinkDown { peer, link } => self.link_down(now, peer, link),
            Input::Frame { from, messages, room } => {
                drop(room);
                for message in messages {
                    self.handle(now, Event::Message { from, message });
                }
            }
            Input::Committed { tickets, result } => self.handle(now, Event::WritesDone { tickets, result }),
            Input::ReadDone { ticket, result } => self.handle(now, Event::ReadDone { ticket, result }),
            Input::ScanDone { ticket, result } => self.handle(now, Event::ScanDone { ticket, result }),
            Input::Damaged { ranges } => self.handle(now, Event::Damaged { ranges }),
            Input::PluginDone { ticket, answer } => self.handle(now, Event::PluginDone { ticket, answer }),
            Input::PluginLoaded { hash, result } => self.handle(now, Event::PluginLoaded { hash, result }),
            Input::StorageStopped(error) => self.storage_stopped(error),
            Input::Stop { drain_ms } => self.begin_stop(now, drain_ms),
        }
    }

    /// Carries the effects out.
    pub(super) fn apply(&mut self, now: Millis) {
        let mut effects = std::mem::take(&mut self.under_way.effects);
        let mut again = std::mem::take(&mut self.under_way.again);
        let mut sent = Encoded { last: None, buffer: std::mem::take(&mut self.under_way.encoding) };
        loop {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Read { ticket, key } => again.extend(self.read(ticket, key)),
                    Effect::Scan { ticket, from, to, records_max, bytes_max, heads_only } => {
                        let request = PageRequest { from, to, records_max, bytes_max, heads_only };
                        if !self.readers.scan(ticket, request) {
                            let result = Err(StorageFailure::Overloaded);
                            again.push(Event::ScanDone { ticket, result });
                        }
                    }
                    Effect::Excise { from, to, seen } => self.readers.excise(KeySpan { from, to }, seen),
                    Effect::Write { ticket, ops, durability } => {
                        self.metrics.effects_write.add(1);
                        self.under_way.writes.push(store::write(ticket, ops, durability));
                    }
                    Effect::Send { to, message } => match self.under_way.links.get_mut(&to) {
                        Some(link) => link.messages.push(sent.bytes(message)),
                        None => self.metrics.peer_messages_dropped.add(1),
                    },
                    Effect::Reply { ticket, outcome } => {
                        if let Some(reply) = self.under_way.clients.remove(&ticket) {
                            self.reply(reply, outcome);
                        }
                    }
                    Effect::AdminReply { ticket, reply } => {
                        if let Some(operator) = self.under_way.operators.remove(&ticket)
                            && operator.send(reply).is_err()
                        {
                            self.metrics.replies_dropped.add(1);
                        }
                    }
                    Effect::Plugin { ticket, plugin, call } => {
                        again.extend(self.plugins.call(ticket, plugin, call));
                    }
                    Effect::LoadPlugin { hash, module } => self.plugins.load(hash, module),
                    Effect::RejoinEmpty { reason } => {
                        tracing::error!(?reason, "rejoin_empty");
                        self.under_way.rejoin_empty = Some(reason);
                    }
                    Effect::Notice(notice) => self.notice(notice),
                }
            }
            if again.is_empty() {
                break;
            }
            for event in again.drain(..) {
                self.node.handle(now, event, &mut effects);
            }
        }
        self.under_way.effects = effects;
        self.under_way.again = again;
        self.under_way.encoding = sent.buffer;
        for link in self.under_way.links.values_mut() {
            if !link.messages.is_empty() {
                link.outbox.push(&mut link.messages);
            }
        }
        if !self.under_way.writes.is_empty() {
            self.db.submit(std::mem::take(&mut self.under_way.writes));
        }
        if std::mem::take(&mut self.under_way.topology_changed) {
            let keyspaces = self.node.catalog().keyspaces.values();
            for plugin in keyspaces.filter_map(|entry| entry.settings.policy.plugin()) {
                self.plugins.prepare(plugin.hash);
            }
            let topology =
                self.directory.topology(self.node.catalog(), |id| self.under_way.links.contains_key(&id));
            self.topology.send_replace(Arc::new(topology));
        }
    }

    /// The answer, if it need not wait.
    fn read(&mut self, ticket: Ticket, key: Bytes) -> Option<Event> {
        self.metrics.effects_read.add(1);
        if let Some(result) = store::try_get(&self.db, &key) {
            return Some(Event::ReadDone { ticket, result });
        }
        self.metrics.reads_blocked.add(1);
        if self.readers.read(ticket, key) {
            return None;
        }
        self.metrics.reads_refused.add(1);
        Some(Event::ReadDone { ticket, result: Err(StorageFailure::Overloaded) })
    }

    pub(super) fn reply(&self, to: ReplyTo, outcome: Outcome) {
        let gone = match to {
            ReplyTo::Call(reply) => reply.send(outcome).is_err(),
            ReplyTo::Pipeline { id, outcomes } => outcomes.send((id, outcome)).is_err(),
        };
        self.metrics.replies_dropped.add(gone.into());
    }

    fn next_ticket(&mut self) -> ClientTicket {
        self.under_way.tickets += 1;
        ClientTicket(self.under_way.tickets)
    }

    fn storage_is_behind(&mut self, now: Millis) -> bool {
        if now.since(self.under_way.pressure_at) >= PRESSURE_PERIOD_MS {
            self.under_way.pressure_at = now;
            self.under_way.pressure = self.db.pressure();
        }
        self.under_way.pressure >= PRESSURE_MAX
    }

    fn link_up(&mut self, now: Millis, peer: NodeId, number: u64, outbox: Arc<crate::peers::Outbox>) {
        if self.under_way.stopping.as_ref().is_some_and(|stopping| stopping.links_closed) {
            return outbox.close(None);
        }
        let link = Link { number, outbox, messages: Vec::new() };
        if let Some(older) = self.under_way.links.insert(peer, link) {
            older.outbox.close(None);
            self.handle(now, Event::Link { peer, up: false });
        }
        self.under_way.topology_changed = true;
        self.handle(now, Event::Link { peer, up: true });
    }

    fn link_down(&mut self, now: Millis, peer: NodeId, number: u64) {
        // An older link of a peer that has a newer one says nothing.
        if self.under_way.links.get(&peer).is_some_and(|link| link.number == number) {
            self.under_way.links.remove(&peer);
            self.under_way.topology_changed = true;
            self.handle(now, Event::Link { peer, up: false });
        }
    }

    fn notice(&mut self, notice: Notice) {
        let m = &self.metrics;
        match &notice {
            Notice::CatalogChanged => {
                self.under_way.topology_changed = true;
                tracing::info!("catalog_changed");
            }
            Notice::HintsHome { target } => tracing::info!(target = ?target, "hints_home"),
            Notice::ReadRepair { .. } => m.notices_read_repair.add(1),
            Notice::Joined { recognised } => tracing::info!(recognised, "joined"),
            Notice::Member { node, state } => tracing::info!(?node, ?state, "member"),
            Notice::AddressChanged { node, address } => {
                tracing::warn!(?node, address, "member_address_changed");
            }
            Notice::EmptyDisk { node, disk } => tracing::warn!(?node, ?disk, "member_disk_is_empty"),
            Notice::OldDisk { node, disk } => tracing::error!(?node, ?disk, "member_disk_is_old"),
            Notice::Forgotten { node, disk } => tracing::warn!(?node, ?disk, "member_disk_is_forgotten"),
            Notice::WroteBack { keyspace, key } => {
                m.notices_wrote_back.add(1);
                tracing::debug!(keyspace, key = %key.escape_ascii(), "resolution_stored");
            }
            Notice::PluginFailed { plugin, keyspace, reason } => {
                tracing::warn!(%plugin, keyspace, reason, "plugin_failed");
            }
            Notice::SetAside { keyspace, key, reason } => {
                tracing::warn!(keyspace, key = %key.escape_ascii(), reason, "operand_set_aside");
            }
            Notice::BreakerTripped { keyspace, key } => {
                m.notices_breaker.add(1);
                tracing::warn!(keyspace, key = %key.escape_ascii(), "resolutions_stopped");
            }
            Notice::LargeContext { keyspace, key, spans } => {
                m.notices_large_context.add(1);
                tracing::warn!(keyspace, key = %key.escape_ascii(), spans, "large_context");
            }
            Notice::KeyTooLarge { keyspace, key, size_bytes } => {
                m.notices_key_too_large.add(1);
                tracing::warn!(keyspace, key = %key.escape_ascii(), size_bytes, "key_too_large");
            }
            Notice::CorruptRecord { key, reason } => {
                m.notices_corrupt_record.add(1);
                tracing::error!(storage_key = %key.escape_ascii(), reason, "corrupt_record");
            }
            Notice::RangeLost { keyspace, from, to, peers } => {
                m.notices_range_lost.add(1);
                let (from, to) = (from.escape_ascii(), to.escape_ascii());
                tracing::error!(keyspace, %from, %to, ?peers, "keys_may_be_lost");
            }
            Notice::Amnesia { seen, issued } => {
                m.notices_amnesia.add(1);
                tracing::error!(%seen, issued, "amnesia");
            }
            Notice::Divergence { keyspace, key, mine, theirs, peer, suspect } => {
                let key = key.escape_ascii();
                tracing::error!(keyspace, %key, ?mine, ?theirs, ?peer, ?suspect, "replicas_diverge");
            }
            Notice::LeafCorrected { keyspace, slot } => {
                tracing::error!(keyspace = keyspace.0, slot = slot.0, "leaf_corrected");
            }
            Notice::DotReused { dot, key } => {
                m.notices_dot_reused.add(1);
                tracing::error!(%dot, storage_key = %key.escape_ascii(), "dot_reused");
            }
        }
    }

    fn snapshot(&mut self, now: Millis) -> Snapshot {
        let status = self.node.status();
        let m = &self.metrics;
        let turns = m.driver_turns.get().max(1) as f64;
        let mut metrics = vec![
            metric(
                "events_per_turn",
                "Events that one turn of the driver handles, on average.",
                m.driver_events.get() as f64 / turns,
            ),
            metric("in_flight", "Requests in flight.", status.in_flight as f64),
            metric("links", "Links to peers that are up.", self.under_way.links.len() as f64),
            metric(
                "plugin_queue_bytes",
                "Input of plugin calls that wait.",
                self.plugins.waiting_bytes() as f64,
            ),
            metric(
                "plugin_breakers_open",
                "Breakers of a keyspace and plugin that are open.",
                self.plugins.breakers_open() as f64,
            ),
        ];
        metrics.extend(m.list());
        metrics.extend(metrics::of_storage(&self.db.metrics(), self.db.pressure()));
        metrics.extend(status.metrics.iter().map(|(name, help, value)| metric(name, help, *value)));
        Snapshot {
            actor: status.incarnation.actor.0,
            members: self.node.members(now),
            hints: self.node.hints(now),
            repair: self.node.repair_views(now),
            scrub: self.node.scrub(),
            collection: self.node.collection(now),
            hot_keys: self.node.hot_keys(now),
            metrics,
        }
    }

    /// Closes all links; peers see it and go on without this node.
    pub(super) fn close_links(&mut self, now: Millis) {
        let links = std::mem::take(&mut self.under_way.links);
        for (peer, link) in links {
            link.outbox.close(None);
            self.handle(now, Event::Link { peer, up: false });
        }
    }
}

/// Messages share buffers of so many bytes …
const BUFFER_BYTES: usize = 64 << 10;
/// … but for larger ones than this: what waits for a slow peer pins the whole of what it shares.
const SHARING_BYTES_MAX: usize = 4 << 10;

/// A message that goes to several peers in a row is encoded once.
struct Encoded {
    last: Option<(Message, Bytes)>,
    buffer: BytesMut,
}

impl Encoded {
    fn bytes(&mut self, message: Message) -> Bytes {
        match &self.last {
            Some((last, bytes)) if same(last, &message) => bytes.clone(),
            _ => {
                let bytes = self.encode(&message);
                self.last = Some((message, bytes.clone()));
                bytes
            }
        }
    }

    fn encode(&mut self, message: &Message) -> Bytes {
        if message.size_hint_bytes() > SHARING_BYTES_MAX {
            return message.encode();
        }
        if self.buffer.capacity() == 0 {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
        message.encode_into(&mut self.buffer)
    }
}

/// Whether both are one message, told without comparing values: false where that is not certain.
fn same(a: &Message, b: &Message) -> bool {
    let shared = |a: &Bytes, b: &Bytes| a.as_ptr() == b.as_ptr() && a.len() == b.len();
    match (a, b) {
        (
            Message::Replicate { op, keyspace, key, record },
            Message::Replicate { op: op_b, keyspace: keyspace_b, key: key_b, record: record_b },
        ) => {
            op == op_b
                && keyspace == keyspace_b
                && shared(key, key_b)
                && shared(&record.head, &record_b.head)
                && shared(&record.body, &record_b.body)
        }
        (Message::Read { .. }, Message::Read { .. }) => a == b,
        _ => false,
    }
}
