//! The loops that make load, and the clock beside them.
//!
//! ```text
//!   closed: C seats, each asks again when it is answered
//!   open:   a thread with a precise clock ──▶ intended starts ──▶ one task each, timed from there
//! ```
//!
//! In: connections, records. Out: histograms of what was asked while the tally was open. A closed
//! loop shows what the servers can do; an open one shows what users wait, because a slow answer
//! does not keep the next user away. Absent: what the servers used meanwhile; that is `session`.

use crate::{
    caller::Caller,
    figures::Latency,
    point::{Mix, Point, Policy},
    workload::{Draw, Records},
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use merganser_proto::v1::{self, pipeline_reply::Outcome, pipeline_request::Request};
use rand::{Rng, RngCore, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Long enough that no request under way when it ends is lost to it.
const PATIENCE_MS: u32 = 10_000;

/// Everything that the loops share.
pub(crate) struct Load {
    point: Point,
    /// By node.
    callers: Vec<Vec<Caller>>,
    records: Rc<Records>,
    draw: Draw,
    random: RefCell<SmallRng>,
    turn: Cell<usize>,
    outstanding: Cell<u32>,
    tally: RefCell<Tally>,
    stop: Arc<AtomicBool>,
}

/// What was counted.
pub(crate) struct Tally {
    open: bool,
    pub(crate) gets: Histogram<u64>,
    pub(crate) puts: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) error: Option<String>,
    /// An open loop had more under way than it may.
    pub(crate) overrun: bool,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            open: false,
            gets: Latency::histogram(),
            puts: Latency::histogram(),
            errors: 0,
            error: None,
            overrun: false,
        }
    }
}

impl Load {
    pub(crate) fn new(
        point: Point,
        callers: Vec<Vec<Caller>>,
        records: Rc<Records>,
        mut random: SmallRng,
    ) -> Rc<Load> {
        let draw = Draw::new(point.mix, point.keys, records.len(), &mut random);
        Rc::new(Load {
            point,
            callers,
            records,
            draw,
            random: RefCell::new(random),
            turn: Cell::new(0),
            outstanding: Cell::new(0),
            tally: RefCell::new(Tally::new()),
            stop: Arc::default(),
        })
    }

    /// Begins. Requires: on a `LocalSet`. The tasks end some time after [`Load::stop`].
    pub(crate) fn start(self: &Rc<Load>) -> Vec<JoinHandle<()>> {
        match self.point.rate {
            Some(rate) => vec![tokio::task::spawn_local(open_loop(Rc::clone(self), rate))],
            None => {
                let seat = |_| tokio::task::spawn_local(closed_loop(Rc::clone(self)));
                (0..self.point.in_flight).map(seat).collect()
            }
        }
    }

    /// From now on answers are counted.
    pub(crate) fn open_tally(&self) {
        *self.tally.borrow_mut() = Tally { open: true, ..Tally::new() };
    }

