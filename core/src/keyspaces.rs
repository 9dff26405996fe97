//! The catalog at work: settings by name and id, operators' changes, and modules on their way.
//!
//! ```text
//!   operator ─▶ change ─▶ own disk ─▶ push to peers ─▶ they say: same digest, module compiled ─▶ reply
//!   gossip   ─▶ digests differ ─▶ push ─▶ join; missing modules are fetched
//! ```
//!
//! In: admin requests (`operators`), peers' catalogs and modules (`modules`). Out: catalog writes, module loads, replies that
//! say which nodes are ready. Absent: what a policy does.

use crate::catalog::{Catalog, CatalogDigest, KeyspaceEntry, PluginEntry, Revision};
use crate::config::Config;
use crate::event::{Durability, Effect, Effects, Notice, Record, WriteOp};
use crate::id::{KeyspaceId, Millis, NodeId, PluginHash};
use crate::message::Message;
use crate::node::{Node, Purpose};
use crate::storage_key;
use crate::version::Stamp;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod modules;
mod operators;

use modules::{Loading, module_record};
use operators::Wait;

/// The catalog, and who is ready for it.
pub(crate) struct Keyspaces {
    catalog: Catalog,
    digest: CatalogDigest,
    by_name: BTreeMap<String, Arc<KeyspaceEntry>>,
    by_id: BTreeMap<KeyspaceId, Arc<KeyspaceEntry>>,
    built_in: Vec<PluginEntry>,
    built_in_compiled: bool,
    ready: BTreeSet<PluginHash>,
    loading: BTreeMap<PluginHash, Loading>,
    waits: Vec<Wait>,
}

impl Keyspaces {
    pub(crate) fn new(catalog: Catalog, config: &Config) -> Keyspaces {
        let mut keyspaces = Keyspaces {
            digest: catalog.digest(),
            catalog,
            by_name: BTreeMap::new(),
            by_id: BTreeMap::new(),
            ready: match config.built_in_compiled {
                true => config.built_in.iter().map(|plugin| plugin.hash).collect(),
                false => BTreeSet::new(),
            },
            built_in: config.built_in.clone(),
            built_in_compiled: config.built_in_compiled,
            loading: BTreeMap::new(),
            waits: Vec::new(),
        };
        keyspaces.index();
        keyspaces
    }

