//! Clients: each sends one request at a time, remembers what it was shown, and repeats what it
//! does not know the outcome of, with the same id, through any node.
//!
//! In: replies of nodes, or none. Out: requests, the history. Absent: what to ask (`workload.rs`), what a reply means (`answers.rs`).

use super::workload::{self, Memory};
use super::world::{Due, World};
use crate::history::{History, KeyIndex, Op, OpIndex, What};
use crate::properties::{Check, c14_progress};
use bytes::Bytes;
use merganser_core::event::Event;
use merganser_core::id::ClientTicket;
use merganser_core::moment::Moment;
use merganser_core::request::{Level, Operation, Outcome, Request, Sloppiness, Want};

/// How often a request is sent at most.
const ATTEMPTS_MAX: u32 = 6;
/// How much later a client repeats what was acknowledged.
const REPEAT_US_MAX: u64 = 500_000;
/// How much longer than its node a client waits.
const PATIENCE_US: u64 = 200_000;

/// A client.
pub(super) struct Client {
    /// What it was last told of each key.
    pub(super) remembers: Vec<Option<Memory>>,
    /// The attempt that it waits for.
    pub(super) waits_for: Option<u64>,
    /// What it will send again.
    again: Option<(OpIndex, Request)>,
    /// The keys that it alone writes hold one value, as far as it knows.
    pub(super) certain: bool,
    pub(super) finished: bool,
}

impl Client {
    pub(super) fn new(keys: usize) -> Client {
        Client { remembers: vec![None; keys], waits_for: None, again: None, certain: true, finished: false }
    }
}

/// Whether a client waits for what it sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Until,
    /// It waits for something else, or goes on.
    Beside,
}

/// A request on its way; its ticket is its index.
pub(super) struct Attempt {
    pub(super) op: OpIndex,
    /// None: a final read of the world itself.
    pub(super) client: Option<usize>,
    pub(super) begun_us: u64,
    pub(super) answered: bool,
    /// The answer, where nobody remembers it.
    pub(super) told: Option<(Outcome, Option<Memory>)>,
    /// See C14.
    pub(super) begun_in_health: bool,
    request: Request,
}

impl World {
    /// Clients go on for so many requests.
    pub(super) fn clients_go_on(&mut self, ops: u64) {
        self.ops_left = ops;
        for client in 0..self.clients.len() {
            self.clients[client].finished = false;
            self.schedule(client as u64, Due::Client { client });
        }
    }

    pub(super) fn clients_are_done(&self) -> bool {
        self.clients.iter().all(|client| client.finished)
    }

    /// A client sends its next request, or the last one again.
    pub(super) fn client_goes_on(&mut self, client: usize) -> Check {
        if let Some((op, request)) = self.clients[client].again.take() {
            self.count("retry");
            return self.attempt(Some(client), op, request);
        }
        if self.ops_left == 0 {
            self.clients[client].finished = true;
            return Ok(());
        }
        let (op, request) = self.next_request(client, None);
        self.attempt(Some(client), op, request)?;
        self.pipeline(client, op)
    }

    /// What a client asks beside what it waits for: more of the same key, at once, through any nodes.
    fn pipeline(&mut self, client: usize, first: OpIndex) -> Check {
        let key = self.history.ops[first].key;
        let may = self.trouble && self.history.keys[key].solo.is_none();
        while may
            && self.options.pipeline_permille > 0
            && self.ops_left > 0
            && self.client_dice.chance(self.options.pipeline_permille)
        {
            self.count("request beside another");
            let (op, request) = self.next_request(client, Some(key));
            self.attempt_beside(client, op, request)?;
        }
        Ok(())
    }

