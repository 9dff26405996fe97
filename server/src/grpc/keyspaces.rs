//! The Keyspaces service: settings between the wire's form and core's.
//!
//! In: settings in which zero means "the default" (create) or "as it is" (update), and a policy
//! in which a plugin is named. Out: whole settings, with the plugin pinned by its hash. Absent:
//! whether settings make sense together, which core says.

use super::{Shared, gone, problem};
use bytes::Bytes;
use merganser_core::admin::{AdminReply, AdminRequest, KeyspaceView, PluginView};
use merganser_core::catalog::{DeleteSemantics, OnUnvalidated, PluginRef, Policy, Settings};
use merganser_core::event::Durability;
use merganser_proto::v1::keyspaces_server::Keyspaces;
use merganser_proto::v1::{self, KeyspaceReply, KeyspaceSettings};
use tonic::{Request, Response, Status};

const N_DEFAULT: u32 = 3;

/// See the head of this file.
pub(crate) struct KeyspacesService(pub(crate) Shared);

impl KeyspacesService {
    async fn views(&self, request: AdminRequest) -> Result<Vec<KeyspaceView>, Status> {
        match self.0.door.ask_admin(request).await.ok_or_else(gone)? {
            AdminReply::Keyspaces(views) => Ok(views),
            AdminReply::Failed(problem) => Err(problem::admin_status(problem)),
            AdminReply::Plugins(_) => Err(Status::internal("core answered another question")),
        }
    }

    async fn view(&self, request: AdminRequest) -> Result<KeyspaceView, Status> {
        let mut views = self.views(request).await?;
        views.pop().ok_or_else(|| Status::internal("core answered without the keyspace"))
    }

    async fn one(&self, request: AdminRequest) -> Result<Response<KeyspaceReply>, Status> {
        let keyspace = self.say(self.view(request).await?);
        Ok(Response::new(KeyspaceReply { keyspace: Some(keyspace) }))
    }

    async fn plugin(&self, plugin: &str) -> Result<PluginView, Status> {
        let request = AdminRequest::GetPlugin { plugin: plugin.into() };
        match self.0.door.ask_admin(request).await.ok_or_else(gone)? {
            AdminReply::Plugins(mut views) => {
                views.pop().ok_or_else(|| Status::internal("core answered without the plugin"))
            }
            AdminReply::Failed(problem) => Err(problem::admin_status(problem)),
            AdminReply::Keyspaces(_) => Err(Status::internal("core answered another question")),
        }
    }

    /// `siblings`, `lww`, `resolver:<plugin>`, `lattice:<plugin>`.
    async fn policy(&self, text: &str) -> Result<Policy, Status> {
        let (kind, plugin) = text.split_once(':').map_or((text, None), |(kind, name)| (kind, Some(name)));
        match (kind, plugin) {
            ("siblings", None) => Ok(Policy::Siblings),
            ("lww", None) => Ok(Policy::Lww),
            ("resolver" | "lattice", Some(plugin)) if !plugin.is_empty() => {
                let view = self.plugin(plugin).await?;
                let plugin = PluginRef { name: view.entry.name, hash: view.entry.hash };
                Ok(if kind == "lattice" { Policy::Lattice(plugin) } else { Policy::Resolver(plugin) })
            }
            _ => Err(problem::invalid(
                "policy",
                format!("{text:?} is none; say siblings, lww, resolver:<plugin> or lattice:<plugin>"),
            )),
        }
    }

