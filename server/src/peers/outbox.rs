//! What waits to be sent to one peer: filled by the driver once a turn, drained when the
//! connection has room.
//!
//! In: encoded messages. Out: frames, each with all that waits up to about 1 MiB; no timer.
//! Bounded in bytes: what does not fit is dropped and counted, as a lossy network would.
//! Absent: sockets.

use crate::metrics::Metrics;
use bytes::Bytes;
use merganser_proto::internal::v1::{Frame, Messages, frame};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::Status;

/// A frame is closed once it has so many bytes; a larger message goes alone.
const FRAME_BYTES: usize = 1 << 20;

/// See the head of this file.
pub(crate) struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    metrics: Arc<Metrics>,
    /// Wakes the link's reader when the box is closed.
    closed: Notify,
}

#[derive(Default)]
struct State {
    handshake: VecDeque<Frame>,
    messages: VecDeque<Bytes>,
    bytes: usize,
    /// Some: no more frames; with a status for the other side if there is one to tell.
    closed: Option<Option<Status>>,
    waker: Option<Waker>,
}

impl Outbox {
    pub(crate) fn new(bytes_max: usize, metrics: Arc<Metrics>) -> Arc<Outbox> {
        Arc::new(Outbox { state: Mutex::default(), bytes_max, metrics, closed: Notify::new() })
    }

    /// A frame of the handshake, before any message.
    pub(crate) fn push_handshake(&self, frame: frame::Frame) {
        let mut state = self.state.lock();
        state.handshake.push_back(Frame { frame: Some(frame) });
        wake(state);
    }

    /// All messages of a turn, in order; `messages` is left empty.
    pub(crate) fn push(&self, messages: &mut Vec<Bytes>) {
        let mut state = self.state.lock();
        for message in messages.drain(..) {
            let closed = state.closed.is_some();
            if closed || (state.bytes + message.len() > self.bytes_max && !state.messages.is_empty()) {
                self.metrics.peer_messages_dropped.add(1);
                continue;
            }
            state.bytes += message.len();
            state.messages.push_back(message);
        }
        wake(state);
    }

    /// Ends the link, telling the other side `status` where it can be told.
    pub(crate) fn close(&self, status: Option<Status>) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(status);
            self.metrics.peer_messages_dropped.add(state.messages.len() as u64);
            state.messages.clear();
            state.bytes = 0;
        }
        wake(state);
        self.closed.notify_one();
    }

    /// Until [`Outbox::close`]; for one waiter.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        let mut state = self.state.lock();
        if let Some(frame) = state.handshake.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(messages) = take_frame(&mut state) {
            self.metrics.peer_frames_sent.add(1);
            self.metrics.peer_messages_sent.add(messages.len() as u64);
            self.metrics.peer_bytes_sent.add(messages.iter().map(|message| message.len() as u64).sum());
            let frame = frame::Frame::Messages(Messages { messages });
            return Poll::Ready(Some(Ok(Frame { frame: Some(frame) })));
        }
        match &mut state.closed {
            Some(status) => Poll::Ready(status.take().map(Err)),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn take_frame(state: &mut State) -> Option<Vec<Bytes>> {
    let first = state.messages.pop_front()?;
    let mut size = first.len();
    let mut frame = Vec::with_capacity(state.messages.len().min(256) + 1);
    frame.push(first);
    while let Some(next) = state.messages.front() {
        if size + next.len() > FRAME_BYTES {
            break;
        }
        size += next.len();
        frame.extend(state.messages.pop_front());
    }
    state.bytes -= size;
    Some(frame)
}

/// Wakes after the lock is released, so that the woken does not wait for it.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The box as the connection sees it. Dropping it closes the box.
pub(crate) struct Outgoing(pub(crate) Arc<Outbox>);

impl Stream for Outgoing {
    type Item = Result<Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll(cx)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.close(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(outgoing: &mut Outgoing) -> Poll<Option<Result<Frame, Status>>> {
        Pin::new(outgoing).poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn lengths(poll: Poll<Option<Result<Frame, Status>>>) -> Vec<usize> {
        match poll {
            Poll::Ready(Some(Ok(Frame { frame: Some(frame::Frame::Messages(messages)) }))) => {
                messages.messages.iter().map(Bytes::len).collect()
            }
            other => panic!("not a frame of messages: {other:?}"),
        }
    }

    fn push(outbox: &Outbox, lengths: &[usize]) {
        outbox.push(&mut lengths.iter().map(|length| Bytes::from(vec![0; *length])).collect());
    }

    #[test]
    fn all_that_waits_goes_in_one_frame_up_to_its_size_and_a_large_message_alone() {
        let mut outgoing = Outgoing(Outbox::new(8 << 20, Arc::default()));
        push(&outgoing.0, &[10, 20]);
        push(&outgoing.0, &[30]);
        assert_eq!(lengths(next(&mut outgoing)), [10, 20, 30]);
        assert!(next(&mut outgoing).is_pending());
        push(&outgoing.0, &[600 << 10, 600 << 10, 3 << 20, 5]);
        assert_eq!(lengths(next(&mut outgoing)), [600 << 10]);
        assert_eq!(lengths(next(&mut outgoing)), [600 << 10]);
        assert_eq!(lengths(next(&mut outgoing)), [3 << 20]);
        assert_eq!(lengths(next(&mut outgoing)), [5]);
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_but_one_message_always_fits() {
        let mut outgoing = Outgoing(Outbox::new(100, Arc::default()));
        push(&outgoing.0, &[90, 20, 10]);
        assert_eq!(outgoing.0.metrics.peer_messages_dropped.get(), 1);
        assert_eq!(lengths(next(&mut outgoing)), [90, 10]);
        push(&outgoing.0, &[500]);
        assert_eq!(lengths(next(&mut outgoing)), [500]);
    }

    #[test]
    fn a_closed_box_tells_its_status_once_and_takes_nothing_more() {
        let mut outgoing = Outgoing(Outbox::new(100, Arc::default()));
        push(&outgoing.0, &[1]);
        outgoing.0.close(Some(Status::permission_denied("no")));
        outgoing.0.close(None);
        push(&outgoing.0, &[1]);
        assert!(matches!(next(&mut outgoing), Poll::Ready(Some(Err(status))) if status.message() == "no"));
        assert!(matches!(next(&mut outgoing), Poll::Ready(None)));
        assert_eq!(outgoing.0.metrics.peer_messages_dropped.get(), 2);
    }
}
