//! The client itself: links to nodes, and the loop that makes a request succeed if it
//! can.
//!
//! In: settings; requests. Out: outcomes within their deadline. The loop only carries out what
//! `routing` and `retry` decide. Absent: what a request means; that is `keyspace` and `entry`.

use crate::{
    Admin, Builder, KEY_BYTES_MAX, Keyspace,
    builder::Settings,
    entry::Written,
    error::Error,
    hedge::Hedge,
    link::Link,
    retry::{self, Fate, Standing, Step},
    routing::Topology,
    topology,
};
use futures::{StreamExt, stream::FuturesUnordered};
use merganser_proto::v1::{pipeline_reply::Outcome, pipeline_request::Request};
use parking_lot::{Mutex, RwLock};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::AbortHandle, time::Instant};

/// A cluster. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    seeds: Vec<Arc<str>>,
    links: Mutex<HashMap<Arc<str>, Arc<Link>>>,
    topology: RwLock<Arc<Topology>>,
    random: Mutex<StdRng>,
    /// The first half of this client's request ids …
    session: u64,
    /// … and the last one's second half.
    sequence: AtomicU64,
    hedge: Hedge,
    follower: Mutex<Option<AbortHandle>>,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// With all its attempts and pauses.
    pub(crate) whole: Duration,
    /// One attempt.
    pub(crate) attempt: Duration,
    /// Whether a second node is asked while the first is silent.
    pub(crate) hedged: bool,
}

/// Who is asked next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Nobody,
    At(usize, Instant),
    /// The one after this one, if it goes on saying nothing.
    IfSilent {
        candidate: usize,
        since: Instant,
    },
}

/// How a request may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing.
    Read,
    /// It carries a request id; its fate is kept track of.
    Write,
    /// Only where it had no effect for certain.
    Never,
}

impl Client {
    /// Connects; at least one seed.
    pub(crate) async fn start(settings: Settings, seeds: Vec<Arc<str>>) -> Result<Client, Error> {
        let mut random = settings.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
        let session = random.random();
        let inner = Inner {
            hedge: Hedge::new(settings.hedge_after),
            settings,
            seeds,
            links: Mutex::default(),
            topology: RwLock::new(Arc::new(Topology::empty())),
            random: Mutex::new(random),
            session,
            sequence: AtomicU64::new(0),
            follower: Mutex::default(),
        };
        let client = Client { inner: Arc::new(inner) };
        for seed in &client.inner.seeds {
            client.inner.link(seed)?;
        }
        if client.inner.settings.follow_topology {
            topology::follow(&client).await?;
        }
        Ok(client)
    }

    /// Connects with default settings: any node of the cluster will do, several are safer.
    pub async fn connect(addresses: impl IntoIterator<Item = impl Into<String>>) -> Result<Client, Error> {
        Client::builder().connect(addresses).await
    }

    /// Settings first.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The keys of a keyspace. Whether it exists shows with the first request.
    pub fn keyspace(&self, name: impl Into<String>) -> Keyspace {
        Keyspace::new(self.clone(), name.into())
    }

