//! What a node tells operators of itself: counts since the start, and what is under way.
//!
//! In: the rooms' counts. Out: metrics with their meaning and unit. Absent: how they are shown.

use crate::boot::Incarnation;
use crate::id::Millis;
use crate::node::Node;

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    pub(crate) forwards: u64,
    pub(crate) uncertain: u64,
    pub(crate) refused: u64,
    pub(crate) shed: u64,
    pub(crate) late: u64,
    pub(crate) too_hot: u64,
    pub(crate) reads_shared: u64,
    pub(crate) read_repairs: u64,
    pub(crate) hedges: u64,
    pub(crate) hedges_refused: u64,
    pub(crate) probes: u64,
    pub(crate) views: u64,
    pub(crate) view_hits: u64,
    pub(crate) joins: u64,
    pub(crate) plugin_failures: u64,
    pub(crate) unvalidated: u64,
    pub(crate) set_aside: u64,
    pub(crate) write_backs: u64,
    pub(crate) breakers: u64,
    pub(crate) amnesias: u64,
    pub(crate) dots_reused: u64,
    pub(crate) large_contexts: u64,
    pub(crate) keys_too_large: u64,
    pub(crate) messages_too_large: u64,
    pub(crate) corrupt_records: u64,
    pub(crate) leaves_rescanned: u64,
    pub(crate) hints_stored: u64,
    pub(crate) hints_home: u64,
    pub(crate) hints_dropped: u64,
    pub(crate) hints_given_up: u64,
    pub(crate) hints_malformed: u64,
    pub(crate) exchanges: u64,
    pub(crate) exchanges_idle: u64,
    pub(crate) exchange_bytes: u64,
    pub(crate) exchange_differences: u64,
    pub(crate) exchange_keys_sent: u64,
    pub(crate) exchange_keys_taken: u64,
}

/// A snapshot for operators.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who this node is now.
    pub incarnation: Incarnation,
    /// Requests it coordinates or forwards at this moment.
    pub in_flight: usize,
    /// Name, meaning with unit, value.
    pub metrics: Vec<(&'static str, &'static str, f64)>,
}

