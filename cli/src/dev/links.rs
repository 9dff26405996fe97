//! Links: what every byte between two nodes goes through, so that it can be cut for real.
//!
//! ```text
//!   node a ──▶ listener a→b ──▶ node b's peer port      one listener for each directed pair
//! ```
//!
//! In: where each node listens for its peers. Out: for each directed pair an address to give to
//! the one that dials. A cut link is either *closed* (connections break, new ones are dropped) or
//! *silent* (connections stay, bytes wait: what a lost route or a firewall does). Absent: delay,
//! loss and reordering, which the simulator does better.

use std::{collections::BTreeMap, io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::AbortHandle,
};

const BUFFER_BYTES: usize = 64 << 10;

/// What happens to bytes on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Flows,
    Closed,
    Silent,
}

/// A directed pair: who dials, who is dialled.
pub(super) type Pair = (String, String);

/// All links of a cluster. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<Pair, Link>,
}

#[derive(Debug)]
struct Link {
    address: SocketAddr,
    traffic: watch::Sender<Traffic>,
    task: AbortHandle,
}

impl Links {
    /// Opens a link for each directed pair of `nodes` (name, peer address).
    pub(super) async fn open(nodes: &[(String, SocketAddr)]) -> io::Result<Links> {
        let mut links = BTreeMap::new();
        for (from, _) in nodes {
            for (to, target) in nodes.iter().filter(|(to, _)| to != from) {
                let listener = TcpListener::bind((target.ip(), 0)).await?;
                let address = listener.local_addr()?;
                let (traffic, seen) = watch::channel(Traffic::Flows);
                let task = tokio::spawn(accept(listener, *target, seen)).abort_handle();
                links.insert((from.clone(), to.clone()), Link { address, traffic, task });
            }
        }
        Ok(Links { links })
    }

    /// Where `from` dials to reach `to`.
    pub(super) fn address(&self, from: &str, to: &str) -> Option<SocketAddr> {
        self.links.get(&(from.to_owned(), to.to_owned())).map(|link| link.address)
    }

    /// Gives every pair its traffic.
    pub(super) fn set(&self, traffic: impl Fn(&str, &str) -> Traffic) {
        for ((from, to), link) in &self.links {
            link.traffic.send_if_modified(|now| {
                let next = traffic(from, to);
                std::mem::replace(now, next) != next
            });
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in self.links.values() {
            link.task.abort();
        }
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, traffic: watch::Receiver<Traffic>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(carry(stream, target, traffic.clone()))),
            // Out of descriptors, or a connection that broke while it waited: others go on.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// Carries one connection until an end closes or the link is cut.
async fn carry(dialled: TcpStream, target: SocketAddr, mut traffic: watch::Receiver<Traffic>) {
    let mut pumped = traffic.clone();
    let both = async {
        flows(&mut pumped).await?;
        let onward = TcpStream::connect(target).await?;
        // Small frames wait for nobody; failing to say so only costs time.
        let _ = (dialled.set_nodelay(true), onward.set_nodelay(true));
        let (from_dialled, to_dialled) = dialled.into_split();
        let (from_onward, to_onward) = onward.into_split();
        let there = pump(from_dialled, to_onward, pumped.clone());
        let back = pump(from_onward, to_dialled, pumped);
        tokio::try_join!(there, back).map(|_| ())
    };
    // How a connection between others ends is theirs to notice.
    tokio::select! {
        _ = both => {}
        _ = traffic.wait_for(|now| *now == Traffic::Closed) => {}
    }
}

async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut traffic: watch::Receiver<Traffic>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        flows(&mut traffic).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// Waits out a silent cut.
async fn flows(traffic: &mut watch::Receiver<Traffic>) -> io::Result<()> {
    match traffic.wait_for(|now| *now == Traffic::Flows).await {
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn says(stream: &mut TcpStream, word: &[u8; 4]) -> io::Result<bool> {
        stream.write_all(word).await?;
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await?;
        Ok(heard == *word)
    }

    #[tokio::test]
    async fn a_closed_link_breaks_connections_and_a_healed_one_takes_new_ones() {
        let nodes = [("a".to_owned(), echo().await), ("b".to_owned(), echo().await)];
        let links = Links::open(&nodes).await.unwrap();
        let address = links.address("a", "b").unwrap();
        assert_eq!(links.address("a", "a"), None);

        let mut old = TcpStream::connect(address).await.unwrap();
        assert!(says(&mut old, b"ping").await.unwrap());
        links.set(|_, _| Traffic::Closed);
        assert!(says(&mut old, b"ping").await.is_err());
        let mut during = TcpStream::connect(address).await.unwrap();
        assert!(says(&mut during, b"ping").await.is_err());

        links.set(|_, _| Traffic::Flows);
        let mut new = TcpStream::connect(address).await.unwrap();
        assert!(says(&mut new, b"pong").await.unwrap());
    }

    #[tokio::test]
    async fn a_silent_link_keeps_the_connection_and_delivers_after_healing() {
        let nodes = [("a".to_owned(), echo().await), ("b".to_owned(), echo().await)];
        let links = Links::open(&nodes).await.unwrap();
        let mut stream = TcpStream::connect(links.address("b", "a").unwrap()).await.unwrap();
        assert!(says(&mut stream, b"ping").await.unwrap());

        links.set(|_, _| Traffic::Silent);
        stream.write_all(b"late").await.unwrap();
        let mut heard = [0; 4];
        // Every task that could carry the bytes has had its turn many times over.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(stream.try_read(&mut heard).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        links.set(|_, _| Traffic::Flows);
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"late");
    }
}
