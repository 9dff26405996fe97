//! Modules on their way: from the disk or from a peer to the compiler, and who uploaded them.
//!
//! In: modules that the catalog names, chunks of peers, what became of a compilation. Out: loads, requests for chunks. Absent:
//! which modules there should be.

use super::operators::What;
use crate::admin::{AdminProblem, AdminReply};
use crate::catalog::{KeyspaceEntry, PluginEntry};
use crate::event::{Effect, Effects, Record, StorageFailure, WriteOp};
use crate::id::{ClientTicket, Millis, NodeId, PluginHash};
use crate::message::Message;
use crate::node::{Node, Purpose};
use crate::plugin::{MODULE_BYTES_MAX, PluginFacts};
use crate::storage_key;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeSet;

/// Bytes of a module in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// A module that is not ready here yet.
pub(super) struct Loading {
    /// Read from the disk, or compiling; otherwise it is fetched from peers.
    pub(super) local: bool,
    bytes: BytesMut,
    /// Operators who uploaded it, and under which name.
    pub(super) uploads: Vec<(ClientTicket, String)>,
    pub(super) module: Option<Bytes>,
}

impl Loading {
    pub(super) fn new(local: bool) -> Loading {
        Loading { local, bytes: BytesMut::new(), uploads: Vec::new(), module: None }
    }
}

impl Node {
    /// Modules of the catalog that are not at hand yet are read from the disk.
    pub(crate) fn load_plugins(&mut self, effects: &mut Effects) {
        let k = &self.keyspaces;
        let missing = |hash: &&PluginHash| !k.ready.contains(*hash) && !k.loading.contains_key(*hash);
        let live = k.catalog.plugins.values().filter(|plugin| !plugin.removed).map(|plugin| &plugin.hash);
        let mut hashes: Vec<PluginHash> = live.filter(missing).copied().collect();
        // What keyspaces ask is compiled before what nothing uses yet.
        let entries = k.catalog.keyspaces.values();
        let asked: BTreeSet<PluginHash> =
            entries.filter_map(|entry| entry.settings.policy.plugin()).map(|plugin| plugin.hash).collect();
        hashes.sort_by_key(|hash| !asked.contains(hash));
        for hash in hashes {
            self.keyspaces.loading.insert(hash, Loading::new(true));
            let ticket = self.ticket(Purpose::Module(hash));
            effects.push(Effect::Read { ticket, key: storage_key::module(hash) });
        }
    }

    /// A module has been read from the disk, or is not there.
    pub(crate) fn module_read(
        &mut self,
        hash: PluginHash,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(loading) = self.keyspaces.loading.get_mut(&hash) else { return };
        match result {
            Ok(Some(record)) if blake3::hash(&record.body).as_bytes() == &hash.0 => {
                loading.module = Some(record.body.clone());
                effects.push(Effect::LoadPlugin { hash, module: record.body });
            }
            _ => {
                loading.local = false;
                self.fetch(hash, effects);
            }
        }
    }

    /// Asks the peers that have a module for its next bytes.
    pub(super) fn fetch(&mut self, hash: PluginHash, effects: &mut Effects) {
        let Some(loading) = self.keyspaces.loading.get(&hash).filter(|loading| !loading.local) else {
            return;
        };
        let offset = loading.bytes.len() as u64;
        if let Some(to) = self.linked().find(|node| self.membership.has_ready(*node, hash)) {
            effects.push(Effect::Send { to, message: Message::PluginFetch { hash, offset } });
        }
    }

