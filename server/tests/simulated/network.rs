//! Turmoil's sockets as the server and the client want them.

use hyper_util::rt::TokioIo;
use merganser_server::Network;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::Service;
use turmoil::net::{TcpListener, TcpStream};

#[derive(Clone)]
pub(super) struct Simulated;

impl Network for Simulated {
    type Listener = TcpListener;
    type Socket = Accepted;

    async fn accept(listener: &TcpListener) -> io::Result<Accepted> {
        Ok(Accepted(listener.accept().await?.0))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        endpoint.connect_with_connector(connector()).await
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

pub(super) fn connector()
-> impl Service<Uri, Response = TokioIo<TcpStream>, Error = io::Error, Future = Connecting> + Send + 'static {
    tower::service_fn(|uri: Uri| {
        Box::pin(async move {
            let address = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
            Ok(TokioIo::new(TcpStream::connect(address.as_str()).await?))
        }) as Connecting
    })
}

pub(crate) struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.0.local_addr().ok(), remote_addr: self.0.peer_addr().ok() }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
