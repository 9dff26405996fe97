//! Accepting connections: bounded in number.
//!
//! In: a bound listener. Out: a stream of sockets for tonic. Absent: TLS.

use crate::metrics::Metrics;
use crate::surroundings::Network;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Pause after an accept that failed for want of something, such as file descriptors.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Sockets from `listener`, `connections_max` open at a time, further ones unaccepted. Ends when
/// the stream is dropped.
pub(crate) fn incoming<N: Network>(
    listener: N::Listener,
    connections_max: usize,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<Socket<N::Socket>>> {
    let (sockets, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(connections_max));
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let accepted = tokio::select! {
                biased;
                () = sockets.closed() => return,
                accepted = N::accept(&listener) => accepted,
            };
            match accepted {
                Ok(stream) => {
                    metrics.connections.add(1);
                    if sockets.send(Ok(Socket { stream, _slot: slot })).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    });
    ReceiverStream::new(stream)
}

/// An accepted connection, and its place among those that may be open.
pub(crate) struct Socket<S> {
    stream: S,
    _slot: OwnedSemaphorePermit,
}

impl<S: Connected> Connected for Socket<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
