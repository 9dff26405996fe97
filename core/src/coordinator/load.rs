//! What clients have under way at this node, weighed; beyond its bounds new requests are shed.
//!
//! A request's cost is in bytes: a weight for its kind, which stands for the messages, timers and
//! table entries that it takes, and the bytes that it brought. So where there is room for a get
//! there may be none for a large put, and the cheap ones go on while the dear ones are shed. Only
//! what clients ask is weighed: replication, repair and an owner's resolutions are never refused
//! for their cost (R12). They yield instead: see [`Node::is_busy`].
//!
//! In: requests as they come and go. Out: room, or a problem that says when to come back. Absent:
//! bytes that wait for the disk or a peer; those bounds are the shell's.

use crate::config::Config;
use crate::id::Millis;
use crate::node::Node;
use crate::request::{Operation, Problem};

/// Of a get.
const GET_COST: usize = 4 << 10;
/// Of a query: it always ends at the plugin.
const QUERY_COST: usize = 8 << 10;
/// Of a put or a delete, without its value.
const WRITE_COST: usize = 8 << 10;
/// Of an operation: a write that always passes the plugin.
const APPLY_COST: usize = 16 << 10;

/// When a client should come back that was shed alone.
const RETRY_MS_MIN: u64 = 50;
/// And at most.
const RETRY_MS_MAX: u64 = 5_000;
/// How much longer clients are asked to stay away for shedding as much as may be in flight.
const RETRY_MS_PER_FILL: u64 = 1_000;
/// What was shed counts half after so long.
const SHED_HALF_LIFE_MS: u64 = 500;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Load {
    requests: usize,
    cost: u64,
    /// Cost of what was shed lately.
    shed: u64,
    shed_at: Millis,
}

/// What a request weighs, in bytes.
pub(crate) fn cost(operation: &Operation) -> u32 {
    let cost = match operation {
        Operation::Get { .. } => GET_COST,
        Operation::Query { path, .. } => QUERY_COST + path.len(),
        Operation::Put { value, .. } => WRITE_COST + value.len(),
        Operation::Delete { .. } => WRITE_COST,
        Operation::Apply { op, .. } => APPLY_COST + op.len(),
    };
    u32::try_from(cost).unwrap_or(u32::MAX)
}

impl Load {
    /// Takes a request on, or says when it should come again.
    pub(crate) fn admit(&mut self, now: Millis, cost: u32, config: &Config) -> Result<(), Problem> {
        let cost = u64::from(cost);
        // One alone always fits.
        let fits = self.cost == 0 || self.cost.saturating_add(cost) <= config.cost_in_flight_max;
        if fits && self.requests < config.in_flight_max {
            self.requests += 1;
            self.cost += cost;
            return Ok(());
        }
        let halvings = u32::try_from(now.since(self.shed_at) / SHED_HALF_LIFE_MS).unwrap_or(u32::MAX);
        if halvings > 0 {
            self.shed = self.shed.checked_shr(halvings).unwrap_or(0);
            self.shed_at = now;
        }
        self.shed = self.shed.saturating_add(cost);
        // The more was turned away lately, the later they all should come.
        let over_ms = self.shed.saturating_mul(RETRY_MS_PER_FILL) / config.cost_in_flight_max.max(1);
        let retry_after_ms = (RETRY_MS_MIN + over_ms).min(RETRY_MS_MAX) as u32;
        Err(Problem::Overloaded { retry_after_ms })
    }

    /// A request that was taken on has been answered.
    pub(crate) fn release(&mut self, cost: u32) {
        assert!(self.requests > 0 && self.cost >= u64::from(cost), "answered more than was taken on");
        self.requests -= 1;
        self.cost -= u64::from(cost);
    }

    /// Nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests == 0 && self.cost == 0
    }

    /// What is under way weighs so much.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }
}

impl Node {
    /// Whether clients have so much under way that work nobody waits for should wait itself.
    pub(crate) fn is_busy(&self) -> bool {
        let under_way = self.writing.len() + self.reading.len() + self.forwarding.len();
        under_way.max(self.load.requests) > self.config.in_flight_max / 2
            || self.load.cost > self.config.cost_in_flight_max / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, RequestId};
    use crate::request::{Basis, VALUE_BYTES_MAX, Want};
    use bytes::Bytes;

    const MIB: u32 = 1 << 20;

    fn config(requests: usize, cost: u64) -> Config {
        let mut config = Config::new(NodeId(1), Vec::new(), Vec::new());
        (config.in_flight_max, config.cost_in_flight_max) = (requests, cost);
        config
    }

    fn retry_after_ms(result: Result<(), Problem>) -> u32 {
        match result {
            Err(Problem::Overloaded { retry_after_ms }) => retry_after_ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_large_put_costs_more_than_a_small_one_and_that_more_than_a_get() {
        let put = |bytes| Operation::Put {
            value: Bytes::from(vec![0; bytes]),
            content_type: None,
            basis: Basis::Blind,
            request_id: RequestId([0; 16]),
            ttl_ms: None,
        };
        let get = Operation::Get { want: Want::Resolved };
        assert!(cost(&get) < cost(&put(0)));
        assert!(cost(&put(0)) * 100 < cost(&put(VALUE_BYTES_MAX)));
    }

    #[test]
    fn the_dear_are_shed_while_the_cheap_still_pass() {
        let (mut load, config) = (Load::default(), config(100, 4 * u64::from(MIB)));
        for _ in 0..3 {
            load.admit(Millis(0), MIB + 1, &config).unwrap();
        }
        retry_after_ms(load.admit(Millis(0), MIB, &config));
        load.admit(Millis(0), MIB / 2, &config).unwrap();
        load.release(MIB + 1);
        load.admit(Millis(0), MIB, &config).unwrap();
    }

    #[test]
    fn a_request_larger_than_all_there_may_be_passes_alone() {
        let (mut load, config) = (Load::default(), config(100, 1_000));
        load.admit(Millis(0), MIB, &config).unwrap();
        retry_after_ms(load.admit(Millis(0), 1, &config));
        load.release(MIB);
        assert!(load.is_idle());
    }

    #[test]
    fn the_more_is_shed_the_later_clients_are_asked_to_come_back_until_it_calms_down() {
        let (mut load, config) = (Load::default(), config(1, 1_000_000));
        load.admit(Millis(0), 1_000, &config).unwrap();
        let first = retry_after_ms(load.admit(Millis(0), 1_000, &config));
        let mut last = first;
        for _ in 0..1_000 {
            last = retry_after_ms(load.admit(Millis(1), 1_000, &config));
        }
        assert_eq!(first, 51);
        assert_eq!(last, 1_051);
        assert_eq!(retry_after_ms(load.admit(Millis(1_000_000), 1_000, &config)), first);
        for _ in 0..100_000 {
            last = retry_after_ms(load.admit(Millis(1_000_001), 1_000, &config));
        }
        assert_eq!(u64::from(last), RETRY_MS_MAX);
    }
}