    /// What operators ask for.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The ring as this client knows it now.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.inner.topology.read())
    }

    /// A request about one key, repeated until it succeeds, cannot, or time is up.
    pub(crate) async fn request(
        &self,
        target: Target<'_>,
        timeout: Duration,
        request: &Request,
    ) -> Result<Outcome, Error> {
        self.request_counted(target, timeout, request, &AtomicU32::new(0), None).await
    }

    /// A request that was sent before, at that moment, in another way.
    pub(crate) async fn request_again(
        &self,
        target: Target<'_>,
        timeout: Duration,
        request: &Request,
        sent_before: Instant,
    ) -> Result<Outcome, Error> {
        self.request_counted(target, timeout, request, &AtomicU32::new(0), Some(sent_before)).await
    }

    /// As [`Client::request`]; counts how often it is sent.
    async fn request_counted(
        &self,
        target: Target<'_>,
        timeout: Duration,
        request: &Request,
        attempts: &AtomicU32,
        sent_before: Option<Instant>,
    ) -> Result<Outcome, Error> {
        let repeat = match request {
            Request::Get(_) | Request::Query(_) => Repeat::Read,
            Request::Put(_) | Request::Delete(_) | Request::Apply(_) => Repeat::Write,
        };
        let times = Times { whole: timeout, attempt: self.inner.settings.attempt_timeout, hedged: true };
        let began = Instant::now();
        self.ask(Some(target), times, repeat, |link, limit| {
            let mut request = with_timeout(request.clone(), limit);
            let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
            if let Some(first) = sent_before.or((!is_first).then_some(began)) {
                tell_of_first_attempt(&mut request, first.elapsed());
            }
            async move { link.call(request, limit).await }
        })
        .await
    }

    /// Asks node after node as `retry` decides, and where `times` allow it two at once as `hedge`
    /// decides. `attempt` gets a node and the time that the node may take.
    pub(crate) async fn ask<T, F>(
        &self,
        target: Option<Target<'_>>,
        times: Times,
        repeat: Repeat,
        attempt: impl Fn(Arc<Link>, Duration) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let settings = &self.inner.settings;
        let deadline = Instant::now() + times.whole;
        let candidates = self.inner.candidates(target);
        let hedged = times.hedged && repeat == Repeat::Read && candidates.len() > 1;
        let mut fate = Fate::default();
        let mut attempts = 0;
        let mut under_way = FuturesUnordered::new();
        let mut next = Next::At(0, Instant::now());
        // Who was asked first of those who are.
        let mut silent = None;
        loop {
            let alone = under_way.is_empty();
            let (candidate, began, outcome) = tokio::select! {
                biased;
                Some(ended) = under_way.next() => ended,
                candidate = self.when_due(next, candidates.len()) => {
                    let began = Instant::now();
                    let limit = deadline.duration_since(began).min(times.attempt);
                    attempts += 1;
                    let asked = self.attempt(&candidates[candidate], limit, &attempt);
                    under_way.push(async move { (candidate, began, asked.await) });
                    // Of one request two attempts at most are under way.
                    next = Next::Nobody;
                    if alone {
                        silent = Some(candidate);
                        if hedged && self.inner.hedge.after() < limit && attempts < settings.patience.attempts_max {
                            next = Next::IfSilent { candidate, since: began };
                        }
                    }
                    continue;
                }
            };
            if silent == Some(candidate) {
                silent = None;
            }
            let error = match outcome {
                Ok(reply) => {
                    if hedged {
                        self.inner.hedge.note(began.elapsed());
                    }
                    if let Some(silent) = silent {
                        self.inner.note_silent(&candidates[silent]);
                    }
                    return Ok(reply);
                }
                Err(error) => error,
            };
            fate.note(&error);
            let standing = Standing {
                attempts,
                candidate,
                candidates: candidates.len(),
                remaining: deadline.duration_since(Instant::now()),
            };
            let jitter = self.inner.random.lock().random();
            let step = match repeat {
                Repeat::Never if may_have_had_effect(&error) => Step::GiveUp,
                _ => retry::next(&settings.patience, standing, &error, jitter),
            };
            match step {
                // The other attempt may yet succeed, unless this one is for certain all that will be.
                Step::GiveUp if !under_way.is_empty() && retry::is_curable(&error) => next = Next::Nobody,
                Step::GiveUp if repeat == Repeat::Write => return Err(fate.outcome(error)),
                Step::GiveUp => return Err(error),
                Step::Ask { candidate, after } => {
                    tracing::debug!(%error, attempts, next = &*candidates[candidate], ?after, "asking again");
                    next = Next::At(candidate, Instant::now() + after);
                }
            }
        }
    }

    /// Who is to be asked, once somebody is.
    async fn when_due(&self, next: Next, candidates: usize) -> usize {
        match next {
            Next::Nobody => std::future::pending().await,
            Next::At(candidate, due) => {
                if due > Instant::now() {
                    tokio::time::sleep_until(due).await;
                }
                candidate
            }
            Next::IfSilent { candidate, since } => {
                tokio::time::sleep_until(since + self.inner.hedge.after()).await;
                (candidate + 1) % candidates
            }
        }
    }

    /// One attempt at one node.
    pub(crate) async fn attempt<T, F>(
        &self,
        address: &Arc<str>,
        limit: Duration,
        attempt: &impl Fn(Arc<Link>, Duration) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        // The address may be one that a node told: that it is no address is no reason to give up.
        let link = self.inner.link(address).map_err(|error| Error::Unavailable {
            node: address.to_string(),
            reason: error.what(),
            sent: false,
        })?;
        let outcome = match tokio::time::timeout(limit, attempt(Arc::clone(&link), told(limit))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Unavailable {
                node: address.to_string(),
                reason: format!("no answer within {} ms", limit.as_millis()),
                sent: true,
            }),
        };
        link.note(matches!(outcome, Err(Error::Unavailable { .. })));
        outcome
    }

    /// Of a session and a sequence: types remember whole runs of them in little room.
    pub(crate) fn request_id(&self) -> [u8; 16] {
        let sequence = self.inner.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        (u128::from(self.inner.session) << 64 | u128::from(sequence)).to_be_bytes()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("seeds", &self.inner.seeds).finish_non_exhaustive()
    }
}

/// A keyspace and a key in it.
pub(crate) type Target<'a> = (&'a str, &'a [u8]);

/// A node is told a little less than we wait, so that its typed answer comes before we give up.
fn told(limit: Duration) -> Duration {
    limit - (limit / 10).min(Duration::from_millis(250))
}

