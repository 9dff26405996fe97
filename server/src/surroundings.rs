//! What a node stands on: a network, a file system, wall time, randomness.
//!
//! ```text
//!   start      ─▶ the operating system's, threads for the disk ─┐
//!                                                               ├─▶ one and the same node
//!   run_within ─▶ the caller's, on his runtime and his time ────┘
//! ```
//!
//! In: listeners; endpoints to dial. Out: sockets and channels. Which of them is known when the
//! program is compiled, so that it costs nothing. Absent: time that passes, which is the
//! runtime's, and plugins' threads, which are the same everywhere.

use merganser_storage::fs::Fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Channel, Endpoint, Error};

/// How connections come about.
pub trait Network: Clone + Send + Sync + 'static {
    /// A port that is listened at.
    type Listener: Send + Sync + 'static;
    /// A connection that was accepted.
    type Socket: AsyncRead + AsyncWrite + Connected<ConnectInfo = TcpConnectInfo> + Unpin + Send + 'static;

    /// The next connection.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Socket>> + Send;
    /// A connection to another node, with the endpoint's settings.
    fn connect(&self, endpoint: &Endpoint) -> impl Future<Output = Result<Channel, Error>> + Send;
}

/// All that a node stands on. Listeners are bound already.
pub struct Surroundings<N: Network> {
    /// How it reaches others.
    pub network: N,
    /// Where clients reach it.
    pub clients: N::Listener,
    /// Where peers reach it.
    pub peers: N::Listener,
    /// Where its data is.
    pub files: Arc<dyn Fs>,
    /// Time since the Unix epoch; may be wrong, as any clock.
    pub wall: fn() -> Duration,
    /// What all of its randomness comes from: secret, and never the same twice, or no nonce is one.
    pub seed: [u8; 32],
}

/// TCP as the operating system has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp;

impl Network for Tcp {
    type Listener = TcpListener;
    type Socket = TcpStream;

    async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
        loop {
            let (stream, _) = listener.accept().await?;
            // The flag of tonic's own builder does nothing for sockets that come by a stream, and
            // without it a get takes 40 ms and more; a test watches that.
            match stream.set_nodelay(true) {
                Ok(()) => return Ok(stream),
                Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
            }
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        endpoint.connect().await
    }
}

/// The system's wall clock. One before 1970 counts as 1970: stamps would be wrong, but nothing
/// goes back.
pub(crate) fn system_wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
