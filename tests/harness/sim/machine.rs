//! A machine: a disk that outlives its processes, and at times a process on it.
//!
//! In: the order to boot, die, or be read. Out: a node that serves, or why not. This is the
//! shell's part of a boot (semantics §3): identity read, renewed, synced, then served. Absent: who
//! decides when, and the events between a boot and a death.

use super::bug::Bug;
use super::options::Options;
use super::rot::Rot;
use crate::properties::c12_disk::Promises;
use crate::properties::{Check, broken};
use bytes::Bytes;
use merganser_core::boot::{self, Incarnation};
use merganser_core::catalog::Catalog;
use merganser_core::config::Config;
use merganser_core::event::{Durability, Record, StorageFailure, WriteOp};
use merganser_core::id::{ActorId, Millis, NodeId};
use merganser_core::mutant::Mutant;
use merganser_core::version::{KeyState, codec};
use merganser_core::{Node, fold, handoff, storage_key};
use merganser_storage::fs::sim::SimFs;
use merganser_storage::{CommitSink, Db, Error, Fold, FoldError, KeySpan, Op};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The first moment of every run, so that clocks may err in both directions.
pub(super) const EPOCH_MS: u64 = 1_800_000_000_000;
const DIR: &str = "/merganser";

/// A machine.
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) id: NodeId,
    pub(super) fs: SimFs,
    pub(super) process: Option<Process>,
    pub(super) boots: u64,
    /// A stopped process: its events wait.
    pub(super) paused_until_us: Option<u64>,
    /// Its disk has no room.
    pub(super) disk_full: bool,
    /// Error of its clock.
    pub(super) skew_ms: i64,
    /// Multiplies the time of its commits.
    pub(super) disk_slowness: u64,
    /// After so many more states were sent, that happens.
    pub(super) tripwire: Option<(u64, Trip)>,
    /// An old copy of its disk, which may be put back.
    pub(super) old_disk: Option<SimFs>,
    /// Its disk is an old copy: it has to notice, or to do no harm.
    pub(super) is_rolled_back: bool,
    /// Its disk is a copy of another machine's: it must not start.
    pub(super) is_anothers_disk: bool,
    /// Bits of its disk have changed by themselves, or may have.
    pub(super) rot: Option<Rot>,
    /// What storage said is on its disk.
    pub(super) promises: Promises,
    /// Told at the last boot.
    last_actor: Option<ActorId>,
}

/// What a tripwire does: just after a state was sent, before its own write is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trip {
    /// Power goes: dots have leaked that no sync has reached.
    PowerLoss,
    /// The write finds no room, and what has come meanwhile goes on from a state that is lost.
    NoSpace,
}

/// A running node.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) db: Db,
    pub(super) done: Arc<Done>,
    pub(super) boot: u64,
    /// When it was started.
    pub(super) begun_us: u64,
    /// It serves.
    pub(super) joined: bool,
    /// The deadline for which a timer is set.
    pub(super) armed: Option<Millis>,
    /// The number of the timer that was set last.
    pub(super) timer: u64,
    /// A turn of the disk is due.
    pub(super) disk_due: bool,
}

/// Completions of storage since they were last taken.
#[derive(Default)]
pub(super) struct Done(Mutex<Vec<Completed>>);

/// Tickets, and what became of them.
type Completed = (Vec<u64>, Result<(), Error>);

impl Done {
    pub(super) fn take(&self) -> Vec<Completed> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CommitSink for Done {
    fn committed(&self, tickets: &[u64], result: Result<(), Error>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((tickets.to_vec(), result));
    }
}

/// Core's fold, as the server hands it to storage.
struct CoreFold;

impl Fold for CoreFold {
    fn fold(
        &self,
        key: &[u8],
        newest_first: &[merganser_storage::Record],
    ) -> Result<merganser_storage::Record, FoldError> {
        let records: Vec<Record> = newest_first.iter().map(to_core).collect();
        fold::fold(key, &records).map(to_storage).map_err(|error| FoldError(error.to_string()))
    }