    /// A peer lacks a module.
    pub(crate) fn plugin_fetch(
        &mut self,
        from: NodeId,
        hash: PluginHash,
        offset: u64,
        effects: &mut Effects,
    ) {
        let Some(module) = self.keyspaces.loading.get(&hash).and_then(|loading| loading.module.clone())
        else {
            return;
        };
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start < module.len()) else { return };
        let end = module.len().min(start + CHUNK_BYTES);
        let size_bytes = module.len() as u64;
        let message = Message::PluginChunk { hash, offset, size_bytes, bytes: module.slice(start..end) };
        effects.push(Effect::Send { to: from, message });
    }

    /// Some bytes of a module that this node lacks.
    pub(crate) fn plugin_chunk(
        &mut self,
        _from: NodeId,
        hash: PluginHash,
        offset: u64,
        size_bytes: u64,
        bytes: Bytes,
        effects: &mut Effects,
    ) {
        let Some(loading) = self.keyspaces.loading.get_mut(&hash).filter(|loading| !loading.local) else {
            return;
        };
        if size_bytes > MODULE_BYTES_MAX || offset != loading.bytes.len() as u64 {
            return;
        }
        loading.bytes.extend_from_slice(&bytes);
        if (loading.bytes.len() as u64) < size_bytes {
            return self.fetch(hash, effects);
        }
        let module = std::mem::take(&mut loading.bytes).freeze();
        if blake3::hash(&module).as_bytes() != &hash.0 {
            // Somebody sent other bytes: from the start, at the next period.
            return;
        }
        loading.local = true;
        loading.module = Some(module.clone());
        self.write_own(
            WriteOp::Put { key: storage_key::module(hash), record: module_record(&module) },
            effects,
        );
        effects.push(Effect::LoadPlugin { hash, module });
    }

    /// A module was compiled here, or refused.
    pub(crate) fn plugin_loaded(
        &mut self,
        now: Millis,
        hash: PluginHash,
        result: Result<PluginFacts, String>,
        effects: &mut Effects,
    ) {
        let uploads =
            self.keyspaces.loading.get_mut(&hash).map(|loading| std::mem::take(&mut loading.uploads));
        match result {
            Ok(facts) => {
                let is_new = self.keyspaces.ready.insert(hash);
                for (ticket, name) in uploads.unwrap_or_default() {
                    self.uploaded(now, ticket, hash, name, &facts, effects);
                }
                if is_new {
                    self.own_catalog_changed(effects);
                    self.end_waits(now, effects);
                }
            }
            Err(reason) => {
                // Kept among the loading ones where the catalog names it: not tried again.
                if !self.keyspaces.catalog.plugins.contains_key(&hash) {
                    self.keyspaces.loading.remove(&hash);
                }
                for (ticket, _) in uploads.unwrap_or_default() {
                    let problem = AdminProblem::InvalidArgument { field: "module", reason: reason.clone() };
                    effects.push(Effect::AdminReply { ticket, reply: AdminReply::Failed(problem) });
                }
            }
        }
    }

    fn uploaded(
        &mut self,
        now: Millis,
        ticket: ClientTicket,
        hash: PluginHash,
        name: String,
        facts: &PluginFacts,
        effects: &mut Effects,
    ) {
        let name = if name.is_empty() { facts.name.clone() } else { name };
        let problem = KeyspaceEntry::check_name(&name)
            .map_err(|reason| AdminProblem::InvalidArgument { field: "name", reason })
            .and_then(|()| {
                match self.keyspaces.built_in.iter().any(|plugin| plugin.name == name || plugin.hash == hash)
                {
                    true => Err(AdminProblem::Refused(format!(
                        "{name:?} is built in; push yours under another name"
                    ))),
                    false => Ok(()),
                }
            });
        if let Err(problem) = problem {
            effects.push(Effect::AdminReply { ticket, reply: AdminReply::Failed(problem) });
            return;
        }
        let entry = PluginEntry {
            hash,
            name,
            version: facts.version.clone(),
            summary: facts.summary.clone(),
            world: facts.world,
            size_bytes: facts.size_bytes,
            built_in: false,
            removed: false,
            revision: self.revision(now),
        };
        self.keyspaces.catalog.plugins.insert(hash, entry);
        if let Some(module) = self.keyspaces.loading.get(&hash).and_then(|loading| loading.module.clone()) {
            self.write_own(
                WriteOp::Put { key: storage_key::module(hash), record: module_record(&module) },
                effects,
            );
        }
        self.catalog_changed(effects);
        self.wait(now, ticket, What::Plugin(hash), effects);
    }
}

pub(super) fn module_record(module: &Bytes) -> Record {
    Record { head: Bytes::new(), body: module.clone() }
}