    /// A client's next request, of one key or any.
    fn next_request(&mut self, client: usize, key: Option<KeyIndex>) -> (OpIndex, Request) {
        self.ops_left -= 1;
        let remembers = &self.clients[client].remembers;
        let plan =
            workload::plan(&self.options, &mut self.client_dice, &self.history, (client, key), remembers);
        let op = self.history.begin(Op {
            client,
            key: plan.key,
            what: plan.what.clone(),
            seen: plan.seen,
            begun_us: self.now_us,
            attempts: 0,
            refused: 0,
            dots: Vec::new(),
            acknowledged: false,
            awaited_until_us: 0,
        });
        if plan.ttl_ms.is_some() {
            self.count("put that expires");
        }
        let request_id = History::request_id(op);
        let operation = match plan.what {
            What::Get => Operation::Get { want: if plan.siblings { Want::Siblings } else { Want::Resolved } },
            What::Put(value, _) => Operation::Put {
                value,
                content_type: None,
                basis: plan.basis,
                request_id,
                ttl_ms: plan.ttl_ms,
            },
            What::Delete => Operation::Delete { basis: plan.basis, request_id },
            What::Apply(op) => Operation::Apply { op: op.bytes(), context: None, request_id },
            What::Query => Operation::Query { path: Bytes::new(), context: None },
        };
        let timeout_ms = if self.healthy { 5_000 } else { self.client_dice.between(20, 800) };
        let mut request = self.request(plan.key, plan.level, timeout_ms, operation);
        request.sloppiness = plan.sloppiness;
        (op, request)
    }

    /// A strict request; a client's may be another.
    pub(super) fn request(
        &self,
        key: KeyIndex,
        level: Level,
        timeout_ms: u64,
        operation: Operation,
    ) -> Request {
        let facts = &self.history.keys[key];
        Request {
            keyspace: facts.keyspace.clone(),
            key: facts.key.clone(),
            level,
            sloppiness: Sloppiness::Strict,
            timeout_ms: Some(timeout_ms),
            until: None,
            retry_of_ms_ago: None,
            operation,
        }
    }

    /// Sends a request to any node.
    fn attempt(&mut self, client: Option<usize>, op: OpIndex, request: Request) -> Check {
        let node = self.client_dice.below(self.machines.len() as u64) as usize;
        self.attempt_at(node, client, op, request)
    }

    /// Sends a request to any node for a client that goes on meanwhile.
    fn attempt_beside(&mut self, client: usize, op: OpIndex, request: Request) -> Check {
        let node = self.client_dice.below(self.machines.len() as u64) as usize;
        self.send_to(node, Some(client), Wait::Beside, op, request)
    }

    /// A client that was told OK may not have heard it: it sends the same again later.
    pub(super) fn may_repeat(&mut self, ticket: u64) {
        let Attempt { op, client: Some(client), .. } = self.attempts[ticket as usize] else { return };
        let (permille, solo) =
            (self.options.repeat_permille, self.history.keys[self.history.ops[op].key].solo);
        if permille > 0 && self.trouble && solo.is_none() && self.client_dice.chance(permille) {
            let after = self.client_dice.below(REPEAT_US_MAX);
            self.schedule(after, Due::Repeat { client, ticket });
        }
    }

    /// A write that was acknowledged comes once more.
    pub(super) fn repeat(&mut self, client: usize, ticket: u64) -> Check {
        if !self.trouble {
            return Ok(());
        }
        self.count("repeat of what was acknowledged");
        let Attempt { op, request, .. } = &self.attempts[ticket as usize];
        let (op, request) = (*op, request.clone());
        self.attempt_beside(client, op, request)
    }

    pub(super) fn attempt_at(
        &mut self,
        node: usize,
        client: Option<usize>,
        op: OpIndex,
        request: Request,
    ) -> Check {
        self.send_to(node, client, Wait::Until, op, request)
    }