    fn fold_at_once(&self, key: &[u8], newer_head: &Bytes, older_head: &Bytes) -> Option<Bytes> {
        fold::fold_at_once(key, newer_head, older_head)
    }
}

/// What the operating system's randomness gives a process that starts.
#[derive(Clone, Copy)]
pub(super) struct Fresh {
    pub(super) actor: u64,
    pub(super) disk: u64,
    pub(super) seed: u64,
}

/// Why a machine does not serve.
#[derive(Debug)]
pub(super) enum BootFailure {
    /// The disk failed now; later it may not.
    Disk(String),
    /// The disk holds something that it must not.
    Damaged(String),
}

impl Machine {
    pub(super) fn new(name: String) -> Machine {
        Machine {
            id: NodeId::from_name(&name),
            name,
            fs: SimFs::new(),
            process: None,
            boots: 0,
            paused_until_us: None,
            disk_full: false,
            skew_ms: 0,
            disk_slowness: 1,
            tripwire: None,
            old_disk: None,
            is_rolled_back: false,
            is_anothers_disk: false,
            rot: None,
            promises: Promises::default(),
            last_actor: None,
        }
    }

    /// What its clock says.
    pub(super) fn now(&self, now_us: u64) -> Millis {
        Millis((EPOCH_MS + now_us / 1000).saturating_add_signed(self.skew_ms))
    }

    /// When its clock will say `at`.
    pub(super) fn when_us(&self, at: Millis) -> u64 {
        at.0.saturating_add_signed(-self.skew_ms).saturating_sub(EPOCH_MS).saturating_mul(1000)
    }

    /// The storage settings of a simulated node.
    fn storage_options(options: &Options) -> merganser_storage::Options {
        let memtable_bytes = usize::try_from(options.memtable_bytes).unwrap_or(64 << 10);
        merganser_storage::Options { memtable_bytes, ..merganser_storage::Options::stepped() }
    }

    /// Starts a process.
    pub(super) fn boot(
        &mut self,
        options: &Options,
        config: Config,
        initial: &Catalog,
        fresh: Fresh,
        now_us: u64,
    ) -> Result<(), BootFailure> {
        assert!(self.process.is_none(), "one process on a machine");
        let damaged =
            |what: &str, error: &dyn std::fmt::Display| BootFailure::Damaged(format!("{what}: {error}"));
        let done = Arc::new(Done::default());
        let opened = Db::open(
            Arc::new(self.fs.clone()),
            Path::new(DIR),
            Machine::storage_options(options),
            Arc::new(CoreFold),
            done.clone(),
        );
        let (db, recovery) = opened.map_err(|error| match error {
            Error::Io { .. } | Error::NoSpace { .. } | Error::Poisoned { .. } => {
                BootFailure::Disk(error.to_string())
            }
            other => BootFailure::Damaged(format!("open: {other}")),
        })?;
        let read = |key: Bytes| db.get(&key).map_err(|error| damaged("read", &error));
        let identity = read(storage_key::identity())?.map(|record| to_core(&record));
        let mut owner = boot::Owner { cluster: "sim".into(), node: self.name.clone() };
        if let (Some(Bug::AnothersDiskStarts), Some(record)) = (options.bug, &identity)
            && let Err(boot::NotThisNodes::Owner(whose)) =
                boot::begin(Some(record), &owner, fresh.actor, fresh.disk)
        {
            owner = whose;
        }
        let (mut identity, renewed) = boot::begin(identity.as_ref(), &owner, fresh.actor, fresh.disk)
            .map_err(|error| damaged("identity", &error))?;
        if options.bug == Some(Bug::Core(Mutant::StableActor))
            && identity.incarnation.actor.0 == fresh.actor
            && let Some(actor) = self.last_actor
        {
            identity.incarnation = Incarnation { actor, issued: highest_counter(&db, actor) };
        }
        let durability = match options.bug {
            Some(Bug::MarkerNotSynced) => merganser_storage::Durability::None,
            _ => merganser_storage::Durability::Sync,
        };
        let catalog = match read(storage_key::catalog())? {
            Some(record) => Catalog::decode(record.body).map_err(|error| damaged("catalog", &error))?,
            None if recovery.created && self.boots > 0 => Catalog::default(),
            None => initial.clone(),
        };
        let mut ops = vec![to_op(renewed)];
        if self.boots == 0 {
            let record = merganser_storage::Record { head: Bytes::new(), body: catalog.encode() };
            ops.push(Op::Put { key: storage_key::catalog(), record });
        }
        db.write(ops, durability).map_err(|error| BootFailure::Disk(error.to_string()))?;
        self.boots += 1;
        self.last_actor = Some(identity.incarnation.actor);
        let node = Node::new(config, identity, catalog, fresh.seed);
        self.process = Some(Process {
            node,
            db,
            done,
            boot: self.boots,
            begun_us: now_us,
            joined: false,
            armed: None,
            timer: 0,
            disk_due: false,
        });
        Ok(())
    }