impl Node {
    /// A snapshot for operators.
    pub fn status(&self) -> Status {
        let (c, m) = (&self.counters, &self.membership.counters);
        let (multiplier, suspect, down) = self.presence();
        let (hints, hint_bytes) = self.hint_totals();
        // Ages are left to the view.
        let collection = self.collection(Millis(0));
        let metrics = vec![
            ("writes", "client writes coordinated", c.writes),
            ("reads", "client reads coordinated", c.reads),
            ("forwards", "requests forwarded to a replica", c.forwards),
            ("writes_uncertain", "writes whose patience ended after a dot was issued", c.uncertain),
            ("requests_refused", "requests answered with an error before anything was stored", c.refused),
            ("requests_shed_by_cost", "requests refused because too much was in flight", c.shed),
            ("requests_late", "writes refused because whoever asked had given them up", c.late),
            ("cost_in_flight_bytes", "what requests in flight weigh", self.load.cost()),
            ("read_repairs", "states sent to replicas that lagged", c.read_repairs),
            ("hedged_reads", "reads that asked one more replica", c.hedges),
            (
                "hedges_refused",
                "reads that waited on, since the budget of extra messages was spent",
                c.hedges_refused,
            ),
            ("probes", "reads that asked a replica to learn how fast it is", c.probes),
            ("requests_too_hot", "requests refused because their key was asked for too much", c.too_hot),
            ("reads_shared", "reads of hot keys answered by another's flight", c.reads_shared),
            ("views", "conflicts shown to a plugin for a read", c.views),
            ("view_cache_hits", "conflicts shown to a reader as the plugin answered before", c.view_hits),
            ("view_cache_bytes", "plugins' answers kept for further reads", self.view_cache.bytes() as u64),
            ("joins", "lattice states joined by a plugin", c.joins),
            ("plugin_failures", "plugin calls without an answer; the siblings stayed", c.plugin_failures),
            ("unvalidated", "puts kept though the plugin did not look at their value in time", c.unvalidated),
            ("set_aside", "operands of lattices that are joined with nothing from then on", c.set_aside),
            ("write_backs", "resolutions stored by this node as owner", c.write_backs),
            ("breakers_tripped", "keys whose automatic resolution stopped", c.breakers),
            ("amnesias", "times this node found its own data older than what left it", c.amnesias),
            ("dots_reused", "dots seen with two values", c.dots_reused),
            (
                "keys_too_large",
                "times a state was not taken in or sent because a record cannot hold it",
                c.keys_too_large,
            ),
            (
                "messages_too_large",
                "messages to peers that no frame holds, and that were not sent",
                c.messages_too_large,
            ),
            ("large_contexts", "writes to keys whose context has 32 spans or more", c.large_contexts),
            ("corrupt_records", "records that did not decode", c.corrupt_records),
            ("leaves_rescanned", "leaves of the trees worked out anew from their keys", c.leaves_rescanned),
            ("exchanges", "rounds of anti-entropy that came to their end", c.exchanges),
            ("exchanges_idle", "of them, those that found no difference", c.exchanges_idle),
            ("exchange_bytes", "bytes sent by anti-entropy, states included", c.exchange_bytes),
            ("exchange_differences", "keys found to differ from a peer's", c.exchange_differences),
            ("exchange_keys_sent", "states sent to peers that lacked them", c.exchange_keys_sent),
            ("exchange_keys_taken", "states taken in from peers' exchanges", c.exchange_keys_taken),
            ("leaves_stale", "leaves of the trees whose sum is not known now", self.stale_leaves() as u64),
            (
                "health_multiplier",
                "by how much this node is more patient for doubt in its own health",
                multiplier,
            ),
            ("members_suspect", "members that are late, or whose link is down", suspect),
            ("members_down_now", "members that are down", down),
            ("gossip_rounds", "members told how far this node knows all of them", m.rounds),
            ("member_entries", "entries of members taken in", m.entries),
            ("members_down", "times a member was taken to be down", m.downs),
            ("old_disks", "boots of members on a disk older than what left it", m.old_disks),
            ("refused_joining", "requests refused because this node had just booted", m.refused_joining),
            (
                "tombstones",
                "keys of which nothing is live, in slots that this node collects, about",
                collection.tombstones_known,
            ),
            ("collection_rounds", "rounds of collection begun here", collection.rounds),
            (
                "collection_blocked",
                "rounds of collection given up, and periods in which none could begin",
                collection.blocked,
            ),
            ("keys_collected", "keys of this disk that were collected", collection.reaped),
            ("contexts_retired", "contexts of this disk that lost their dead actors", collection.retired),
            ("collected_refused", "states refused because they had been collected", collection.refused),
            ("graves", "collected keys that are remembered now", collection.graves),
            ("hints_stored", "hints kept, markers included", c.hints_stored),
            ("hints_home", "hints that went home", c.hints_home),
            ("hints_dropped", "hints not kept for want of room; repair takes over", c.hints_dropped),
            ("hints_given_up", "hints too old to be kept; repair takes over", c.hints_given_up),
            ("hints_malformed", "hints that did not decode or are of no keyspace", c.hints_malformed),
            ("hints", "hints kept now", hints),
            ("hint_bytes", "what they take", hint_bytes),
            ("keys_active", "keys with work under way", self.active.len() as u64),
            ("timers", "timers pending", self.timers.len() as u64),
        ];
        Status {
            incarnation: self.identity.now().incarnation,
            in_flight: self.writing.len() + self.reading.len() + self.forwarding.len(),
            metrics: metrics.into_iter().map(|(name, help, value)| (name, help, value as f64)).collect(),
        }
    }
}
