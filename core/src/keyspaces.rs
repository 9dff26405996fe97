//! The catalog at work: settings by name and id, operators' changes, and modules on their way.
//!
//! ```text
//!   operator ─▶ change ─▶ own disk ─▶ push to peers ─▶ they say: same digest, module compiled ─▶ reply
//!   gossip   ─▶ digests differ ─▶ push ─▶ join; missing modules are fetched
//! ```
//!
//! In: admin requests, peers' catalogs and modules. Out: catalog writes, module loads, replies that
//! say which nodes are ready. Absent: what a policy does.

use crate::admin::{AdminProblem, AdminReply, AdminRequest, KeyspaceView, PluginView};
use crate::catalog::{
    Catalog, CatalogDigest, KeyspaceEntry, PluginEntry, PluginRef, Policy, Revision, Settings,
};
use crate::config::Config;
use crate::event::{Durability, Effect, Effects, Notice, Record, StorageFailure, WriteOp};
use crate::id::{ClientTicket, KeyspaceId, Millis, NodeId, PluginHash};
use crate::message::Message;
use crate::node::{Node, Purpose};
use crate::plugin::{PluginFacts, World};
use crate::storage_key;
use crate::version::Stamp;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long an operator's reply waits for the other nodes.
const READY_PATIENCE_MS: u64 = 25_000;
/// Operators who wait; beyond, the one who came first is told how far it has come.
const WAITS_MAX: usize = 256;
/// Bytes of a module in one message.
const CHUNK_BYTES: usize = 256 << 10;
/// Largest module that is fetched from a peer.
const MODULE_BYTES_MAX: u64 = 64 << 20;

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

/// A module that is not ready here yet.
struct Loading {
    /// Read from the disk, or compiling; otherwise it is fetched from peers.
    local: bool,
    bytes: BytesMut,
    /// Operators who uploaded it, and under which name.
    uploads: Vec<(ClientTicket, String)>,
    module: Option<Bytes>,
}

/// An operator who waits for the other nodes.
struct Wait {
    ticket: ClientTicket,
    until: Millis,
    what: What,
}