    /// `base` with what the operator gave.
    async fn settle(&self, base: Settings, given: KeyspaceSettings) -> Result<Settings, Status> {
        let mut settings = base;
        let majority = |n: u32| n / 2 + 1;
        if given.n != 0 && given.n != settings.n {
            // R and W that were not given follow N.
            (settings.n, settings.r, settings.w) = (given.n, majority(given.n), majority(given.n));
        }
        let numbers = [
            (given.r, &mut settings.r),
            (given.w, &mut settings.w),
            (given.siblings_max, &mut settings.siblings_max),
        ];
        for (given, setting) in numbers {
            if given != 0 {
                *setting = given;
            }
        }
        match v1::DeleteSemantics::try_from(given.delete_semantics) {
            Ok(v1::DeleteSemantics::UpdateWins) => {}
            Ok(v1::DeleteSemantics::DeleteWins) => settings.delete_semantics = DeleteSemantics::DeleteWins,
            Ok(v1::DeleteSemantics::PluginDecides) => {
                settings.delete_semantics = DeleteSemantics::PluginDecides;
            }
            Err(_) => return Err(problem::invalid("delete_semantics", "is none that this node knows")),
        }
        match v1::Durability::try_from(given.durability) {
            Ok(v1::Durability::Sync) => {}
            Ok(v1::Durability::Interval) => settings.durability = Durability::Interval,
            Ok(v1::Durability::None) => settings.durability = Durability::None,
            Err(_) => return Err(problem::invalid("durability", "is none that this node knows")),
        }
        match v1::Quorums::try_from(given.quorums) {
            Ok(v1::Quorums::Unspecified) => {}
            Ok(v1::Quorums::Sloppy) => settings.sloppy = true,
            Ok(v1::Quorums::Strict) => settings.sloppy = false,
            Err(_) => return Err(problem::invalid("quorums", "is none that this node knows")),
        }
        match v1::OnUnvalidated::try_from(given.on_unvalidated) {
            Ok(v1::OnUnvalidated::Unspecified) => {}
            Ok(v1::OnUnvalidated::Keep) => settings.on_unvalidated = OnUnvalidated::Keep,
            Ok(v1::OnUnvalidated::Refuse) => settings.on_unvalidated = OnUnvalidated::Refuse,
            Err(_) => return Err(problem::invalid("on_unvalidated", "is none that this node knows")),
        }
        if given.ttl_ms != 0 {
            settings.ttl_ms = Some(given.ttl_ms);
        }
        if given.key_rate_max != 0 {
            settings.key_rate_max = Some(given.key_rate_max);
        }
        if !given.plugin_config.is_empty() {
            settings.plugin_config = given.plugin_config;
        }
        match (given.write_back_never, given.write_back_delay_ms) {
            (true, Some(_)) => {
                return Err(problem::invalid("write_back_never", "and write_back_delay_ms are both given"));
            }
            (true, None) => settings.write_back_delay_ms = None,
            (false, Some(delay)) => settings.write_back_delay_ms = Some(delay),
            (false, None) => {}
        }
        if !given.policy.is_empty() {
            settings.policy = self.policy(&given.policy).await?;
        }
        Ok(settings)
    }

    fn say(&self, view: KeyspaceView) -> v1::Keyspace {
        let KeyspaceView { entry, ready, waiting } = view;
        let directory = &self.0.directory;
        v1::Keyspace {
            name: entry.name,
            policy_epoch: entry.epoch,
            plugin_hash: entry
                .settings
                .policy
                .plugin()
                .map_or_else(Bytes::new, |plugin| Bytes::copy_from_slice(&plugin.hash.0)),
            settings: Some(settings(entry.settings)),
            prepared: Some(v1::Prepared {
                ready: directory.names(&ready),
                waiting: directory.names(&waiting),
            }),
        }
    }
}