    /// Its disk is another one from here on.
    pub(super) fn replace_disk(&mut self, disk: SimFs, is_rolled_back: bool) {
        assert!(self.process.is_none(), "nobody uses the disk");
        self.fs = disk;
        self.promises = Promises::default();
        (self.is_rolled_back, self.is_anothers_disk, self.rot) = (is_rolled_back, false, None);
    }

    /// C12, of a running process.
    pub(super) fn promises_are_kept(&self) -> Check {
        let Some(process) = &self.process else { return Ok(()) };
        self.promises.kept(&self.name, self.rot.is_some(), |key| {
            let found = process.db.get(key).map_err(|error| error.to_string())?;
            Ok(found.as_ref().map(to_core))
        })
    }

    /// What the disk holds of a range now is what counts.
    pub(super) fn range_given_up(&mut self, keys: &KeySpan) {
        let Some(process) = &self.process else { return };
        let read = |key: &Bytes| process.db.get(key).ok().flatten().map(|record| to_core(&record));
        self.promises.given_up(|key| keys.from <= *key && *key < keys.to, read);
    }

    /// All keys on the disk of a running process.
    pub(super) fn keys_on_disk(&self) -> Vec<Bytes> {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let keys = self.process.iter().flat_map(|process| process.db.scan_heads(all.clone()));
        keys.filter_map(|entry| Some(entry.ok()?.0)).collect()
    }

    /// What a key's durable state is on a live machine: storage shows a write once it is durable.
    /// A dead one is read from a copy of its disk.
    pub(super) fn durable_state(&self, options: &Options, storage_key: &Bytes) -> Option<KeyState> {
        match &self.process {
            Some(process) => match process.db.get(storage_key) {
                Ok(found) => decoded(found?),
                Err(Error::Corruption { .. } | Error::Fold { .. }) => None,
                // Poisoned, and about to die of it.
                Err(_) => self.state_after_power_loss(options, storage_key, 0),
            },
            None => self.state_after_power_loss(options, storage_key, 0),
        }
    }

    /// All that a machine keeps durably of a key: its own copy, and hints for others.
    pub(super) fn kept_state(
        &self,
        options: &Options,
        storage_key: &Bytes,
        targets: &[NodeId],
    ) -> Option<KeyState> {
        match &self.process {
            Some(process) => match kept(&process.db, storage_key, targets) {
                Ok(found) => found,
                Err(Error::Corruption { .. } | Error::Fold { .. }) => None,
                Err(_) => self.kept_after_power_loss(options, storage_key, targets, 0),
            },
            None => self.kept_after_power_loss(options, storage_key, targets, 0),
        }
    }

    /// What that would be if power failed now.
    pub(super) fn kept_after_power_loss(
        &self,
        options: &Options,
        storage_key: &Bytes,
        targets: &[NodeId],
        seed: u64,
    ) -> Option<KeyState> {
        kept(&self.open_after_power_loss(options, seed)?, storage_key, targets).ok()?
    }

