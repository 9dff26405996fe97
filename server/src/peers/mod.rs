//! Links to the other nodes: one bidirectional stream for each pair, many messages a frame.
//!
//! ```text
//!   driver ── Outbox::push, once a turn ──▶ outbox ── frames ──▶ stream ──▶ peer
//!   driver ◀── one input a frame ── link ◀── frames ── stream ◀── peer
//! ```
//!
//! In: messages of core. Out: messages of peers that proved themselves, and whether a link is up.
//! A link that ends is dialled again by the node with the lower id, with growing pauses; a newer
//! link of a peer replaces the older. Absent: acknowledgements and repetition. A message may be
//! lost with its link, and core knows that.

mod dial;
mod handshake;
mod layout;
mod link;
mod outbox;
mod refusals;

pub(crate) use dial::dial_all;
pub(crate) use handshake::Credentials;
pub(crate) use outbox::Outbox;
pub(crate) use refusals::Refusals;

use crate::config::Listen;
use crate::driver::Door;
use crate::metrics::Metrics;
use link::Shared;
use merganser_proto::internal::v1::Frame;
use merganser_proto::internal::v1::peer_server::{Peer, PeerServer};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// The largest frame that is read: a key's whole state may be so large.
const FRAME_BYTES_MAX: usize = merganser_core::limits::FRAME_BYTES_MAX;
/// Room for a link's messages on their way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Connections to the peer port: each member's, some that are being replaced, some strangers'.
pub(crate) const CONNECTIONS_SPARE: usize = 16;

/// All that links of this node share.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Shared>);

impl Peers {
    pub(crate) fn new(
        credentials: Credentials,
        queue_bytes_max: usize,
        listen: &Listen,
        door: Door,
        metrics: Arc<Metrics>,
        refusals: Arc<Refusals>,
        seed: [u8; 32],
    ) -> Peers {
        Peers(Arc::new(Shared {
            credentials,
            queue_bytes_max,
            keepalive_interval: Duration::from_millis(listen.peer_keepalive_interval_ms),
            keepalive_timeout: Duration::from_millis(listen.peer_keepalive_timeout_ms),
            door,
            metrics,
            refusals,
            random: Mutex::new(StdRng::from_seed(seed)),
        }))
    }

    /// The service of the peer port.
    pub(crate) fn service(&self) -> PeerServer<impl Peer> {
        PeerServer::new(self.clone())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// The server of the peer port, without its service.
    pub(crate) fn server(&self) -> tonic::transport::Server {
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(self.0.keepalive_interval))
            .http2_keepalive_timeout(Some(self.0.keepalive_timeout))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
            .max_concurrent_streams(4)
    }
}

#[tonic::async_trait]
impl Peer for Peers {
    type LinkStream = outbox::Outgoing;

    async fn link(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::LinkStream>, Status> {
        let outbox = Outbox::new(self.0.queue_bytes_max, Arc::clone(&self.0.metrics));
        let address = request.remote_addr();
        let session = link::accepted(Arc::clone(&self.0), request.into_inner(), Arc::clone(&outbox), address);
        tokio::spawn(session);
        Ok(Response::new(outbox::Outgoing(outbox)))
    }
}

/// A record that core lets through is one that storage takes, with the leaf and the markers of its batch; an answer of a plugin is one that core
/// takes; a client's call holds what a client may send.
#[cfg(test)]
mod tests {
    use crate::grpc::sizes::CALL_BYTES_MAX;
    use merganser_core::limits;
    use merganser_core::request::{CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, MERGED_BYTES_MAX, VALUE_BYTES_MAX};
    use merganser_core::version::context::CONTEXT_BYTES_MAX;
    use merganser_storage::limits as storage;

    #[test]
    fn every_bound_holds_the_one_before_it() {
        let request =
            VALUE_BYTES_MAX + KEY_BYTES_MAX + CONTEXT_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + (64 << 10);
        let answer = merganser_plugin_host::Limits::default().answer_bytes_max;
        let chain = [
            ("a client's request", request, "its message", CALL_BYTES_MAX),
            ("a client's value", VALUE_BYTES_MAX, "a plugin's answer", answer),
            ("a plugin's answer", answer, "a merged value", MERGED_BYTES_MAX),
            ("a merged value", MERGED_BYTES_MAX, "a client's part of a key", limits::CLIENT_STATE_BYTES_MAX),
            (
                "what sides of a partition took",
                limits::SIDES_MAX * limits::CLIENT_STATE_BYTES_MAX,
                "a record",
                limits::RECORD_BYTES_MAX,
            ),
            ("a record", limits::RECORD_BYTES_MAX, "a body", storage::BODY_BYTES_MAX),
            ("a record", limits::RECORD_BYTES_MAX + (1 << 20), "a write", storage::WRITE_BYTES_MAX),
            (
                "hints of a client's part for seven",
                7 * limits::CLIENT_STATE_BYTES_MAX,
                "a write",
                storage::WRITE_BYTES_MAX,
            ),
            ("a record", limits::RECORD_BYTES_MAX, "a message", limits::MESSAGE_BYTES_MAX),
            ("a message", limits::MESSAGE_BYTES_MAX + (1 << 10), "a frame", super::FRAME_BYTES_MAX),
        ];
        for (inner, inner_bytes, outer, outer_bytes) in chain {
            assert!(
                inner_bytes <= outer_bytes,
                "{inner} ({inner_bytes}) does not fit {outer} ({outer_bytes})"
            );
        }
    }
}
