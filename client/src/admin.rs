//! What operators ask for: keyspaces, plugins, the state of the cluster.
//!
//! In: names, settings, a module's bytes. Out: the wire's own messages, which are plain data here.
//! What changes something is repeated only where the earlier attempt had no effect for certain;
//! an upload is addressed by its content, so it may always be repeated.

use crate::{
    client::{Client, Repeat, Times},
    error::Error,
    link::{Link, MESSAGE_BYTES_MAX},
};
use bytes::Bytes;
use futures::stream;
use merganser_proto::v1::{
    self, cluster_client::ClusterClient, keyspaces_client::KeyspacesClient, plugins_client::PluginsClient,
    upload_request,
};
use std::{sync::Arc, time::Duration};
use tonic::{Response, Status, transport::Channel};

/// Of a module, in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// Admin calls of a cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
    timeout: Duration,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadProgress {
    /// Bytes handed to the connection.
    pub sent_bytes: u64,
    /// Bytes of the module.
    pub total_bytes: u64,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Admin {
        let timeout = client.inner.settings.timeout.max(Duration::from_secs(30));
        Admin { client, timeout }
    }

    /// The same calls with another time limit. 30 s: plugins are compiled on every node.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Admin {
        Admin { timeout, ..self.clone() }
    }

    /// Creates a keyspace; [`Error::AlreadyExists`] if the name is taken.
    pub async fn create_keyspace(
        &self,
        name: &str,
        settings: v1::KeyspaceSettings,
    ) -> Result<v1::Keyspace, Error> {
        let request = v1::CreateKeyspaceRequest { name: name.into(), settings: Some(settings) };
        let reply = self.ask_long(Repeat::Never, request, |link, request| async move {
            keyspaces(&link).create(request).await
        });
        of_reply(reply.await?.keyspace)
    }

    /// Changes settings; fields at their zero value stay as they were, those named in `reset` go
    /// back to their defaults.
    pub async fn update_keyspace(
        &self,
        name: &str,
        settings: v1::KeyspaceSettings,
        reset: Vec<String>,
    ) -> Result<v1::Keyspace, Error> {
        let request = v1::UpdateKeyspaceRequest { name: name.into(), settings: Some(settings), reset };
        let reply = self.ask_long(Repeat::Never, request, |link, request| async move {
            keyspaces(&link).update(request).await
        });
        of_reply(reply.await?.keyspace)
    }

    /// A keyspace and which nodes are ready for it.
    pub async fn keyspace(&self, name: &str) -> Result<v1::Keyspace, Error> {
        let request = v1::GetKeyspaceRequest { name: name.into() };
        let reply = self
            .ask(Repeat::Read, request, |link, request| async move { keyspaces(&link).get(request).await });
        of_reply(reply.await?.keyspace)
    }

    /// All keyspaces.
    pub async fn keyspaces(&self) -> Result<Vec<v1::Keyspace>, Error> {
        let request = v1::ListKeyspacesRequest {};
        let reply = self
            .ask(Repeat::Read, request, |link, request| async move { keyspaces(&link).list(request).await });
        Ok(reply.await?.keyspaces)
    }

    /// Uploads a module in chunks. An empty name means the one that the module gives itself.
    /// `progress` is called as chunks are taken by the connection.
    pub async fn upload_plugin(
        &self,
        name: &str,
        module: impl Into<Bytes>,
        progress: impl Fn(UploadProgress) + Send + Sync + 'static,
    ) -> Result<v1::UploadReply, Error> {
        let module: Bytes = module.into();
        let progress = Arc::new(progress);
        let header = v1::UploadHeader { name: name.into(), size_bytes: module.len() as u64 };
        self.ask_long(Repeat::Read, (header, module), move |link, (header, module)| {
            let progress = Arc::clone(&progress);
            async move { plugins(&link).upload(stream::iter(parts(header, module, progress))).await }
        })
        .await
    }

    /// A plugin by name or by hash in hex.
    pub async fn plugin(&self, plugin: &str) -> Result<v1::Plugin, Error> {
        let request = v1::GetPluginRequest { plugin: plugin.into() };
        let reply =
            self.ask(Repeat::Read, request, |link, request| async move { plugins(&link).get(request).await });
        of_reply(reply.await?.plugin)
    }

    /// All plugins, built-in ones too.
    pub async fn plugins(&self) -> Result<Vec<v1::Plugin>, Error> {
        let request = v1::ListPluginsRequest {};
        let reply = self
            .ask(Repeat::Read, request, |link, request| async move { plugins(&link).list(request).await });
        Ok(reply.await?.plugins)
    }

    /// Removes a plugin that no keyspace refers to.
    pub async fn remove_plugin(&self, plugin: &str) -> Result<v1::Plugin, Error> {
        let request = v1::RemovePluginRequest { plugin: plugin.into() };
        let reply = self.ask_long(Repeat::Never, request, |link, request| async move {
            plugins(&link).remove(request).await
        });
        of_reply(reply.await?.plugin)
    }

    /// The state of the node that answers first, and how it sees the others.
    pub async fn status(&self) -> Result<v1::StatusReply, Error> {
        self.ask(Repeat::Read, v1::StatusRequest {}, |link, request| async move {
            cluster(&link).status(request).await
        })
        .await
    }

    /// The state of the node at `address`, and how it sees the others.
    pub async fn status_of(&self, address: &str) -> Result<v1::StatusReply, Error> {
        self.ask_one(address, |mut node| async move { node.status(v1::StatusRequest {}).await }).await
    }

    /// What the node at `address` keeps for others.
    pub async fn hints_of(&self, address: &str) -> Result<v1::HintsReply, Error> {
        self.ask_one(address, |mut node| async move { node.hints(v1::HintsRequest {}).await }).await
    }

    /// How equal the data of the node at `address` is to that of the others.
    pub async fn repair_of(&self, address: &str) -> Result<v1::RepairReply, Error> {
        self.ask_one(address, |mut node| async move { node.repair(v1::RepairRequest {}).await }).await
    }

    /// How far the node at `address` has collected what deletes left behind.
    pub async fn collection_of(&self, address: &str) -> Result<v1::CollectionReply, Error> {
        self.ask_one(address, |mut node| async move { node.collection(v1::CollectionRequest {}).await }).await
    }

    /// The keys that the node at `address` is asked about most.
    pub async fn hot_keys_of(&self, address: &str) -> Result<v1::HotKeysReply, Error> {
        self.ask_one(address, |mut node| async move { node.hot_keys(v1::HotKeysRequest {}).await }).await
    }

    /// One node is asked for itself, once.
    async fn ask_one<R, F>(
        &self,
        address: &str,
        call: impl Fn(ClusterClient<Channel>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let address: Arc<str> = address.into();
        let attempt = |link: Arc<Link>, _| {
            let reply = call(cluster(&link));
            async move { reply.await.map(Response::into_inner).map_err(|status| link.error(&status)) }
        };
        self.client.attempt(&address, self.timeout.min(Duration::from_secs(5)), &attempt).await
    }

    async fn ask<Q, R, F>(
        &self,
        repeat: Repeat,
        request: Q,
        call: impl Fn(Arc<Link>, Q) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        // Reads go on to the next node as those of keys do.
        let times =
            Times { whole: self.timeout, attempt: self.client.inner.settings.attempt_timeout, hedged: false };
        self.ask_within(times, repeat, request, call).await
    }

    /// As `ask`; what makes the cluster work may take all the time there is.
    async fn ask_long<Q, R, F>(
        &self,
        repeat: Repeat,
        request: Q,
        call: impl Fn(Arc<Link>, Q) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let times = Times { whole: self.timeout, attempt: self.timeout, hedged: false };
        self.ask_within(times, repeat, request, call).await
    }

    async fn ask_within<Q, R, F>(
        &self,
        times: Times,
        repeat: Repeat,
        request: Q,
        call: impl Fn(Arc<Link>, Q) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.client
            .ask(None, times, repeat, |link, _| {
                let reply = call(Arc::clone(&link), request.clone());
                async move { reply.await.map(Response::into_inner).map_err(|status| link.error(&status)) }
            })
            .await
    }
}

fn keyspaces(link: &Link) -> KeyspacesClient<Channel> {
    KeyspacesClient::new(link.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

fn plugins(link: &Link) -> PluginsClient<Channel> {
    PluginsClient::new(link.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

fn cluster(link: &Link) -> ClusterClient<Channel> {
    ClusterClient::new(link.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The header, then the chunks; tells `progress` when each is taken.
fn parts(
    header: v1::UploadHeader,
    module: Bytes,
    progress: Arc<impl Fn(UploadProgress) + Send + Sync + 'static>,
) -> impl Iterator<Item = v1::UploadRequest> + Send + 'static {
    let total = module.len();
    let first = v1::UploadRequest { part: Some(upload_request::Part::Header(header)) };
    let chunks = (0..total).step_by(CHUNK_BYTES).map(move |start| {
        let end = (start + CHUNK_BYTES).min(total);
        progress(UploadProgress { sent_bytes: end as u64, total_bytes: total as u64 });
        v1::UploadRequest { part: Some(upload_request::Part::Chunk(module.slice(start..end))) }
    });
    std::iter::once(first).chain(chunks)
}

fn of_reply<T>(field: Option<T>) -> Result<T, Error> {
    field.ok_or_else(|| Error::protocol("a reply without its one field"))
}
