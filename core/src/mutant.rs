//! Known bugs, switched on one at a time to test the tests: a simulation that does not notice
//! one of them proves nothing about it (4-testing.md).
//!
//! Compiled in with the feature `mutants` only; each site reads `self.mutant(Mutant::X)`.

/// A bug that somebody has shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A replica acknowledges before the write is durable.
    AckBeforeDurable,
    /// The coordinator counts itself before its own write is durable.
    AckWithoutOwnWrite,
    /// A node keeps its actor over a crash (the world restarts it so), and over amnesia.
    StableActor,
    /// A replica stores what it is sent instead of syncing it with what it has.
    OverwriteInsteadOfSync,
    /// A put supersedes nothing that its context covers.
    ContextIgnored,
    /// A put supersedes everything, whatever its context covers.
    ContextInvented,
    /// One replica that acknowledges twice counts as two.
    DuplicateAcksCounted,
    /// Every replica stores its own resolution of siblings that it is sent.
    MergeOnEveryReplica,
    /// Of byte-equal siblings only one dot is kept.
    CollapseEqualBytes,
    /// A retry is a new write.
    RetryGetsNewDot,
    /// A lattice put replaces the state.
    LatticeOverwrite,
    /// A failed join is answered with one of its operands.
    FailedJoinIsAValue,
    /// The context after a put covers all that the coordinator holds, seen or not.
    ContextClaimsUnseen,
    /// A register keeps what arrived last.
    LastArrivalWins,
    /// A forwarded request that the link repeats is done again, though its first arrival was
    /// refused (found by the simulator).
    RepeatedForwardIsDone,
    /// What waited for a state that could not be stored is told OK with the next one (found by the
    /// simulator).
    LostWritesAcknowledged,
    /// Some writes change their key and not the leaf that stands for it.
    TreeForgetsAWrite,
    /// A state that repair sends is sent back, though it says nothing new (pouchdb#4642).
    EqualContextPingPong,
    /// Tombstones go when one node finds them old enough, and nothing remembers them.
    ReapByTime,
    /// Collection does not ask for hints, and does not outlast them (scylladb#23712).
    ReapWithoutHintCheck,
    /// What was collected is not remembered: what was under way brings it back.
    NoGrave,
    /// A read shares the answer of one that had read before it began.
    ReadJoinsRunningFlight,
    /// A stand-in acknowledges before its hint is durable.
    HintCountedBeforeDurable,
    /// A hint is removed when it is sent home, not when it has arrived.
    HintDroppedBeforeAck,
    /// A hint that comes home replaces what is there (riak_kv#847).
    LateHintOverwrites,
    /// A register's write is stamped by the coordinator's clock alone, below what its client had read
    /// (scylladb#7082).
    ClockAlone,
    /// A node that has booted serves before a member has judged its disk.
    ServesWhileJoining,
    /// A node whose disk was taken back to what it was goes on with it.
    OldDiskServes,
    /// A node that stood still takes its peers to have been silent meanwhile.
    FlapsOnOwnPause,
    /// What the disk cannot read is given up before the other replicas have given what they hold of it.
    ExciseBeforeRefill,
    /// A put is written once its join has come, however long that takes.
    PutWaitsForJoin,
    /// A put whose value the plugin did not look at is joined with the others.
    UnvalidatedJoins,
    /// An operand that is set aside, or not validated, stops the join of the others.
    AsideStopsOthers,
    /// A request that lay somewhere until whoever asked had given it up is carried out.
    LateRequestIsDone,
    /// A stand-in that begins from nothing vouches for all that its actor ever did to a key.
    StandInVouchesForAll,
    /// A request that was carried out, and whose version was replaced since, is carried out once more where its coordinator's own memory does not know it.
    RetryElsewhereTakesEffect,
}

impl Mutant {
    /// All that a simulation must notice. `PutWaitsForJoin`, `UnvalidatedJoins` and `AsideStopsOthers` are noticed by core's own
    /// stories of whole clusters (`replica/tend_test`), `RetryElsewhereTakesEffect` by runs of repeats.
    pub const ALL: [Mutant; 32] = [
        Mutant::AckBeforeDurable,
        Mutant::AckWithoutOwnWrite,
        Mutant::StableActor,
        Mutant::OverwriteInsteadOfSync,
        Mutant::ContextIgnored,
        Mutant::ContextInvented,
        Mutant::DuplicateAcksCounted,
        Mutant::MergeOnEveryReplica,
        Mutant::CollapseEqualBytes,
        Mutant::RetryGetsNewDot,
        Mutant::LatticeOverwrite,
        Mutant::FailedJoinIsAValue,
        Mutant::ContextClaimsUnseen,
        Mutant::LastArrivalWins,
        Mutant::RepeatedForwardIsDone,
        Mutant::LostWritesAcknowledged,
        Mutant::TreeForgetsAWrite,
        Mutant::EqualContextPingPong,
        Mutant::ReapByTime,
        Mutant::ReapWithoutHintCheck,
        Mutant::NoGrave,
        Mutant::ReadJoinsRunningFlight,
        Mutant::HintCountedBeforeDurable,
        Mutant::HintDroppedBeforeAck,
        Mutant::LateHintOverwrites,
        Mutant::ClockAlone,
        Mutant::ServesWhileJoining,
        Mutant::OldDiskServes,
        Mutant::FlapsOnOwnPause,
        Mutant::ExciseBeforeRefill,
        Mutant::LateRequestIsDone,
        Mutant::StandInVouchesForAll,
    ];
}
