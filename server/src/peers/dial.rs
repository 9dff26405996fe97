//! Dialling: for each peer with a higher id, a link for as long as the node runs.
//!
//! In: the members' addresses. Out: links. After a failure the next attempt waits, twice as long
//! each time up to a cap, with jitter, so that nodes that lost each other do not come back in
//! step. Absent: what is said on a link.

use super::link::{self, Failure, Shared};
use super::outbox::{Outbox, Outgoing};
use super::{FRAME_BYTES_MAX, Peers, STREAM_WINDOW_BYTES, handshake};
use crate::config::Member;
use crate::surroundings::Network;
use merganser_core::id::NodeId;
use merganser_proto::internal::v1::frame;
use merganser_proto::internal::v1::peer_client::PeerClient;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::transport::Endpoint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Starts a dialler for each peer that this node is to dial. They end with the runtime.
pub(crate) fn dial_all<N: Network>(network: &N, peers: &Peers, this: NodeId, members: &[Member]) {
    for member in members {
        if handshake::dials(this, NodeId::from_name(&member.name)) {
            tokio::spawn(keep_up(network.clone(), Arc::clone(&peers.0), member.clone()));
        }
    }
}

async fn keep_up<N: Network>(network: N, shared: Arc<Shared>, member: Member) {
    let mut pause = PAUSE_FIRST;
    let mut told = None;
    loop {
        match dial(&network, &shared, &member).await {
            // It was up: the other side is well, or was a moment ago.
            Ok(()) => (pause, told) = (PAUSE_FIRST, None),
            Err(failure) => {
                // One line for each new reason; a peer that is away is not news twice.
                let reason = failure.to_string();
                if told.as_ref() != Some(&reason) {
                    tracing::warn!(peer = member.name, address = member.peer_address, reason, "link_failed");
                    told = Some(reason);
                }
            }
        }
        let jitter = shared.random.lock().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn dial<N: Network>(network: &N, shared: &Arc<Shared>, member: &Member) -> Result<(), Failure> {
    let broken = |error: &dyn std::error::Error| {
        let innermost = std::iter::successors(Some(error), |error| error.source()).last();
        Failure::Broken(Box::new(Status::unavailable(
            innermost.map_or_else(String::new, ToString::to_string),
        )))
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", member.peer_address))
        .map_err(|error| broken(&error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(shared.keepalive_interval)
        .keep_alive_timeout(shared.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(2 * STREAM_WINDOW_BYTES);
    let channel = network.connect(&endpoint).await.map_err(|error| broken(&error))?;
    let mut client = PeerClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);

    let outbox = Outbox::new(shared.queue_bytes_max, Arc::clone(&shared.metrics));
    let nonce = shared.fresh_nonce();
    outbox.push_handshake(frame::Frame::Hello(shared.credentials.hello(&nonce)));
    let outgoing = Outgoing(Arc::clone(&outbox)).map_while(Result::ok);
    let mut frames =
        client.link(outgoing).await.map_err(|status| Failure::Broken(Box::new(status)))?.into_inner();
    let ended = link::dialled(shared, &member.name, &mut frames, &outbox, &nonce).await;
    outbox.close(None);
    ended
}
