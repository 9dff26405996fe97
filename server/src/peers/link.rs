//! One link from its first frame to its last.
//!
//! In: the frames of the other side. Out: inputs for the driver: up, messages, down; before that,
//! the handshake. A peer that sends faster than the driver takes is read more slowly. Absent:
//! who dials, and when again.

use super::handshake::{Credentials, NONCE_BYTES, Refusal};
use super::outbox::Outbox;
use super::refusals::Refusals;
use crate::driver::{Door, Input};
use crate::metrics::Metrics;
use merganser_core::id::NodeId;
use merganser_core::message::Message;
use merganser_proto::internal::v1::{Frame, Hello, Messages, Proof, frame};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};

/// The whole handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames of one peer that may wait for the driver.
const FRAMES_WAITING_MAX: usize = 8;

/// What all links of a node share.
pub(super) struct Shared {
    pub(super) credentials: Credentials,
    pub(super) queue_bytes_max: usize,
    pub(super) keepalive_interval: Duration,
    pub(super) keepalive_timeout: Duration,
    pub(super) door: Door,
    pub(super) metrics: Arc<Metrics>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) random: Mutex<StdRng>,
}

impl Shared {
    pub(super) fn fresh_nonce(&self) -> [u8; NONCE_BYTES] {
        self.random.lock().random()
    }
}

/// Why a link did not come up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the connection failed: {}", .0.message())]
    Broken(Box<Status>),
    #[error("the other side closed the link before it was up")]
    Closed,
    #[error("the handshake took more than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
}

/// A link that another node opened.
pub(super) async fn accepted(
    shared: Arc<Shared>,
    mut frames: Streaming<Frame>,
    outbox: Arc<Outbox>,
    address: Option<SocketAddr>,
) {
    let mut who = None;
    let handshake = async {
        let nonce = shared.fresh_nonce();
        let theirs = next_hello(&mut frames).await?;
        who = shared.credentials.member(&theirs.node);
        let verdict = shared.credentials.judge(&theirs, None);
        if matches!(verdict, Ok(_) | Err(Refusal::Layout { .. })) {
            // Where the layouts differ the dialler is to find that out, too, and to say so.
            outbox.push_handshake(frame::Frame::Hello(shared.credentials.hello(&nonce)));
        }
        let peer = verdict?;
        let proof = next_proof(&mut frames).await?;
        shared.credentials.verify(&proof, &theirs, &nonce)?;
        outbox.push_handshake(frame::Frame::Proof(shared.credentials.prove(&theirs)));
        Ok((peer, theirs.node))
    };
    match within(handshake).await {
        Ok((peer, name)) => {
            run(&shared, peer, &name, &mut frames, &outbox).await;
        }
        Err(failure) => {
            note(&shared.metrics, &failure);
            if shared.refusals.note(who, &failure.to_string()) {
                tracing::warn!(from = ?address, reason = %failure, "link_refused");
            }
            outbox.close(Some(Status::permission_denied(failure.to_string())));
        }
    }
}

/// A link that this node opened to `name`; Ok once it was up and has ended.
pub(super) async fn dialled(
    shared: &Arc<Shared>,
    name: &str,
    frames: &mut Streaming<Frame>,
    outbox: &Arc<Outbox>,
    nonce: &[u8; NONCE_BYTES],
) -> Result<(), Failure> {
    let handshake = async {
        let theirs = next_hello(frames).await?;
        let peer = shared.credentials.judge(&theirs, Some(name))?;
        outbox.push_handshake(frame::Frame::Proof(shared.credentials.prove(&theirs)));
        let proof = next_proof(frames).await?;
        shared.credentials.verify(&proof, &theirs, nonce)?;
        Ok(peer)
    };
    let peer = within(handshake).await.inspect_err(|failure| {
        note(&shared.metrics, failure);
        if matches!(failure, Failure::Refused(_)) {
            shared.refusals.note(shared.credentials.member(name), &failure.to_string());
        }
    })?;
    run(shared, peer, name, frames, outbox).await;
    Ok(())
}

async fn within<T>(handshake: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(Failure::Slow))
}

async fn next_hello(frames: &mut Streaming<Frame>) -> Result<Hello, Failure> {
    match next(frames).await? {
        Some(frame::Frame::Hello(hello)) => Ok(hello),
        _ => Err(Refusal::Malformed("the first frame is a hello").into()),
    }
}

async fn next_proof(frames: &mut Streaming<Frame>) -> Result<Proof, Failure> {
    match next(frames).await? {
        Some(frame::Frame::Proof(proof)) => Ok(proof),
        _ => Err(Refusal::Malformed("the second frame is a proof").into()),
    }
}

async fn next(frames: &mut Streaming<Frame>) -> Result<Option<frame::Frame>, Failure> {
    match frames.message().await {
        Ok(Some(frame)) => Ok(frame.frame),
        Ok(None) => Err(Failure::Closed),
        Err(status) => Err(Failure::Broken(Box::new(status))),
    }
}

/// From up to down. Requires: the peer has proven itself.
async fn run(shared: &Shared, peer: NodeId, name: &str, frames: &mut Streaming<Frame>, outbox: &Arc<Outbox>) {
    static LINKS: AtomicU64 = AtomicU64::new(1);
    let link = LINKS.fetch_add(1, Ordering::Relaxed);
    tracing::info!(peer = name, "link_up");
    shared.metrics.links_up.add(1);
    shared.refusals.linked(peer);
    shared.door.put(Input::LinkUp { peer, link, outbox: Arc::clone(outbox) });
    let room = Arc::new(Semaphore::new(FRAMES_WAITING_MAX));
    let reason = loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break "closed".to_owned() };
        let frame = tokio::select! {
            biased;
            () = outbox.closed() => break "closed by this node".to_owned(),
            frame = frames.message() => frame,
        };
        match frame {
            Ok(Some(Frame { frame: Some(frame::Frame::Messages(messages)) })) => {
                let messages = decode(shared, name, messages);
                shared.door.put(Input::Frame { from: peer, messages, room: permit });
            }
            Ok(Some(_)) => break "a frame of the handshake after it".to_owned(),
            Ok(None) => break "closed by the other side".to_owned(),
            Err(status) => break status.message().to_owned(),
        }
    };
    outbox.close(None);
    tracing::info!(peer = name, reason, "link_down");
    shared.metrics.links_down.add(1);
    shared.door.put(Input::LinkDown { peer, link });
}

/// What does not decode is left out: the peer may be of another release, and the rest is good.
fn decode(shared: &Shared, name: &str, messages: Messages) -> Vec<Message> {
    let mut decoded = Vec::with_capacity(messages.messages.len());
    for bytes in messages.messages {
        match Message::decode(bytes) {
            Ok(message) => decoded.push(message),
            Err(error) => {
                shared.metrics.peer_messages_malformed.add(1);
                tracing::warn!(peer = name, %error, "a message does not decode");
            }
        }
    }
    shared.metrics.peer_messages_received.add(decoded.len() as u64);
    decoded
}

fn note(metrics: &Metrics, failure: &Failure) {
    let Failure::Refused(refusal) = failure else { return };
    let counter = match refusal {
        Refusal::Secret { .. } => &metrics.links_refused_secret,
        Refusal::Cluster { .. } => &metrics.links_refused_cluster,
        Refusal::UnknownNode { .. } | Refusal::OtherNode { .. } | Refusal::Direction { .. } => {
            &metrics.links_refused_node
        }
        Refusal::Layout { .. } => &metrics.links_refused_layout,
        Refusal::Protocol { .. } | Refusal::Malformed(_) => &metrics.links_refused_protocol,
    };
    counter.add(1);
}
