//! What a node knows from the start: itself, the members, its patience.
//!
//! In: the shell's validated configuration. Out: a typed struct. Absent: files and defaults of
//! the shell.

use crate::catalog::PluginEntry;
use crate::id::NodeId;
use crate::ring::RingNode;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// For people; the id follows from it.
    pub name: String,
    /// As the ring sees it.
    pub ring: RingNode,
}

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; one of the members.
    pub node: NodeId,
    /// All members, this one included.
    pub members: Vec<Member>,
    /// Shared by all nodes; seals contexts.
    pub cluster_secret: Vec<u8>,
    /// Shipped with every node.
    pub built_in: Vec<PluginEntry>,
    /// Whether they are compiled already. Otherwise the shell compiles those that a keyspace
    /// refers to, and says so with [`crate::event::Event::PluginLoaded`].
    pub built_in_compiled: bool,
    /// Patience of requests that do not say theirs.
    pub timeout_ms: u64,
    /// Longest patience that a request may ask for.
    pub timeout_ms_max: u64,
    /// After so long without an answer a read asks one more replica.
    pub hedge_ms: u64,
    /// Where peers find this node; told to them, so that they notice when it changes.
    pub address: String,
    /// How often this node's heart beats and it gossips. The detector's patience follows from it.
    pub gossip_period_ms: u64,
    /// With how many members at a time.
    pub fanout: usize,
    /// Suspicion from which a member is asked after others.
    pub phi_suspect: f64,
    /// Suspicion from which, times the multiplier of the own health, a member counts as down.
    pub phi_down: f64,
    /// How long a node that has booted waits for a member that can tell whether its disk is an old
    /// one, before it serves all the same.
    pub join_patience_ms: u64,
    /// A member that was down for so long is forgotten: its disk may not come back.
    pub forget_ms: u64,
    /// After so long without an answer a write's stand-ins are asked; sooner where the request has
    /// less patience.
    pub stand_in_after_ms: u64,
    /// Hints kept for one node in bytes; beyond, repair takes over.
    pub hint_bytes_max: u64,
    /// Hints older than this are given to the target's fellow primaries, and up to repair.
    pub hint_age_ms_max: u64,
    /// At what pace hints go home, to all nodes together.
    pub hint_rate_bytes_per_s: u64,
    /// Hints under way to one node.
    pub hint_window: usize,
    /// How often it is looked whether hints can go home.
    pub hint_period_ms: u64,
    /// How often a round of anti-entropy begins.
    pub anti_entropy_period_ms: u64,
    /// What repair may send each second.
    pub repair_bytes_per_s: u64,
    /// How often what deletes leave behind is looked for; 0: never.
    pub collect_period_ms: u64,
    /// How long a collected key is remembered: longer than any message or request can be under way.
    pub grave_ms: u64,
    /// Requests in flight beyond which new ones are shed.
    pub in_flight_max: usize,
    /// What requests in flight may weigh together, in bytes: beyond, new ones are shed.
    pub cost_in_flight_max: u64,
    /// Reads a second from which on the reads of a key that are under way at once share a flight
    /// (see `coordinator::flights`); 0: those of every key.
    pub shared_reads_per_s: u32,
    /// Bytes of plugins' answers that are kept for further reads.
    pub view_cache_bytes: usize,
    /// A pass of the scrub begins so long after the one before (see `anti_entropy::scrub`).
    pub scrub_period_ms: u64,
    /// What the scrub reads in a second at most, in bytes.
    pub scrub_bytes_per_s: u64,
    /// A bug to run with, in a simulation that must find it.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::mutant::Mutant>,
}

impl Config {
    /// With default patience.
    pub fn new(node: NodeId, members: Vec<Member>, cluster_secret: Vec<u8>) -> Config {
        Config {
            node,
            members,
            cluster_secret,
            built_in: Vec::new(),
            built_in_compiled: true,
            timeout_ms: 2_000,
            timeout_ms_max: 60_000,
            hedge_ms: 20,
            address: String::new(),
            gossip_period_ms: 250,
            fanout: 3,
            phi_suspect: 5.0,
            phi_down: 8.0,
            join_patience_ms: 2_000,
            forget_ms: 7 * 24 * 3_600 * 1_000,
            stand_in_after_ms: 200,
            hint_bytes_max: 256 << 20,
            hint_age_ms_max: 3 * 3_600_000,
            hint_rate_bytes_per_s: 32 << 20,
            hint_window: 64,
            hint_period_ms: 500,
            anti_entropy_period_ms: 10_000,
            repair_bytes_per_s: 32 << 20,
            collect_period_ms: 200,
            grave_ms: 300_000,
            in_flight_max: 20_000,
            cost_in_flight_max: 256 << 20,
            shared_reads_per_s: 500,
            view_cache_bytes: 16 << 20,
            scrub_period_ms: 7 * 24 * 3_600_000,
            scrub_bytes_per_s: 4 << 20,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}
