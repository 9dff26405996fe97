//! What operators ask of the catalog, and when they are told that all nodes are ready for it.
//!
//! In: admin requests. Out: changes of the catalog, replies that name who is ready. Absent: how a change travels.

use super::modules::Loading;
use crate::admin::{AdminProblem, AdminReply, AdminRequest, KeyspaceView, PluginView};
use crate::catalog::{KeyspaceEntry, PluginEntry, PluginRef, Policy, Settings};
use crate::event::{Effect, Effects};
use crate::id::{ClientTicket, Millis, NodeId, PluginHash};
use crate::node::Node;
use crate::plugin::World;
use bytes::Bytes;

/// How long an operator's reply waits for the other nodes.
const READY_PATIENCE_MS: u64 = 25_000;
/// Operators who wait; beyond, the one who came first is told how far it has come.
const WAITS_MAX: usize = 256;

/// An operator who waits for the other nodes.
pub(super) struct Wait {
    ticket: ClientTicket,
    until: Millis,
    what: What,
}

pub(super) enum What {
    Keyspace(String),
    Plugin(PluginHash),
}

impl Node {
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

    pub(super) fn wait(&mut self, now: Millis, ticket: ClientTicket, what: What, effects: &mut Effects) {
        self.keyspaces.waits.push(Wait { ticket, until: now.after(READY_PATIENCE_MS), what });
        if self.keyspaces.waits.len() > WAITS_MAX
            && let Some(first) = self.keyspaces.waits.first_mut()
        {
            first.until = now;
        }
        self.end_waits(now, effects);
    }

    /// Answers operators whose change every node in reach is ready for, or who have waited long enough.
    pub(super) fn end_waits(&mut self, now: Millis, effects: &mut Effects) {
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

    pub(super) fn plugin_view(&self, entry: PluginEntry) -> PluginView {
        let keyspaces = self.keyspaces.users(entry.hash);
        let (ready, waiting) = self.readiness(|node| self.holds(node, entry.hash));
        PluginView { entry, keyspaces, ready, waiting }
    }

    fn readiness(&self, is_ready: impl Fn(NodeId) -> bool) -> (Vec<NodeId>, Vec<NodeId>) {
        self.config.members.iter().map(|member| member.ring.id).partition(|node| is_ready(*node))
    }
}