    /// What a key's state would be if power failed now.
    pub(super) fn state_after_power_loss(
        &self,
        options: &Options,
        storage_key: &Bytes,
        seed: u64,
    ) -> Option<KeyState> {
        decoded(self.open_after_power_loss(options, seed)?.get(storage_key).ok()??)
    }

    /// C12, of a disk after a power loss.
    pub(super) fn promises_survive(&self, options: &Options, seed: u64) -> Check {
        let opened = self.open_after_power_loss(options, seed);
        if opened.is_none() && self.rot.is_some() {
            return Ok(());
        }
        let Some(db) = opened else {
            return broken("C12", format!("the disk of {} does not open after a power loss", self.name));
        };
        self.promises.kept(&self.name, self.rot.is_some(), |key| {
            Ok(db.get(key).map_err(|error| error.to_string())?.as_ref().map(to_core))
        })
    }

    fn open_after_power_loss(&self, options: &Options, seed: u64) -> Option<Db> {
        let image = self.fs.crash_image(seed);
        // A disk that is full now will not be when somebody looks.
        image.heal();
        let settings = Machine::storage_options(options);
        let sink = Arc::new(merganser_storage::NoSink);
        let opened = Db::open(Arc::new(image), Path::new(DIR), settings, Arc::new(CoreFold), sink);
        Some(opened.ok()?.0)
    }
}

fn kept(db: &Db, storage_key: &Bytes, targets: &[NodeId]) -> Result<Option<KeyState>, Error> {
    let mut kept = db.get(storage_key)?.and_then(decoded);
    for target in targets {
        let hint = db.get(&storage_key::hint(*target, storage_key))?;
        let state = hint.and_then(|record| handoff::hint(&to_core(&record)).ok()?.state);
        let Some(state) = state.and_then(|record| codec::state(&record).ok()) else { continue };
        match &mut kept {
            // A reused dot is reported where it comes in.
            Some(kept) => drop(kept.sync(&state)),
            None => kept = Some(state),
        }
    }
    Ok(kept)
}

fn decoded(record: merganser_storage::Record) -> Option<KeyState> {
    codec::state(&to_core(&record)).ok()
}

/// The highest counter of an actor that its own disk knows of: what a stable actor would go on from.
fn highest_counter(db: &Db, actor: ActorId) -> u64 {
    let all = (std::ops::Bound::Included(vec![0, 0, 0, 1]), std::ops::Bound::Unbounded);
    let states = db.scan(all).filter_map(|entry| decoded(entry.ok()?.1));
    states.map(|state| state.seen().last(actor)).max().unwrap_or(0)
}

pub(super) fn to_core(record: &merganser_storage::Record) -> Record {
    Record { head: record.head.clone(), body: record.body.clone() }
}

fn to_storage(record: Record) -> merganser_storage::Record {
    merganser_storage::Record { head: record.head, body: record.body }
}

pub(super) fn to_op(op: WriteOp) -> Op {
    match op {
        WriteOp::Put { key, record } => Op::Put { key, record: to_storage(record) },
        WriteOp::Merge { key, record } => Op::Merge { key, record: to_storage(record) },
        WriteOp::Remove { key } => Op::Remove { key },
    }
}

pub(super) fn to_durability(durability: Durability) -> merganser_storage::Durability {
    match durability {
        Durability::Sync => merganser_storage::Durability::Sync,
        Durability::Interval => merganser_storage::Durability::Interval,
        Durability::None => merganser_storage::Durability::None,
    }
}

/// As the server tells core of storage's errors.
pub(super) fn to_failure(error: &Error) -> StorageFailure {
    match error {
        Error::Corruption { .. } | Error::Fold { .. } => StorageFailure::Corrupt(error.to_string()),
        Error::Overloaded | Error::NoSpace { .. } => StorageFailure::Overloaded,
        other => StorageFailure::Failed(other.to_string()),
    }
}
