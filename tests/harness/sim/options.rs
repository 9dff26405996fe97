//! What a run is made of, all of it: a seed gives options, options print as one line and are read
//! back from it.
//!
//! A seed alone dies with the next change of how options are drawn; the expanded line does not,
//! so failing seeds are kept with it (`tests/seeds.txt`). In: a seed, or a line. Out: numbers.
//! Absent: what they do, which is in the files that use them.

use super::bug::Bug;
use super::dice::Dice;
use super::faults::FaultKind;

macro_rules! options {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// A run.
        #[derive(Clone, Debug, PartialEq, Eq, Default)]
        pub struct Options {
            $($(#[$doc])* pub $field: u64,)*
            /// A known bug, switched on.
            pub bug: Option<Bug>,
        }

        impl Options {
            fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }

            fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($field) => self.$field = value,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

options! {
    /// Of everything that is left to chance.
    seed,
    /// Requests of clients, retries not counted.
    ops,
    /// Members of the cluster.
    nodes,
    /// N of every keyspace; R and W are majorities, or lean to one side.
    replicas,
    /// R of every keyspace.
    read_quorum,
    /// W of every keyspace.
    write_quorum,
    /// Clients, each with one request at a time.
    clients,
    /// Bit per kind of keyspace, see `workload::KEYSPACES`.
    keyspaces,
    /// Those whose writes are acknowledged before they are synced: synced a little later.
    interval_keyspaces,
    /// Those whose writes are synced whenever.
    none_keyspaces,
    /// Keys of each keyspace.
    keys,
    /// Longest pause of a client between two requests.
    think_us_max,
    /// How often a client repeats a request whose outcome it does not know.
    retry_permille,
    /// Writes that forget what was read.
    blind_permille,
    /// Writes with bytes that another write of this key has used.
    equal_permille,
    /// Shortest and longest way of a message.
    delay_us_min,
    /// Its longest.
    delay_us_max,
    /// Messages that never arrive.
    loss_permille,
    /// Messages that arrive twice.
    duplicate_permille,
    /// Messages that take twenty times as long.
    straggler_permille,
    /// Longest time from a submitted write to its group commit.
    disk_us_max,
    /// Commits that find no room.
    no_room_permille,
    /// Reads that are answered in a later turn.
    slow_read_permille,
    /// Longest time of a plugin call.
    plugin_us_max,
    /// Plugin calls that fail.
    plugin_failure_permille,
    /// Bit per kind of fault, see `faults::FaultKind`.
    faults,
    /// Mean time between two faults.
    fault_period_us,
    /// Longest time that a fault lasts.
    fault_us_max,
    /// Links whose going down or up is never told.
    silent_link_permille,
    /// Largest error of a node's clock at its start.
    skew_ms_max,
    /// How often nodes gossip.
    gossip_period_ms,
    /// How often a node compares its trees with a peer's.
    anti_entropy_period_ms,
    /// How often deletes are collected; 0: never.
    collect_period_ms,
    /// Puts of values that expire.
    ttl_permille,
    /// Their longest life.
    ttl_ms_max,
    /// Bytes at which storage freezes a memtable.
    memtable_bytes,
    /// Requests that lie somewhere, perhaps until nobody waits for them any more.
    late_request_permille,
    /// 1 in so many acknowledgements is verified against a reopened image of a power loss; 0: none.
    image_one_in,
    /// Of a hundred requests of a shipped type, so many read; 0: 35.
    type_reads_percent,
    /// How often what is kept for others is taken home; 0: every 100 ms.
    hint_period_ms,
    /// Keyspaces whose quorums are sloppy; 0: 750.
    sloppy_permille,
    /// Shortest time that a fault lasts; 0: 1 ms.
    fault_us_min,
    /// Requests that a client sends beside the one that it waits for, of the same key.
    pipeline_permille,
    /// Acknowledged writes whose client sends them again later, through any node, as if it had not heard.
    repeat_permille,
}

/// Runs of one sort, for `sim --profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Stand-ins coordinate many operations of shipped types.
    Windows,
    /// Clients send several requests at a time.
    Pipelines,
    /// Clients repeat what was acknowledged.
    Repeats,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 3] = [Profile::Windows, Profile::Pipelines, Profile::Repeats];

    /// The sort that prints as `name`, in lower case.
    pub fn of_name(name: &str) -> anyhow::Result<Profile> {
        let found = Profile::ALL.into_iter().find(|profile| format!("{profile:?}").to_lowercase() == name);
        found.ok_or_else(|| anyhow::anyhow!("there is no profile {name:?}; there are {:?}", Profile::ALL))
    }

    /// The run of a seed, made into one of this sort.
    pub fn options(self, seed: u64, ops: u64) -> Options {
        let mut options = Options { ops, ..Options::from_seed(seed, ops) };
        let dice = &mut Dice::new(seed).fork(9);
        match self {
            Profile::Windows => options.becomes_windows(dice),
            Profile::Pipelines => options.pipeline_permille = dice.between(100, 700),
            Profile::Repeats => options.repeat_permille = dice.between(50, 400),
        }
        options
    }
}

impl Options {
    /// The run of a seed. Every kind of trouble is on or off by a coin of its own, so that runs
    /// differ in kind and not only in detail.
    pub fn from_seed(seed: u64, ops: u64) -> Options {
        let dice = &mut Dice::new(seed).fork(1);
        let some = |dice: &mut Dice, permille: u64, low: u64, high: u64| {
            let value = dice.between(low, high);
            if dice.chance(permille) { value } else { 0 }
        };
        let mut options = Options { seed, ops, ..Options::default() };
        options.nodes = dice.between(3, 5);
        options.clients = if dice.chance(800) { dice.between(2, 6) } else { dice.between(8, 16) };
        options.keyspaces = loop {
            let mask = dice.next() & dice.next() & 0x7f;
            if mask != 0 {
                break mask;
            }
        };
        if dice.chance(400) {
            // One kind alone: all clients meet at one key or two.
            options.keyspaces = 1 << dice.below(7);
        }
        options.keys = if options.clients > 6 { 1 } else { dice.between(1, 2) };
        options.think_us_max = [2_000, 10_000, 40_000][dice.below(3) as usize];
        options.retry_permille = some(dice, 800, 200, 900);
        options.blind_permille = some(dice, 800, 20, 400);
        options.equal_permille = some(dice, 600, 20, 300);
        options.delay_us_min = dice.between(50, 1_000);
        options.delay_us_max = options.delay_us_min + [500, 5_000, 30_000][dice.below(3) as usize];
        options.loss_permille = some(dice, 500, 1, 100);
        options.duplicate_permille = some(dice, 600, 10, 300);
        options.straggler_permille = some(dice, 500, 1, 100);
        options.disk_us_max = [200, 2_000, 15_000][dice.below(3) as usize];
        options.slow_read_permille = some(dice, 700, 50, 1_000);
        options.no_room_permille = some(dice, 450, 50, 300);
        options.plugin_us_max = [10, 3_000, 30_000][dice.below(3) as usize];
        options.plugin_failure_permille = some(dice, 600, 20, 500);
        options.faults = dice.next() & FaultKind::mask_all();
        if dice.chance(80) {
            options.faults = 0;
        }
        options.fault_period_us = dice.between(20_000, 300_000);
        if dice.chance(300) {
            // One or two kinds alone, and often.
            let kind = |dice: &mut Dice| 1 << dice.below(FaultKind::ALL.len() as u64);
            options.faults = kind(dice) | kind(dice);
            options.fault_period_us = dice.between(5_000, 50_000);
        }
        options.fault_us_max = dice.between(20_000, 800_000);
        options.silent_link_permille = some(dice, 500, 100, 1_000);
        options.skew_ms_max = some(dice, 500, 1, 2_000);
        options.memtable_bytes = [4 << 10, 16 << 10, 64 << 10][dice.below(3) as usize];
        options.image_one_in = some(dice, 50, 20, 60);
        options.replicas = if dice.chance(750) { 3 } else { dice.between(2, options.nodes) };
        options.anti_entropy_period_ms = [300, 500, 2_000][dice.below(3) as usize];
        options.gossip_period_ms = [80, 150, 300][dice.below(3) as usize];
        let majority = options.replicas / 2 + 1;
        (options.read_quorum, options.write_quorum) = match dice.below(10) {
            0 => (1, options.replicas),
            1 => (options.replicas, 1),
            2 => (1, majority),
            _ => (majority, majority),
        };
        if dice.chance(250) {
            options.interval_keyspaces = dice.next() & 0x7f;
            options.none_keyspaces = dice.next() & dice.next() & 0x7f;
        }
        options.collect_period_ms = some(dice, 700, 5, 100);
        options.ttl_permille = some(dice, 400, 20, 600);
        options.ttl_ms_max = dice.between(5, 500);
        options.late_request_permille = some(dice, 500, 5, 100);
        // A fifth has a shipped type in it, or is of nothing else.
        let kind = 1 << (6 + dice.below(5));
        match dice.below(100) {
            0..=9 => options.keyspaces |= kind,
            10..=14 => options.keyspaces = kind,
            15..=19 => options.becomes_windows(dice),
            _ => {}
        }
        options.pipeline_permille = some(dice, 300, 50, 500);
        // Repeats of what was acknowledged are drawn by `--profile repeats`: a coordinator that never met the first
        // write cannot tell the repeat from a new one (docs/decisions/retries.md), which C16 sees in 1 of 2,000 seeds.
        options
    }

    /// One key of one shipped type, and stand-ins that coordinate more of its operations than types keep one by one, go
    /// home, and begin again from nothing: cuts and stops that are long beside an operation, few replicas, retries.
    fn becomes_windows(&mut self, dice: &mut Dice) {
        self.keyspaces = 1 << (6 + dice.below(3));
        (self.ops, self.keys, self.clients) = (self.ops * 2, 1, dice.between(3, 6));
        self.think_us_max = [2_000, 6_000][dice.below(2) as usize];
        self.replicas = dice.between(1, 3.min(self.nodes - 1));
        let majority = self.replicas / 2 + 1;
        (self.read_quorum, self.write_quorum) = (majority, majority);
        self.retry_permille = dice.between(500, 1_000);
        self.delay_us_max = self.delay_us_min + 500;
        (self.disk_us_max, self.plugin_us_max) = (200, 10);
        (self.no_room_permille, self.slow_read_permille, self.late_request_permille) = (0, 0, 0);
        (self.interval_keyspaces, self.none_keyspaces, self.image_one_in) = (0, 0, 0);
        self.straggler_permille = self.straggler_permille.min(5);
        self.loss_permille = self.loss_permille.min(10);
        self.plugin_failure_permille = self.plugin_failure_permille.min(20);
        let stops = [FaultKind::Kill, FaultKind::Shutdown, FaultKind::Partition, FaultKind::Pause];
        self.faults = FaultKind::ReplicasAway.bit();
        if dice.chance(500) {
            self.faults |= stops.into_iter().fold(0, |mask, kind| mask | kind.bit());
        }
        self.fault_us_max = dice.between(80_000, 250_000);
        self.fault_us_min = 60_000;
        self.fault_period_us = self.fault_us_max + dice.between(0, 60_000);
        self.type_reads_percent = dice.between(1, 10);
        (self.hint_period_ms, self.sloppy_permille) = (20, 1_000);
    }

    /// Reads what [`std::fmt::Display`] prints. Options that are not named are those of the seed,
    /// in a line that names them all (as then known) they are off.
    pub fn parse(line: &str) -> anyhow::Result<Options> {
        let mut pairs = Vec::new();
        let mut bug = None;
        for word in line.split_whitespace() {
            let Some((name, value)) = word.split_once('=') else {
                anyhow::bail!("{word:?} is not name=value");
            };
            if name == "bug" {
                bug = Some(Bug::of_name(value)?);
            } else {
                pairs.push((name, value.parse::<u64>()?));
            }
        }
        let find = |wanted: &str| pairs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let Some(seed) = find("seed") else { anyhow::bail!("no seed= in {line:?}") };
        // A complete line from before an option existed does without it; but hearts always beat.
        let complete = find("nodes").is_some() && find("image_one_in").is_some();
        let drawn = Options::from_seed(seed, find("ops").unwrap_or(200));
        let bare = Options {
            seed,
            gossip_period_ms: drawn.gossip_period_ms,
            anti_entropy_period_ms: drawn.anti_entropy_period_ms,
            ..Options::default()
        };
        let mut options = if complete { bare } else { drawn };
        for (name, value) in pairs {
            anyhow::ensure!(options.set(name, value), "there is no option {name:?}");
        }
        options.bug = bug;
        Ok(options)
    }

    /// Whether a kind of fault may happen.
    pub fn allows(&self, kind: FaultKind) -> bool {
        self.faults & kind.bit() != 0
    }
}

impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, value)) in self.fields().into_iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name}={value}")?;
        }
        self.bug.map_or(Ok(()), |bug| write!(f, " bug={bug:?}"))
    }
}
