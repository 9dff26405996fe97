//! Known bugs that a simulation must notice: those of core, and those of the shell around it.
//!
//! In: nothing. Out: one switch for a run. Absent: the bugs themselves: core's stand in core
//! behind its feature `mutants`, the shell's where a node boots (`machine.rs`).

use merganser_core::mutant::Mutant;

/// A bug that somebody has shipped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// In core.
    Core(Mutant),
    /// The shell serves before the removal of the clean marker is synced, so that after a crash the
    /// marker is back and its counter is issued again.
    MarkerNotSynced,
    /// The shell starts on a disk whose identity names another node.
    AnothersDiskStarts,
    /// The shell tells core that a write is done when it is in the log but not synced.
    WriteDoneBeforeSync,
}

impl Bug {
    /// All of them.
    pub fn all() -> Vec<Bug> {
        let shell = [Bug::MarkerNotSynced, Bug::WriteDoneBeforeSync, Bug::AnothersDiskStarts];
        Mutant::ALL.into_iter().map(Bug::Core).chain(shell).collect()
    }

    /// The bug that prints as `name`.
    pub fn of_name(name: &str) -> anyhow::Result<Bug> {
        let found = Bug::all().into_iter().find(|bug| format!("{bug:?}") == name);
        found.ok_or_else(|| anyhow::anyhow!("there is no bug {name:?}; there are {:?}", Bug::all()))
    }
}

impl std::fmt::Debug for Bug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bug::Core(mutant) => write!(f, "{mutant:?}"),
            Bug::MarkerNotSynced => f.write_str("MarkerNotSynced"),
            Bug::WriteDoneBeforeSync => f.write_str("WriteDoneBeforeSync"),
            Bug::AnothersDiskStarts => f.write_str("AnothersDiskStarts"),
        }
    }
}