enum What {
    Keyspace(String),
    Plugin(PluginHash),
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
    /// Modules of the catalog that are not at hand yet are read from the disk.
    pub(crate) fn load_plugins(&mut self, effects: &mut Effects) {
        let k = &self.keyspaces;
        let missing = |hash: &&PluginHash| !k.ready.contains(*hash) && !k.loading.contains_key(*hash);
        let live = k.catalog.plugins.values().filter(|plugin| !plugin.removed).map(|plugin| &plugin.hash);
        let hashes: Vec<PluginHash> = live.filter(missing).copied().collect();
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
    fn fetch(&mut self, hash: PluginHash, effects: &mut Effects) {
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

    /// An operator asks.
    pub(crate) fn admin(
        &mut self,
        now: Millis,
        ticket: ClientTicket,
        request: AdminRequest,
        effects: &mut Effects,
    ) {
        let reply = match request {
            AdminRequest::CreateKeyspace { name, settings } => {
                match self.create_keyspace(now, name, settings) {
                    Ok(name) => {
                        self.catalog_changed(effects);
                        return self.wait(now, ticket, What::Keyspace(name), effects);
                    }
                    Err(problem) => AdminReply::Failed(problem),
                }
            }
            AdminRequest::UpdateKeyspace { name, settings } => {
                match self.update_keyspace(now, &name, settings) {
                    Ok(()) => {
                        self.catalog_changed(effects);
                        return self.wait(now, ticket, What::Keyspace(name), effects);
                    }
                    Err(problem) => AdminReply::Failed(problem),
                }
            }
            AdminRequest::GetKeyspace { name } => match self.keyspaces.catalog.keyspaces.get(&name) {
                Some(entry) => AdminReply::Keyspaces(vec![self.keyspace_view(entry.clone())]),
                None => AdminReply::Failed(AdminProblem::NotFound { what: "keyspace", name }),
            },
            AdminRequest::ListKeyspaces => {
                let entries: Vec<KeyspaceEntry> =
                    self.keyspaces.catalog.keyspaces.values().cloned().collect();
                AdminReply::Keyspaces(entries.into_iter().map(|entry| self.keyspace_view(entry)).collect())
            }
            AdminRequest::UploadPlugin { name, module } => {
                return self.upload(now, ticket, name, module, effects);
            }
            AdminRequest::GetPlugin { plugin } => match self.keyspaces.plugin(&plugin) {
                Some(entry) => AdminReply::Plugins(vec![self.plugin_view(entry.clone())]),
                None => AdminReply::Failed(AdminProblem::NotFound { what: "plugin", name: plugin }),
            },
            AdminRequest::ListPlugins => {
                let entries: Vec<PluginEntry> = self.keyspaces.plugins().cloned().collect();
                AdminReply::Plugins(entries.into_iter().map(|entry| self.plugin_view(entry)).collect())
            }
            AdminRequest::RemovePlugin { plugin } => match self.remove_plugin(now, &plugin) {
                Ok(view) => {
                    self.catalog_changed(effects);
                    AdminReply::Plugins(vec![view])
                }
                Err(problem) => AdminReply::Failed(problem),
            },
        };
        effects.push(Effect::AdminReply { ticket, reply });
    }

    fn create_keyspace(
        &mut self,
        now: Millis,
        name: String,
        settings: Settings,
    ) -> Result<String, AdminProblem> {
        KeyspaceEntry::check_name(&name)
            .map_err(|reason| AdminProblem::InvalidArgument { field: "name", reason })?;
        if self.keyspaces.catalog.keyspaces.contains_key(&name) {
            return Err(AdminProblem::AlreadyExists { what: "keyspace", name });
        }
        let id = KeyspaceEntry::id_of(&name);
        if let Some(other) = self.keyspaces.by_id(id) {
            let reason = format!("has the same id as {:?}; choose another name", other.name);
            return Err(AdminProblem::InvalidArgument { field: "name", reason });
        }
        // Two sides of a partition must not make one name mean two kinds of state.
        let members = self.config.members.len();
        let reachable = 1 + self.linked().count();
        if reachable < members / 2 + 1 {
            let reason =
                format!("{reachable} of {members} nodes can be reached; a keyspace is created at a majority");
            return Err(AdminProblem::Refused(reason));
        }
        let settings = self.checked(settings)?;
        let revision = self.revision(now);
        let entry = KeyspaceEntry { id, name: name.clone(), settings, epoch: 1, revision };
        self.keyspaces.catalog.keyspaces.insert(name.clone(), entry);
        Ok(name)
    }

    fn update_keyspace(&mut self, now: Millis, name: &str, settings: Settings) -> Result<(), AdminProblem> {
        let Some(entry) = self.keyspaces.catalog.keyspaces.get(name).cloned() else {
            return Err(AdminProblem::NotFound { what: "keyspace", name: name.to_owned() });
        };
        let settings = self.checked(settings)?;
        if settings.policy.kind() != entry.settings.policy.kind() {
            let reason = "cannot change between siblings/resolver, lww and lattice: the stored states differ; create \
                          another keyspace";
            return Err(AdminProblem::InvalidArgument { field: "policy", reason: reason.to_owned() });
        }
        if settings.n != entry.settings.n {
            let reason = format!("is fixed when a keyspace is created ({})", entry.settings.n);
            return Err(AdminProblem::InvalidArgument { field: "n", reason });
        }
        let same = settings.policy == entry.settings.policy
            && settings.plugin_config == entry.settings.plugin_config;
        let epoch = if same { entry.epoch } else { entry.epoch + 1 };
        let revision = self.revision(now);
        let entry = KeyspaceEntry { settings, epoch, revision, ..entry };
        self.keyspaces.catalog.keyspaces.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Settings that can be, with the policy's plugin pinned to the bytes that its name means now.
    fn checked(&self, mut settings: Settings) -> Result<Settings, AdminProblem> {
        settings.check().map_err(|(field, reason)| AdminProblem::InvalidArgument { field, reason })?;
        let Some(named) = settings.policy.plugin() else { return Ok(settings) };
        let Some(plugin) = self.keyspaces.plugin(&named.name) else {
            return Err(AdminProblem::NotFound { what: "plugin", name: named.name.clone() });
        };
        let pinned = PluginRef { name: named.name.clone(), hash: plugin.hash };
        settings.policy = match (settings.policy, plugin.world) {
            (Policy::Resolver(_), World::Resolver) => Policy::Resolver(pinned),
            (Policy::Lattice(_), World::Lattice | World::ReplicatedType) => Policy::Lattice(pinned),
            (_, world) => {
                let reason = format!("{:?} is a {world:?}; use the policy of its kind", pinned.name);
                return Err(AdminProblem::InvalidArgument { field: "policy", reason });
            }
        };
        Ok(settings)
    }

    fn upload(
        &mut self,
        now: Millis,
        ticket: ClientTicket,
        name: String,
        module: Bytes,
        effects: &mut Effects,
    ) {
        let hash = PluginHash(*blake3::hash(&module).as_bytes());
        let known = self.keyspaces.plugins().find(|plugin| plugin.hash == hash).cloned();
        if let Some(entry) = known
            && (name.is_empty() || name == entry.name)
            && self.keyspaces.ready.contains(&hash)
        {
            // The same bytes under the same name: done before.
            return self.wait(now, ticket, What::Plugin(hash), effects);
        }
        let loading = self.keyspaces.loading.entry(hash).or_insert_with(|| Loading::new(true));
        loading.module = Some(module.clone());
        loading.local = true;
        loading.uploads.push((ticket, name));
        effects.push(Effect::LoadPlugin { hash, module });
    }

    fn remove_plugin(&mut self, now: Millis, plugin: &str) -> Result<PluginView, AdminProblem> {
        let Some(entry) = self.keyspaces.plugin(plugin).cloned() else {
            return Err(AdminProblem::NotFound { what: "plugin", name: plugin.to_owned() });
        };
        if entry.built_in {
            return Err(AdminProblem::Refused(format!("{:?} is built in", entry.name)));
        }
        let users = self.keyspaces.users(entry.hash);
        if !users.is_empty() {
            let reason =
                format!("{:?} is in use by {}; change their policy first", entry.name, users.join(", "));
            return Err(AdminProblem::Refused(reason));
        }
        let revision = self.revision(now);
        let view = self.plugin_view(entry.clone());
        self.keyspaces.catalog.plugins.insert(entry.hash, PluginEntry { removed: true, revision, ..entry });
        Ok(view)
    }

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

    fn wait(&mut self, now: Millis, ticket: ClientTicket, what: What, effects: &mut Effects) {
        self.keyspaces.waits.push(Wait { ticket, until: now.after(READY_PATIENCE_MS), what });
        if self.keyspaces.waits.len() > WAITS_MAX
            && let Some(first) = self.keyspaces.waits.first_mut()
        {
            first.until = now;
        }
        self.end_waits(now, effects);
    }

    /// Answers operators whose change every node in reach is ready for, or who have waited long enough.
    fn end_waits(&mut self, now: Millis, effects: &mut Effects) {
        for wait in std::mem::take(&mut self.keyspaces.waits) {
            let (reply, all_ready) = match &wait.what {
                What::Keyspace(name) => match self.keyspaces.catalog.keyspaces.get(name).cloned() {
                    Some(entry) => {
                        let view = self.keyspace_view(entry);
                        let all_ready = !self.any_reachable(&view.waiting);
                        (AdminReply::Keyspaces(vec![view]), all_ready)
                    }
                    None => continue,
                },
                What::Plugin(hash) => {
                    match self.keyspaces.plugins().find(|plugin| plugin.hash == *hash).cloned() {
                        Some(entry) => {
                            let view = self.plugin_view(entry);
                            let all_ready = !self.any_reachable(&view.waiting);
                            (AdminReply::Plugins(vec![view]), all_ready)
                        }
                        None => continue,
                    }
                }
            };
            if all_ready || wait.until <= now {
                effects.push(Effect::AdminReply { ticket: wait.ticket, reply });
            } else {
                self.keyspaces.waits.push(wait);
            }
        }
    }

    /// Nobody waits for nodes that are out of reach; the reply names them.
    fn any_reachable(&self, nodes: &[NodeId]) -> bool {
        nodes.iter().any(|node| self.is_reachable(*node))
    }

    fn keyspace_view(&self, entry: KeyspaceEntry) -> KeyspaceView {
        let plugin = entry.settings.policy.plugin().map(|plugin| plugin.hash);
        let (ready, waiting) = self.readiness(|node| {
            let holds = plugin.is_none_or(|hash| self.holds(node, hash));
            holds && (node == self.config.node || self.agrees(node))
        });
        KeyspaceView { entry, ready, waiting }
    }

    fn plugin_view(&self, entry: PluginEntry) -> PluginView {
        let keyspaces = self.keyspaces.users(entry.hash);
        let (ready, waiting) = self.readiness(|node| self.holds(node, entry.hash));
        PluginView { entry, keyspaces, ready, waiting }
    }

    fn readiness(&self, is_ready: impl Fn(NodeId) -> bool) -> (Vec<NodeId>, Vec<NodeId>) {
        self.config.members.iter().map(|member| member.ring.id).partition(|node| is_ready(*node))
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

impl Loading {
    fn new(local: bool) -> Loading {
        Loading { local, bytes: BytesMut::new(), uploads: Vec::new(), module: None }
    }
}

fn module_record(module: &Bytes) -> Record {
    Record { head: Bytes::new(), body: module.clone() }
}