    /// No more are.
    pub(crate) fn close_tally(&self) -> Tally {
        self.tally.replace(Tally::new())
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Stores every record once, `in_flight` at a time.
    pub(crate) async fn store_all(self: &Rc<Load>) -> Result<(), String> {
        let next = Rc::new(Cell::new(0));
        let seats: Vec<_> = (0..self.point.in_flight)
            .map(|_| {
                let (load, next) = (Rc::clone(self), Rc::clone(&next));
                tokio::task::spawn_local(async move {
                    while next.get() < load.records.len() {
                        let record = next.replace(next.get() + 1);
                        load.put(record).await?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        for seat in seats {
            seat.await.map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    /// One request, whose time began at `began`.
    async fn operation(&self, began: Instant) {
        let (record, writes) = self.choose();
        let outcome = match (writes, self.point.mix) {
            (true, _) => self.put(record).await,
            (false, Mix::Echo) => self.echo(record).await,
            (false, _) => self.get(record).await.map(drop),
        };
        if writes {
            if outcome.is_err() && self.records.policy == Policy::Siblings {
                // Its fate is unknown: see what is there, or siblings would pile up from here on.
                if let Ok(context) = self.get(record).await {
                    self.records.set_context(record, context);
                }
            }
            self.records.give_back(record);
        }
        let mut tally = self.tally.borrow_mut();
        if tally.open {
            let elapsed_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            match outcome {
                Ok(()) if writes => tally.puts.saturating_record(elapsed_ns),
                Ok(()) => tally.gets.saturating_record(elapsed_ns),
                Err(error) => {
                    tally.errors += 1;
                    tally.error.get_or_insert(error);
                }
            }
        }
    }

    fn choose(&self) -> (usize, bool) {
        let mut random = self.random.borrow_mut();
        let writes = self.draw.writes(&mut random);
        loop {
            let record = self.draw.record(&mut random);
            // Ends: there are twice as many records as requests may be under way.
            if !writes || self.records.take(record) {
                return (record, writes);
            }
        }
    }

    async fn put(&self, record: usize) -> Result<(), String> {
        let (value, request_id) = {
            let mut random = self.random.borrow_mut();
            let mut request_id = [0; 16];
            random.fill_bytes(&mut request_id);
            (self.records.value(&mut random), Bytes::copy_from_slice(&request_id))
        };
        let context = self.records.context(record);
        let put = v1::PutRequest {
            keyspace: self.records.policy.keyspace().into(),
            key: self.records.key(record),
            value,
            blind: context.is_empty(),
            context,
            write: replicas(self.point.write),
            request_id,
            content_type: String::new(),
            timeout_ms: PATIENCE_MS,
            ttl_ms: 0,
            until: None,
            retry_of_ms_ago: 0,
        };
        match self.caller(record).call(Request::Put(put)).await? {
            Outcome::Write(reply) => {
                if self.records.policy == Policy::Siblings {
                    self.records.set_context(record, reply.context);
                }
                Ok(())
            }
            _ => Err("another kind of reply than a put's".into()),
        }
    }

    /// The context that was read.
    async fn get(&self, record: usize) -> Result<Bytes, String> {
        let get = v1::GetRequest {
            keyspace: self.records.policy.keyspace().into(),
            key: self.records.key(record),
            read: replicas(self.point.read),
            want: v1::Want::Resolved as i32,
            timeout_ms: PATIENCE_MS,
        };
        match self.caller(record).call(Request::Get(get)).await? {
            Outcome::Get(reply) if is_value(&reply, self.point.value_bytes) => Ok(reply.context),
            Outcome::Get(reply) => Err(format!(
                "a get found {} siblings, not one value of {} bytes",
                reply.siblings.len(),
                self.point.value_bytes
            )),
            _ => Err("another kind of reply than a get's".into()),
        }
    }

    async fn echo(&self, record: usize) -> Result<(), String> {
        let query = v1::QueryRequest {
            keyspace: self.records.policy.keyspace().into(),
            key: self.records.key(record),
            path: self.records.value(&mut self.random.borrow_mut()),
            read: replicas(self.point.read),
            timeout_ms: PATIENCE_MS,
            context: Bytes::new(),
        };
        match self.caller(record).call(Request::Query(query)).await? {
            Outcome::Query(reply) if reply.result.len() == self.point.value_bytes => Ok(()),
            _ => Err("the echo is not what was said".into()),
        }
    }

    fn caller(&self, record: usize) -> &Caller {
        let callers = &self.callers[self.records.node(record)];
        &callers[self.turn.replace(self.turn.get().wrapping_add(1)) % callers.len()]
    }
}

/// Every answer is looked at: a store that loses values is quick.
fn is_value(reply: &v1::GetReply, value_bytes: usize) -> bool {
    match &reply.siblings[..] {
        [sibling] => {
            matches!(&sibling.content, Some(v1::sibling::Content::Value(value)) if value.len() == value_bytes)
        }
        _ => false,
    }
}

fn replicas(count: u32) -> Option<v1::Quorum> {
    let kind = Some(v1::quorum::Kind::Replicas(count));
    Some(v1::Quorum { kind, ..v1::Quorum::default() })
}

async fn closed_loop(load: Rc<Load>) {
    while !load.stopped() {
        load.operation(Instant::now()).await;
    }
}

async fn open_loop(load: Rc<Load>, rate: u32) {
    let (starts, mut intended) = mpsc::unbounded_channel();
    let stop = Arc::clone(&load.stop);
    // A thread, because a runtime's timer has a grain of a millisecond.
    let pacer = std::thread::spawn(move || pace(rate, &stop, &starts));
    let mut last = None;
    while let Some(began) = intended.recv().await {
        if load.outstanding.get() >= load.point.outstanding_max() {
            load.tally.borrow_mut().overrun = true;
            continue;
        }
        load.outstanding.set(load.outstanding.get() + 1);
        let load = Rc::clone(&load);
        last = Some(tokio::task::spawn_local(async move {
            load.operation(began).await;
            load.outstanding.set(load.outstanding.get() - 1);
        }));
    }
    if let Some(last) = last {
        let _ = last.await;
    }
    let _ = pacer.join();
}

/// Sends the moments at which requests should begin, each when it comes.
fn pace(rate: u32, stop: &AtomicBool, starts: &mpsc::UnboundedSender<Instant>) {
    let began = Instant::now();
    for number in 0_u64.. {
        let intended = began + Duration::from_nanos(number * 1_000_000_000 / u64::from(rate));
        let now = Instant::now();
        if intended > now {
            std::thread::sleep(intended - now);
        }
        if stop.load(Ordering::Relaxed) || starts.send(intended).is_err() {
            return;
        }
    }
}

/// Which of the machine's random numbers a point uses: always the same.
pub(crate) fn seeded() -> SmallRng {
    use rand::SeedableRng;
    let mut random = SmallRng::seed_from_u64(0x6d65_7267_616e_7365);
    let _: u64 = random.random();
    random
}