fn may_have_had_effect(error: &Error) -> bool {
    matches!(error, Error::Unavailable { sent: true, .. } | Error::Uncertain(_) | Error::Server { .. })
}

pub(crate) fn with_timeout(mut request: Request, limit: Duration) -> Request {
    // 0 would mean the node's own default.
    let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
    match &mut request {
        Request::Get(get) => get.timeout_ms = limit_ms,
        Request::Put(put) => put.timeout_ms = limit_ms,
        Request::Delete(delete) => delete.timeout_ms = limit_ms,
        Request::Apply(apply) => apply.timeout_ms = limit_ms,
        Request::Query(query) => query.timeout_ms = limit_ms,
    }
    request
}

/// A retry says how long ago it was first sent, so that a register's write counts as of then.
fn tell_of_first_attempt(request: &mut Request, ago: Duration) {
    let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX).max(1);
    match request {
        Request::Put(put) => put.retry_of_ms_ago = ago_ms,
        Request::Delete(delete) => delete.retry_of_ms_ago = ago_ms,
        Request::Apply(_) | Request::Get(_) | Request::Query(_) => {}
    }
}

impl Inner {
    /// At least one, because there is at least one seed.
    pub(crate) fn candidates(&self, target: Option<Target<'_>>) -> Vec<Arc<str>> {
        let failing: Vec<Arc<str>> = {
            let links = self.links.lock();
            links.values().filter(|link| link.failing()).map(|link| Arc::clone(&link.address)).collect()
        };
        let topology = Arc::clone(&self.topology.read());
        let candidates = topology
            .candidates(target, &self.seeds, |address| failing.iter().any(|failing| **failing == *address));
        assert!(!candidates.is_empty(), "a client has seeds");
        candidates
    }

    pub(crate) fn link(&self, address: &Arc<str>) -> Result<Arc<Link>, Error> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(address) {
            return Ok(Arc::clone(link));
        }
        let settings = &self.settings;
        let (pipelined, timeout) = (settings.pipelined, settings.connect_timeout);
        let link = Arc::new(Link::new(Arc::clone(address), pipelined, timeout, &settings.connect)?);
        links.insert(Arc::clone(address), Arc::clone(&link));
        Ok(link)
    }

    /// Another node has answered sooner, though it was asked later.
    fn note_silent(&self, address: &Arc<str>) {
        if let Some(link) = self.links.lock().get(address) {
            link.note(true);
        }
    }

    pub(crate) fn set_topology(&self, topology: Topology) {
        // Connections to nodes that left are closed; the seeds stay, they are the way back.
        let kept = |address: &str| {
            topology.members().any(|member| *member.address == *address)
                || self.seeds.iter().any(|seed| **seed == *address)
        };
        self.links.lock().retain(|address, _| kept(address));
        *self.topology.write() = Arc::new(topology);
    }

    pub(crate) fn followed_by(&self, follower: AbortHandle) {
        *self.follower.lock() = Some(follower);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.get_mut() {
            follower.abort();
        }
    }
}

/// A logical write: everything that its attempts have in common.
#[derive(Clone, Debug)]
pub(crate) struct PendingWrite {
    pub(crate) client: Client,
    pub(crate) request: Request,
    pub(crate) timeout: Duration,
    /// When it was first sent; None: not yet.
    pub(crate) sent_before: Option<Instant>,
}

impl PendingWrite {
    pub(crate) async fn send(&self) -> Result<Written, Error> {
        let (keyspace, key) = match &self.request {
            Request::Put(put) => (&put.keyspace, &put.key),
            Request::Delete(delete) => (&delete.keyspace, &delete.key),
            Request::Apply(apply) => (&apply.keyspace, &apply.key),
            Request::Get(_) | Request::Query(_) => {
                return Err(Error::protocol("a read is not a write"));
            }
        };
        check_key(key)?;
        let attempts = AtomicU32::new(0);
        let target = (keyspace.as_str(), key.as_ref());
        let began = self.sent_before.unwrap_or_else(Instant::now);
        let sent_before = self.sent_before;
        match self.client.request_counted(target, self.timeout, &self.request, &attempts, sent_before).await {
            Ok(Outcome::Write(reply)) => {
                Ok(Written::from_wire(reply, Some(attempts.load(Ordering::Relaxed))))
            }
            Ok(_) => Err(Error::protocol("another kind of reply than the request's")),
            Err(Error::Uncertain(mut facts)) => {
                facts.pending = Some(PendingWrite { sent_before: Some(began), ..self.clone() });
                Err(Error::Uncertain(facts))
            }
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::InvalidArgument { field: "key".into(), reason: "it is empty".into() }),
        1..=KEY_BYTES_MAX => Ok(()),
        size => Err(Error::TooLarge {
            what: "key".into(),
            size_bytes: size as u64,
            limit_bytes: KEY_BYTES_MAX as u64,
        }),
    }
}
