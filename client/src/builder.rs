//! Settings of a client, and how it comes about.
//!
//! In: settings, addresses. Out: a client that is connected. Absent: what it does with them (`client`).

use crate::{Client, error::Error, link::Connect, retry::Patience};
use std::{sync::Arc, time::Duration};
use tonic::transport::{Channel, Endpoint};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) connect: Connect,
    pub(crate) hedge_after: Duration,
    pub(crate) seed: Option<u64>,
    pub(crate) patience: Patience,
    pub(crate) pipelined: bool,
    pub(crate) follow_topology: bool,
}

/// Settings of a client before it connects.
#[derive(Clone, Debug)]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            settings: Settings {
                timeout: Duration::from_secs(10),
                attempt_timeout: Duration::from_secs(3),
                connect_timeout: Duration::from_secs(2),
                connect: Connect::new(|endpoint| endpoint.connect_lazy()),
                hedge_after: Duration::from_millis(250),
                seed: None,
                patience: Patience::default(),
                pipelined: false,
                follow_topology: true,
            },
        }
    }

    /// Time for a whole request, its retries included, unless the call says otherwise. 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.settings.timeout = timeout;
        self
    }

    /// Time for one attempt: after it the next node is asked. 3 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Builder {
        self.settings.attempt_timeout = timeout;
        self
    }

    /// Time for a connection to come about. 2 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.settings.connect_timeout = timeout;
        self
    }

    /// When a node has left a read unanswered for so long, and for four times as long as slow answers take,
    /// the next one is asked too, and the first answer counts. 250 ms; `Duration::MAX`: never.
    pub fn hedge_after(mut self, after: Duration) -> Builder {
        self.settings.hedge_after = after;
        self
    }

    /// How connections come about, for those who go through a proxy or a Unix socket: gets an
    /// endpoint with all settings made, gives a channel. [`Endpoint::connect_lazy`].
    pub fn connector(mut self, connect: impl Fn(Endpoint) -> Channel + Send + Sync + 'static) -> Builder {
        self.settings.connect = Connect::new(connect);
        self
    }

    /// Draws request ids and jitter from a seed. For simulations: two clients with one seed take
    /// each other's writes for repetitions of their own.
    #[doc(hidden)]
    pub fn seed(mut self, seed: u64) -> Builder {
        self.settings.seed = Some(seed);
        self
    }

    /// Attempts at most; 1 = no retries. 10.
    pub fn attempts_max(mut self, attempts: u32) -> Builder {
        self.settings.patience.attempts_max = attempts.max(1);
        self
    }

    /// One stream to each node instead of a call for each request: some ten times cheaper when
    /// many requests are in flight. Off.
    pub fn pipelined(mut self, pipelined: bool) -> Builder {
        self.settings.pipelined = pipelined;
        self
    }

    /// Whether to route by the ring. Off, every request goes to the first of the given addresses
    /// that answers. On.
    pub fn follow_topology(mut self, follow: bool) -> Builder {
        self.settings.follow_topology = follow;
        self
    }

    /// Connects: any node of the cluster will do, several are safer.
    pub async fn connect(
        self,
        addresses: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Client, Error> {
        let seeds: Vec<Arc<str>> = addresses.into_iter().map(|address| address.into().into()).collect();
        if seeds.is_empty() {
            return Err(Error::InvalidArgument {
                field: "addresses".into(),
                reason: "at least one is needed".into(),
            });
        }
        Client::start(self.settings, seeds).await
    }
}