    fn index(&mut self) {
        self.digest = self.catalog.digest();
        self.by_name.clear();
        self.by_id.clear();
        for entry in self.catalog.keyspaces.values() {
            let entry = Arc::new(entry.clone());
            self.by_name.insert(entry.name.clone(), entry.clone());
            self.by_id.insert(entry.id, entry);
        }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What the catalog comes to.
    pub(crate) fn digest(&self) -> CatalogDigest {
        self.digest
    }

    /// Plugins that this node holds, compiled.
    pub(crate) fn ready(&self) -> Vec<PluginHash> {
        self.ready.iter().copied().collect()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<KeyspaceEntry>> {
        self.by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: KeyspaceId) -> Option<Arc<KeyspaceEntry>> {
        self.by_id.get(&id).cloned()
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<KeyspaceEntry>> + '_ {
        self.by_id.values().cloned()
    }

    /// Plugins that are not removed, built-in ones first.
    fn plugins(&self) -> impl Iterator<Item = &PluginEntry> {
        self.built_in.iter().chain(self.catalog.plugins.values().filter(|plugin| !plugin.removed))
    }

    /// A plugin by its hash in hex, or the latest that was pushed under a name.
    fn plugin(&self, name: &str) -> Option<&PluginEntry> {
        let by_hash = self.plugins().find(|plugin| plugin.hash.to_string() == name);
        by_hash.or_else(|| {
            let named = self.plugins().filter(|plugin| plugin.name == name);
            named.max_by_key(|plugin| plugin.revision)
        })
    }

    fn users(&self, hash: PluginHash) -> Vec<String> {
        let uses =
            |entry: &&KeyspaceEntry| entry.settings.policy.plugin().is_some_and(|plugin| plugin.hash == hash);
        self.catalog.keyspaces.values().filter(uses).map(|entry| entry.name.clone()).collect()
    }
}

impl Node {
    fn revision(&mut self, now: Millis) -> Revision {
        Revision { stamp: self.clock.issue(now, Stamp::default()), node: self.config.node }
    }

    /// The catalog is another: index it, keep it, tell the peers.
    fn catalog_changed(&mut self, effects: &mut Effects) {
        self.keep_catalog(effects);
        let peers: Vec<NodeId> = self.linked().collect();
        for to in peers {
            let catalog = self.keyspaces.catalog.clone();
            effects.push(Effect::Send { to, message: Message::CatalogPush { catalog } });
        }
        self.own_catalog_changed(effects);
        self.load_plugins(effects);
    }

    /// Indexes the catalog as it is now, stores it, and says so.
    fn keep_catalog(&mut self, effects: &mut Effects) {
        self.keyspaces.index();
        let op = self.catalog_op();
        self.write_own(op, effects);
        effects.push(Effect::Notice(Notice::CatalogChanged));
    }

    /// The write that keeps the catalog.
    pub(crate) fn catalog_op(&self) -> WriteOp {
        let record = Record { head: Bytes::new(), body: self.keyspaces.catalog.encode() };
        WriteOp::Put { key: storage_key::catalog(), record }
    }

    /// The writes that keep the modules that are at hand.
    pub(crate) fn module_ops(&self) -> Vec<WriteOp> {
        let at_hand = self.keyspaces.loading.iter().filter_map(|(hash, loading)| {
            let module = loading.module.as_ref()?;
            Some(WriteOp::Put { key: storage_key::module(*hash), record: module_record(module) })
        });
        at_hand.collect()
    }

    fn write_own(&mut self, op: WriteOp, effects: &mut Effects) {
        let ticket = self.ticket(Purpose::Own);
        effects.push(Effect::Write { ticket, ops: vec![op], durability: Durability::Sync });
    }

    /// A peer's catalog comes in.
    pub(crate) fn catalog_pushed(
        &mut self,
        now: Millis,
        from: NodeId,
        catalog: Catalog,
        effects: &mut Effects,
    ) {
        let theirs = catalog.digest();
        if self.keyspaces.catalog.join(&catalog) {
            self.keep_catalog(effects);
            self.load_plugins(effects);
            self.own_catalog_changed(effects);
        }
        if self.keyspaces.digest == theirs {
            self.tell_own(from, effects);
        } else {
            self.push_catalog(now, from, effects);
        }
    }

    /// Members may have said that they know and hold more: modules that are missing here are asked
    /// for again, and operators who wait are told.
    pub(crate) fn members_are_ready(&mut self, now: Millis, effects: &mut Effects) {
        let loading = self.keyspaces.loading.iter();
        let missing: Vec<PluginHash> =
            loading.filter(|(_, loading)| !loading.local).map(|(hash, _)| *hash).collect();
        missing.into_iter().for_each(|hash| self.fetch(hash, effects));
        self.end_waits(now, effects);
    }

    pub(crate) fn push_catalog(&mut self, _now: Millis, to: NodeId, effects: &mut Effects) {
        let catalog = self.keyspaces.catalog.clone();
        effects.push(Effect::Send { to, message: Message::CatalogPush { catalog } });
    }

    /// Whether `node` has said that it holds a module, compiled.
    fn holds(&self, node: NodeId, hash: PluginHash) -> bool {
        let k = &self.keyspaces;
        let own = node == self.config.node && k.ready.contains(&hash);
        let built_in = k.built_in_compiled && k.built_in.iter().any(|plugin| plugin.hash == hash);
        own || built_in || self.membership.has_ready(node, hash)
    }

    /// Whether `node` has said that its catalog is as this one.
    fn agrees(&self, node: NodeId) -> bool {
        self.membership.catalog_of(node) == Some(self.keyspaces.digest)
    }
}
