//! How large messages may be, and a typed problem where one is larger.
//!
//! In: requests of the Kv service. Out: the same, through a server whose decoder takes only what
//! the method needs; tonic's own refusal of larger ones becomes a `TooLarge`. A length is looked
//! at before anything is read or reserved for it. Absent: the limits on keys and values.

use super::problem;
use merganser_proto::v1::kv_server::{Kv, KvServer};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// One request; a value one byte too large still comes in, to be told so by name.
pub(crate) const CALL_BYTES_MAX: usize = 2 << 20;
/// A batch of writes.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// One reply: what client libraries take by default. More comes by `GetStream`.
pub(crate) const REPLY_BYTES_MAX: usize = 4 << 20;
/// A batch of replies.
pub(crate) const BATCH_REPLY_BYTES_MAX: usize = 64 << 20;
/// Items of a batch.
pub(crate) const BATCH_ITEMS_MAX: usize = 1000;
/// Bytes of a value in one frame of `GetStream`.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// The Kv service, with decoders by method.
pub(crate) struct SizedKv<T> {
    calls: KvServer<T>,
    batches: KvServer<T>,
}

impl<T> Clone for SizedKv<T> {
    fn clone(&self) -> SizedKv<T> {
        SizedKv { calls: self.calls.clone(), batches: self.batches.clone() }
    }
}

impl<T> SizedKv<T> {
    pub(crate) fn new(kv: KvServer<T>) -> SizedKv<T> {
        SizedKv {
            calls: kv.clone().max_decoding_message_size(CALL_BYTES_MAX),
            batches: kv.max_decoding_message_size(BATCH_BYTES_MAX),
        }
    }
}

impl<T> NamedService for SizedKv<T> {
    const NAME: &'static str = <KvServer<T> as NamedService>::NAME;
}

impl<T: Kv> Service<http::Request<Body>> for SizedKv<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Typed;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Typed {
        let batch = request.uri().path().ends_with("/BatchWrite");
        Typed(if batch { self.batches.call(request) } else { self.calls.call(request) })
    }
}

/// A response whose refusal for size is typed.
pub(crate) struct Typed(BoxFuture<http::Response<Body>, Infallible>);

impl Future for Typed {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.0.as_mut().poll(cx))?;
        let typed = Status::from_header_map(response.headers()).and_then(|status| too_large(&status));
        Poll::Ready(Ok(typed.map_or(response, Status::into_http)))
    }
}

/// The typed form of the decoder's refusal; None of any other status.
pub(crate) fn too_large(status: &Status) -> Option<Status> {
    if status.code() != Code::OutOfRange || !status.message().contains("decoded message length too large") {
        return None;
    }
    let mut numbers = status.message().split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    let (size_bytes, limit_bytes) = (numbers.next()?, numbers.next()?);
    Some(problem::too_large("request", size_bytes, limit_bytes))
}