    fn send_to(
        &mut self,
        node: usize,
        client: Option<usize>,
        wait: Wait,
        op: OpIndex,
        mut request: Request,
    ) -> Check {
        let ticket = self.attempts.len() as u64;
        let patience_us = request.timeout_ms.unwrap_or(1_000) * 1000 + PATIENCE_US;
        let until_us = self.now_us + patience_us;
        let facts = &mut self.history.ops[op];
        facts.attempts += 1;
        facts.awaited_until_us = facts.awaited_until_us.max(until_us);
        let name = &self.machines[node].name;
        self.trace.note(self.now_us, "->", [client.unwrap_or(99) as u64, op as u64, node as u64], || {
            let who = client.map_or("audit".to_string(), |client| format!("c{client}"));
            format!("{who} op{op} at {name}: {} {:?} {:?}", request.keyspace, request.key, request.operation)
        });
        self.attempts.push(Attempt {
            op,
            client,
            begun_us: self.now_us,
            answered: false,
            told: None,
            begun_in_health: self.healthy,
            request: request.clone(),
        });
        if let (Some(client), Wait::Until) = (client, wait) {
            self.clients[client].waits_for = Some(ticket);
            self.schedule(patience_us, Due::GiveUp { client, ticket });
        }
        match &self.machines[node].process {
            Some(process) => {
                let boot = process.boot;
                let session = process.node.moment().session;
                let running_ms = (until_us - process.begun_us) / 1000;
                request.until = Some(Moment { session, running_ms });
                let late = self.trouble
                    && self.options.late_request_permille > 0
                    && self.client_dice.chance(self.options.late_request_permille);
                let mut after_us = 1;
                if late {
                    // It lies somewhere: twice as long as anybody waits, at most.
                    after_us = self.client_dice.below(2 * patience_us);
                    self.count("request late");
                }
                let event = Event::Client { ticket: ClientTicket(ticket), request };
                self.schedule(after_us, Due::Tell { node, boot, event: Box::new(event) });
                Ok(())
            }
            // Nobody listens: that is known at once, and nothing was stored.
            None => {
                self.count("connection refused");
                self.attempts[ticket as usize].answered = true;
                self.history.ops[op].refused += 1;
                self.proceed(ticket, false);
                Ok(())
            }
        }
    }

    /// A client does not know what became of its request.
    pub(super) fn client_gives_up(&mut self, client: usize, ticket: u64) -> Check {
        if self.clients[client].waits_for != Some(ticket) {
            return Ok(());
        }
        let op = self.attempts[ticket as usize].op;
        self.trace.note(self.now_us, "??", [client as u64, op as u64, 0], || format!("c{client} op{op}"));
        self.count("gave up");
        if self.healthy && self.attempts[ticket as usize].begun_in_health {
            c14_progress::on_silence_in_health(op)?;
        }
        self.doubt(op);
        self.proceed(ticket, true);
        Ok(())
    }

    /// The outcome of a write of a key's only client is unknown: what it sees next may be two.
    pub(super) fn doubt(&mut self, op: OpIndex) {
        let Op { client, key, .. } = self.history.ops[op];
        if self.history.keys[key].solo == Some(client) && self.is_write(op) {
            self.clients[client].certain = false;
        }
    }

    fn is_write(&self, op: OpIndex) -> bool {
        !matches!(self.history.ops[op].what, What::Get | What::Query)
    }

    /// The client of an attempt that is over goes on: with the same request, or with another.
    pub(super) fn proceed(&mut self, ticket: u64, try_again: bool) {
        let attempt = &self.attempts[ticket as usize];
        let (op, Some(client)) = (attempt.op, attempt.client) else { return };
        if self.clients[client].waits_for != Some(ticket) {
            return;
        }
        self.clients[client].waits_for = None;
        let tries = self.history.ops[op].attempts;
        let again = try_again && tries < ATTEMPTS_MAX && self.client_dice.chance(self.options.retry_permille);
        if again {
            let request = self.attempts[ticket as usize].request.clone();
            self.clients[client].again = Some((op, request));
        }
        let think = self.client_dice.below(self.options.think_us_max);
        self.schedule(think, Due::Client { client });
    }
}