fn settings(settings: Settings) -> KeyspaceSettings {
    let policy = match &settings.policy {
        Policy::Siblings => "siblings".into(),
        Policy::Lww => "lww".into(),
        Policy::Resolver(plugin) => format!("resolver:{}", plugin.name),
        Policy::Lattice(plugin) => format!("lattice:{}", plugin.name),
    };
    let delete_semantics = match settings.delete_semantics {
        DeleteSemantics::UpdateWins => v1::DeleteSemantics::UpdateWins,
        DeleteSemantics::DeleteWins => v1::DeleteSemantics::DeleteWins,
        DeleteSemantics::PluginDecides => v1::DeleteSemantics::PluginDecides,
    };
    let durability = match settings.durability {
        Durability::Sync => v1::Durability::Sync,
        Durability::Interval => v1::Durability::Interval,
        Durability::None => v1::Durability::None,
    };
    KeyspaceSettings {
        n: settings.n,
        r: settings.r,
        w: settings.w,
        policy,
        plugin_config: settings.plugin_config,
        delete_semantics: delete_semantics.into(),
        durability: durability.into(),
        siblings_max: settings.siblings_max,
        write_back_delay_ms: settings.write_back_delay_ms,
        write_back_never: settings.write_back_delay_ms.is_none(),
        quorums: if settings.sloppy { v1::Quorums::Sloppy } else { v1::Quorums::Strict }.into(),
        ttl_ms: settings.ttl_ms.unwrap_or(0),
        key_rate_max: settings.key_rate_max.unwrap_or(0),
        on_unvalidated: match settings.on_unvalidated {
            OnUnvalidated::Keep => v1::OnUnvalidated::Keep,
            OnUnvalidated::Refuse => v1::OnUnvalidated::Refuse,
        }
        .into(),
    }
}

/// `settings` with the named fields at their defaults.
fn set_back(mut settings: Settings, names: &[String]) -> Result<Settings, Status> {
    let default = Settings::new(Policy::Siblings);
    for name in names {
        match name.as_str() {
            "plugin_config" => settings.plugin_config = default.plugin_config.clone(),
            "delete_semantics" => settings.delete_semantics = default.delete_semantics,
            "durability" => settings.durability = default.durability,
            "siblings_max" => settings.siblings_max = default.siblings_max,
            "write_back_delay_ms" => settings.write_back_delay_ms = default.write_back_delay_ms,
            "quorums" => settings.sloppy = default.sloppy,
            "ttl_ms" => settings.ttl_ms = default.ttl_ms,
            "on_unvalidated" => settings.on_unvalidated = default.on_unvalidated,
            "key_rate_max" => settings.key_rate_max = default.key_rate_max,
            other => {
                let known = "plugin_config, delete_semantics, durability, siblings_max, write_back_delay_ms, quorums, ttl_ms, key_rate_max, on_unvalidated";
                return Err(problem::invalid(
                    "reset",
                    format!("there is no {other:?} to set back; there are {known}"),
                ));
            }
        }
    }
    Ok(settings)
}

#[tonic::async_trait]
impl Keyspaces for KeyspacesService {
    async fn create(
        &self,
        request: Request<v1::CreateKeyspaceRequest>,
    ) -> Result<Response<KeyspaceReply>, Status> {
        let v1::CreateKeyspaceRequest { name, settings } = request.into_inner();
        let given = settings.unwrap_or_default();
        let base = Settings { n: N_DEFAULT, ..Settings::new(Policy::Siblings) };
        let settings = self.settle(base, given).await?;
        self.one(AdminRequest::CreateKeyspace { name, settings }).await
    }

    async fn update(
        &self,
        request: Request<v1::UpdateKeyspaceRequest>,
    ) -> Result<Response<KeyspaceReply>, Status> {
        let v1::UpdateKeyspaceRequest { name, settings, reset } = request.into_inner();
        let now = self.view(AdminRequest::GetKeyspace { name: name.clone() }).await?;
        let base = set_back(now.entry.settings, &reset)?;
        let settings = self.settle(base, settings.unwrap_or_default()).await?;
        self.one(AdminRequest::UpdateKeyspace { name, settings }).await
    }

    async fn get(&self, request: Request<v1::GetKeyspaceRequest>) -> Result<Response<KeyspaceReply>, Status> {
        self.one(AdminRequest::GetKeyspace { name: request.into_inner().name }).await
    }

    async fn list(
        &self,
        _: Request<v1::ListKeyspacesRequest>,
    ) -> Result<Response<v1::ListKeyspacesReply>, Status> {
        let views = self.views(AdminRequest::ListKeyspaces).await?;
        let keyspaces = views.into_iter().map(|view| self.say(view)).collect();
        Ok(Response::new(v1::ListKeyspacesReply { keyspaces }))
    }
}
