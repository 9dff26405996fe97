//! The Plugins service: uploads in bounded pieces, and what is there.
//!
//! In: a header and chunks. Out: the module, whole, for core; a size that is announced or sent
//! above the limit ends the upload at once. Few uploads at a time are held in memory. Absent:
//! compiling and distribution.

use super::{Shared, gone, problem};
use bytes::{Bytes, BytesMut};
use merganser_core::admin::{AdminReply, AdminRequest, PluginView};
use merganser_core::plugin::World;
use merganser_plugin_host::PluginHash;
use merganser_proto::v1::plugins_server::Plugins;
use merganser_proto::v1::{self, UploadReply, UploadRequest, upload_request::Part};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

/// Uploads at a time.
const UPLOADS_MAX: usize = 4;
/// An upload that sends nothing for so long is given up.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// A whole upload that takes longer is given up, however steadily it trickles: its place is another's turn.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// See the head of this file.
pub(crate) struct PluginsService {
    shared: Shared,
    module_bytes_max: usize,
    uploads: Semaphore,
}

impl PluginsService {
    pub(crate) fn new(shared: Shared, module_bytes_max: usize) -> PluginsService {
        PluginsService { shared, module_bytes_max, uploads: Semaphore::new(UPLOADS_MAX) }
    }

    async fn views(&self, request: AdminRequest) -> Result<Vec<PluginView>, Status> {
        match self.shared.door.ask_admin(request).await.ok_or_else(gone)? {
            AdminReply::Plugins(views) => Ok(views),
            AdminReply::Failed(problem) => Err(problem::admin_status(problem)),
            AdminReply::Keyspaces(_) => Err(Status::internal("core answered another question")),
        }
    }

    async fn one(&self, request: AdminRequest) -> Result<PluginView, Status> {
        let mut views = self.views(request).await?;
        views.pop().ok_or_else(|| Status::internal("core answered without the plugin"))
    }

    /// The name that was given, and the whole module.
    async fn receive(&self, parts: &mut Streaming<UploadRequest>) -> Result<(String, Bytes), Status> {
        let Some(Part::Header(header)) = next(parts).await? else {
            return Err(problem::invalid("header", "must come first"));
        };
        let limit = self.module_bytes_max;
        if header.size_bytes > limit as u64 {
            return Err(problem::too_large("module", header.size_bytes, limit as u64));
        }
        let announced = header.size_bytes as usize;
        let mut module = BytesMut::with_capacity(announced);
        while let Some(part) = next(parts).await? {
            let Part::Chunk(chunk) = part else {
                return Err(problem::invalid("header", "came twice"));
            };
            let size = module.len() + chunk.len();
            if size > limit {
                return Err(problem::too_large("module", size as u64, limit as u64));
            }
            if announced != 0 && size > announced {
                return Err(problem::invalid("size_bytes", format!("was {announced}, and more came")));
            }
            module.extend_from_slice(&chunk);
        }
        if announced != 0 && module.len() != announced {
            return Err(problem::invalid(
                "size_bytes",
                format!("was {announced}, and {} came", module.len()),
            ));
        }
        if module.is_empty() {
            return Err(problem::invalid("chunk", "no bytes came"));
        }
        Ok((header.name, module.freeze()))
    }

    fn say(&self, view: &PluginView) -> v1::Plugin {
        let entry = &view.entry;
        // Of a built-in module more is known once it has been compiled here.
        let loaded = self.shared.host.get(&PluginHash(entry.hash.0)).filter(|_| entry.built_in);
        let (version, summary) = match loaded {
            Some(loaded) => (loaded.description.version, loaded.description.summary),
            None => (entry.version.clone(), entry.summary.clone()),
        };
        v1::Plugin {
            hash: Bytes::copy_from_slice(&entry.hash.0),
            name: entry.name.clone(),
            version,
            summary,
            world: match entry.world {
                World::Resolver => v1::World::Resolver,
                World::Lattice => v1::World::Lattice,
                World::ReplicatedType => v1::World::ReplicatedType,
            }
            .into(),
            size_bytes: entry.size_bytes,
            built_in: entry.built_in,
            keyspaces: view.keyspaces.clone(),
        }
    }
}

async fn next(parts: &mut Streaming<UploadRequest>) -> Result<Option<Part>, Status> {
    let slow = |_| Status::deadline_exceeded(format!("nothing came for {} s", CHUNK_TIMEOUT.as_secs()));
    let part = tokio::time::timeout(CHUNK_TIMEOUT, parts.message()).await.map_err(slow)??;
    match part {
        Some(UploadRequest { part: Some(part) }) => Ok(Some(part)),
        Some(UploadRequest { part: None }) => Err(problem::invalid("part", "is missing")),
        None => Ok(None),
    }
}

#[tonic::async_trait]
impl Plugins for PluginsService {
    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<UploadReply>, Status> {
        let _slot = self.uploads.acquire().await.map_err(|_| gone())?;
        let mut parts = request.into_inner();
        let received = tokio::time::timeout(UPLOAD_TIMEOUT, self.receive(&mut parts)).await;
        let slow = |_| {
            let limit = UPLOAD_TIMEOUT.as_secs();
            Status::deadline_exceeded(format!("the upload took more than {limit} s; send it faster"))
        };
        let (name, module) = received.map_err(slow)??;
        let view = self.one(AdminRequest::UploadPlugin { name, module }).await?;
        let directory = &self.shared.directory;
        Ok(Response::new(UploadReply {
            plugin: Some(self.say(&view)),
            ready: directory.names(&view.ready),
            waiting: directory.names(&view.waiting),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetPluginRequest>,
    ) -> Result<Response<v1::GetPluginReply>, Status> {
        let view = self.one(AdminRequest::GetPlugin { plugin: request.into_inner().plugin }).await?;
        Ok(Response::new(v1::GetPluginReply { plugin: Some(self.say(&view)) }))
    }

    async fn list(
        &self,
        _: Request<v1::ListPluginsRequest>,
    ) -> Result<Response<v1::ListPluginsReply>, Status> {
        let views = self.views(AdminRequest::ListPlugins).await?;
        Ok(Response::new(v1::ListPluginsReply { plugins: views.iter().map(|view| self.say(view)).collect() }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemovePluginRequest>,
    ) -> Result<Response<v1::RemovePluginReply>, Status> {
        let view = self.one(AdminRequest::RemovePlugin { plugin: request.into_inner().plugin }).await?;
        Ok(Response::new(v1::RemovePluginReply { plugin: Some(self.say(&view)) }))
    }
}
