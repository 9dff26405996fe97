//! The catalog: keyspaces with their policies, and plugins. No leader: a document that joins.
//!
//! Every entry carries a revision (stamp, node); of two revisions of one entry the higher wins,
//! on every node alike, and removal is a revision too. In: an operator's changes, catalogs of
//! peers. Out: the settings by which keys are read and written. Absent: modules' bytes, which
//! travel on their own.

use crate::event::Durability;
use crate::id::{KeyspaceId, NodeId, PluginHash};
use crate::plugin::World;
use crate::version::{Kind, Stamp};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Largest plugin configuration of a keyspace in bytes.
pub const PLUGIN_CONFIG_BYTES_MAX: usize = 64 << 10;
/// Blind puts are refused at this many siblings unless the keyspace says otherwise (R12).
pub const SIBLINGS_MAX_DEFAULT: u32 = 64;
/// How long after the last client write an owner stores a resolution (R3).
pub const WRITE_BACK_DELAY_MS_DEFAULT: u32 = 5_000;
/// Longest life of a value that is to expire: a hundred years.
pub const TTL_MS_MAX: u64 = 100 * 365 * 86_400_000;
/// Most replicas of a key.
pub const N_MAX: u32 = 32;
const FORMAT: u8 = 1;

/// How conflicts of a keyspace are settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Kept; the client settles them.
    Siblings,
    /// The highest stamp wins; concurrent writes may be lost.
    Lww,
    /// By a module, as a view that an owner may store (R2, R3).
    Resolver(PluginRef),
    /// By a module, as a join (R5).
    Lattice(PluginRef),
}

/// A module that a policy names, pinned to its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRef {
    /// As the operator called it.
    pub name: String,
    /// What it meant then.
    pub hash: PluginHash,
}

impl Policy {
    /// Which kind of state its keys hold.
    pub fn kind(&self) -> Kind {
        match self {
            Policy::Siblings | Policy::Resolver(_) => Kind::Causal,
            Policy::Lww => Kind::Lww,
            Policy::Lattice(_) => Kind::Lattice,
        }
    }

    /// The module, if it names one.
    pub fn plugin(&self) -> Option<&PluginRef> {
        match self {
            Policy::Resolver(plugin) | Policy::Lattice(plugin) => Some(plugin),
            Policy::Siblings | Policy::Lww => None,
        }
    }
}

/// Who wins, a delete or a concurrent value (R8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeleteSemantics {
    /// The value.
    #[default]
    UpdateWins,
    /// The delete.
    DeleteWins,
    /// The resolver sees both.
    PluginDecides,
}

/// What becomes of a put whose value the plugin did not look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnvalidated {
    /// Kept apart, joined with nothing until it is validated.
    #[default]
    Keep,
    /// Refused, with nothing stored.
    Refuse,
}

/// A keyspace's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Replicas of each key.
    pub n: u32,
    /// Replicas that must answer a read.
    pub r: u32,
    /// Replicas that must hold a write durably.
    pub w: u32,
    /// How conflicts are settled.
    pub policy: Policy,
    /// Handed to the plugin.
    pub plugin_config: Bytes,
    /// Who wins, a delete or a concurrent value.
    pub delete_semantics: DeleteSemantics,
    /// When a replica counts a write as held.
    pub durability: Durability,
    /// Blind puts are refused from this many on.
    pub siblings_max: u32,
    /// None: resolutions are never stored, only shown.
    pub write_back_delay_ms: Option<u32>,
    /// Values are gone so long after their put, unless the put says otherwise. None: never.
    pub ttl_ms: Option<u64>,
    /// Requests a second for one key that each of its coordinators takes. None: no limit.
    pub key_rate_max: Option<u32>,
    /// Stand-ins count for replicas that cannot be reached, unless a request says otherwise.
    pub sloppy: bool,
    /// What becomes of a put whose value the plugin did not look at.
    pub on_unvalidated: OnUnvalidated,
}

impl Settings {
    /// Majorities of three, and this policy.
    pub fn new(policy: Policy) -> Settings {
        Settings {
            n: 3,
            r: 2,
            w: 2,
            policy,
            plugin_config: Bytes::new(),
            delete_semantics: DeleteSemantics::UpdateWins,
            durability: Durability::Sync,
            siblings_max: SIBLINGS_MAX_DEFAULT,
            write_back_delay_ms: Some(WRITE_BACK_DELAY_MS_DEFAULT),
            ttl_ms: None,
            key_rate_max: None,
            sloppy: true,
            on_unvalidated: OnUnvalidated::Keep,
        }
    }

    /// What is wrong with them, if anything: the field, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.n == 0 || self.n > N_MAX {
            return Err(("n", format!("must be 1 to {N_MAX}, is {}", self.n)));
        }
        for (field, value) in [("r", self.r), ("w", self.w)] {
            if value == 0 || value > self.n {
                return Err((field, format!("must be 1 to n = {}, is {value}", self.n)));
            }
        }
        if self.key_rate_max == Some(0) {
            return Err(("key_rate_max", "must be at least 1".into()));
        }
        if self.siblings_max == 0 {
            return Err(("siblings_max", "must be at least 1".into()));
        }
        match self.ttl_ms {
            Some(_) if self.policy.kind() == Kind::Lattice => {
                return Err((
                    "ttl_ms",
                    "a lattice's value is the join of many puts and does not expire".into(),
                ));
            }
            Some(ttl_ms) if ttl_ms == 0 || ttl_ms > TTL_MS_MAX => {
                return Err(("ttl_ms", format!("must be 1 to {TTL_MS_MAX}, is {ttl_ms}")));
            }
            _ => {}
        }
        if self.plugin_config.len() > PLUGIN_CONFIG_BYTES_MAX {
            let size = self.plugin_config.len();
            return Err((
                "plugin_config",
                format!("has {size} bytes, the limit is {PLUGIN_CONFIG_BYTES_MAX}"),
            ));
        }
        if self.delete_semantics == DeleteSemantics::PluginDecides
            && !matches!(self.policy, Policy::Resolver(_))
        {
            return Err(("delete_semantics", "plugin-decides needs a resolver policy".into()));
        }
        Ok(())
    }
}

/// By which of two revisions of an entry the later is told, on every node alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// When.
    pub stamp: Stamp,
    /// Through which node.
    pub node: NodeId,
}

/// A keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceEntry {
    /// For storage keys and tokens; follows from the name.
    pub id: KeyspaceId,
    /// For people and requests.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    /// Raised with each change of policy or plugin configuration.
    pub epoch: u64,
    /// Of this entry.
    pub revision: Revision,
}

impl KeyspaceEntry {
    /// The id of a keyspace of this name: never 0, which is the node's own.
    pub fn id_of(name: &str) -> KeyspaceId {
        let hash = blake3::hash(name.as_bytes());
        let mut first = [0; 4];
        first.copy_from_slice(&hash.as_bytes()[..4]);
        KeyspaceId(u32::from_be_bytes(first).max(1))
    }

    /// What is wrong with a name, if anything.
    pub fn check_name(name: &str) -> Result<(), String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err("must be 1 to 64 of a-z 0-9 - _ .".into());
        }
        Ok(())
    }
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginEntry {
    /// BLAKE3 of its bytes.
    pub hash: PluginHash,
    /// Under which it was pushed.
    pub name: String,
    /// Its own word for its version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// Which contract.
    pub world: World,
    /// Of its bytes.
    pub size_bytes: u64,
    /// Shipped with every node, in no catalog document.
    pub built_in: bool,
    /// Forgotten.
    pub removed: bool,
    /// Of this entry.
    pub revision: Revision,
}

/// Equal for equal catalogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CatalogDigest(pub [u8; 16]);

/// The document. Built-in plugins are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// By name.
    pub keyspaces: BTreeMap<String, KeyspaceEntry>,
    /// By hash, removed ones included.
    pub plugins: BTreeMap<PluginHash, PluginEntry>,
}

impl Catalog {
    /// Takes in all newer revisions; whether there were any.
    pub fn join(&mut self, other: &Catalog) -> bool {
        let mut changed = false;
        for (name, theirs) in &other.keyspaces {
            if self.keyspaces.get(name).is_none_or(|mine| mine.revision < theirs.revision) {
                self.keyspaces.insert(name.clone(), theirs.clone());
                changed = true;
            }
        }
        for (hash, theirs) in &other.plugins {
            if self.plugins.get(hash).is_none_or(|mine| mine.revision < theirs.revision) {
                self.plugins.insert(*hash, theirs.clone());
                changed = true;
            }
        }
        changed
    }

    /// See [`CatalogDigest`].
    pub fn digest(&self) -> CatalogDigest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&self.encode()).as_bytes()[..16]);
        CatalogDigest(digest)
    }

    /// Its bytes, for the disk.
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        self.put(&mut buffer);
        buffer.freeze()
    }

    /// The catalog of these bytes.
    pub fn decode(bytes: Bytes) -> Result<Catalog, Malformed> {
        let mut reader = Reader::new(bytes);
        let catalog = Catalog::read(&mut reader)?;
        reader.end("catalog")?;
        Ok(catalog)
    }

    pub(crate) fn put(&self, b: &mut BytesMut) {
        b.put_u8(FORMAT);
        b.varint(self.keyspaces.len() as u64);
        self.keyspaces.values().for_each(|entry| put_keyspace(b, entry));
        b.varint(self.plugins.len() as u64);
        self.plugins.values().for_each(|entry| put_plugin(b, entry));
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Catalog, Malformed> {
        if r.u8("catalog format")? != FORMAT {
            return Err(Malformed("catalog format"));
        }
        let mut catalog = Catalog::default();
        for _ in 0..r.count(16, "keyspaces")? {
            let entry = read_keyspace(r)?;
            catalog.keyspaces.insert(entry.name.clone(), entry);
        }
        for _ in 0..r.count(48, "plugins")? {
            let entry = read_plugin(r)?;
            catalog.plugins.insert(entry.hash, entry);
        }
        Ok(catalog)
    }
}

fn put_revision(b: &mut BytesMut, revision: Revision) {
    b.varint(revision.stamp.millis);
    b.varint(u64::from(revision.stamp.logical));
    b.put_u64(revision.node.0);
}

fn read_revision(r: &mut Reader) -> Result<Revision, Malformed> {
    let stamp = crate::version::context::read_stamp(r)?;
    Ok(Revision { stamp, node: NodeId(r.u64("revision")?) })
}

fn put_keyspace(b: &mut BytesMut, entry: &KeyspaceEntry) {
    let settings = &entry.settings;
    b.bytes(entry.name.as_bytes());
    [settings.n, settings.r, settings.w, settings.siblings_max].iter().for_each(|n| b.varint(u64::from(*n)));
    b.put_u8(match settings.policy {
        Policy::Siblings => 0,
        Policy::Lww => 1,
        Policy::Resolver(_) => 2,
        Policy::Lattice(_) => 3,
    });
    if let Some(plugin) = settings.policy.plugin() {
        b.bytes(plugin.name.as_bytes());
        b.put_slice(&plugin.hash.0);
    }
    b.bytes(&settings.plugin_config);
    b.put_u8(match settings.delete_semantics {
        DeleteSemantics::UpdateWins => 0,
        DeleteSemantics::DeleteWins => 1,
        DeleteSemantics::PluginDecides => 2,
    });
    b.put_u8(match settings.durability {
        Durability::Sync => 0,
        Durability::Interval => 1,
        Durability::None => 2,
    });
    b.varint(settings.write_back_delay_ms.map_or(0, |delay| u64::from(delay) + 1));
    b.varint(settings.ttl_ms.unwrap_or(0));
    b.varint(u64::from(settings.key_rate_max.unwrap_or(0)));
    b.put_u8(u8::from(settings.sloppy));
    b.put_u8(u8::from(settings.on_unvalidated == OnUnvalidated::Refuse));
    b.varint(entry.epoch);
    put_revision(b, entry.revision);
}

fn read_keyspace(r: &mut Reader) -> Result<KeyspaceEntry, Malformed> {
    let name = r.string("keyspace name")?;
    KeyspaceEntry::check_name(&name).map_err(|_| Malformed("keyspace name"))?;
    let mut numbers = [0u32; 4];
    for number in &mut numbers {
        *number = u32::try_from(r.varint("settings")?).map_err(|_| Malformed("settings"))?;
    }
    let policy = match r.u8("policy")? {
        0 => Policy::Siblings,
        1 => Policy::Lww,
        kind @ (2 | 3) => {
            let plugin =
                PluginRef { name: r.string("plugin name")?, hash: PluginHash(r.array("plugin hash")?) };
            if kind == 2 { Policy::Resolver(plugin) } else { Policy::Lattice(plugin) }
        }
        _ => return Err(Malformed("policy")),
    };
    let plugin_config = r.bytes("plugin config")?;
    let delete_semantics = match r.u8("delete semantics")? {
        0 => DeleteSemantics::UpdateWins,
        1 => DeleteSemantics::DeleteWins,
        2 => DeleteSemantics::PluginDecides,
        _ => return Err(Malformed("delete semantics")),
    };
    let durability = match r.u8("durability")? {
        0 => Durability::Sync,
        1 => Durability::Interval,
        2 => Durability::None,
        _ => return Err(Malformed("durability")),
    };
    let write_back_delay_ms = match r.varint("write-back delay")? {
        0 => None,
        delay => Some(u32::try_from(delay - 1).map_err(|_| Malformed("write-back delay"))?),
    };
    let ttl_ms = Some(r.varint("ttl")?).filter(|ttl| *ttl > 0);
    let key_rate_max = u32::try_from(r.varint("key rate")?).map_err(|_| Malformed("key rate"))?;
    let key_rate_max = Some(key_rate_max).filter(|rate| *rate > 0);
    let sloppy = match r.u8("sloppy")? {
        0 => false,
        1 => true,
        _ => return Err(Malformed("sloppy")),
    };
    let on_unvalidated = match r.u8("on unvalidated")? {
        0 => OnUnvalidated::Keep,
        1 => OnUnvalidated::Refuse,
        _ => return Err(Malformed("on unvalidated")),
    };
    let [n, siblings_r, w, siblings_max] = numbers;
    let settings = Settings {
        n,
        r: siblings_r,
        w,
        policy,
        plugin_config,
        delete_semantics,
        durability,
        siblings_max,
        write_back_delay_ms,
        ttl_ms,
        key_rate_max,
        sloppy,
        on_unvalidated,
    };
    settings.check().map_err(|_| Malformed("settings"))?;
    let id = KeyspaceEntry::id_of(&name);
    Ok(KeyspaceEntry { id, name, settings, epoch: r.varint("epoch")?, revision: read_revision(r)? })
}

fn put_plugin(b: &mut BytesMut, entry: &PluginEntry) {
    b.put_slice(&entry.hash.0);
    [&entry.name, &entry.version, &entry.summary].iter().for_each(|text| b.bytes(text.as_bytes()));
    b.put_u8(match entry.world {
        World::Resolver => 0,
        World::Lattice => 1,
        World::ReplicatedType => 2,
    });
    b.varint(entry.size_bytes);
    b.put_u8(u8::from(entry.removed));
    put_revision(b, entry.revision);
}

fn read_plugin(r: &mut Reader) -> Result<PluginEntry, Malformed> {
    Ok(PluginEntry {
        hash: PluginHash(r.array("plugin hash")?),
        name: r.string("plugin name")?,
        version: r.string("plugin version")?,
        summary: r.string("plugin summary")?,
        world: match r.u8("plugin world")? {
            0 => World::Resolver,
            1 => World::Lattice,
            2 => World::ReplicatedType,
            _ => return Err(Malformed("plugin world")),
        },
        size_bytes: r.varint("plugin size")?,
        built_in: false,
        removed: r.u8("plugin removed")? != 0,
        revision: read_revision(r)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, millis: u64) -> KeyspaceEntry {
        let plugin = PluginRef { name: "or-set".into(), hash: PluginHash([7; 32]) };
        KeyspaceEntry {
            id: KeyspaceEntry::id_of(name),
            name: name.into(),
            settings: Settings::new(Policy::Lattice(plugin)),
            epoch: 3,
            revision: Revision { stamp: Stamp { millis, logical: 1 }, node: NodeId(9) },
        }
    }

    #[test]
    fn a_catalog_comes_back_and_truncated_ones_are_refused() {
        let mut catalog = Catalog::default();
        catalog.keyspaces.insert("carts".into(), entry("carts", 5));
        let bytes = catalog.encode();
        assert_eq!(Catalog::decode(bytes.clone()), Ok(catalog));
        for length in 0..bytes.len() {
            assert!(Catalog::decode(bytes.slice(..length)).is_err());
        }
    }

    #[test]
    fn of_two_revisions_the_later_wins_in_either_order() {
        let (mut a, mut b) = (Catalog::default(), Catalog::default());
        a.keyspaces.insert("x".into(), entry("x", 5));
        b.keyspaces.insert("x".into(), entry("x", 6));
        b.keyspaces.insert("y".into(), entry("y", 1));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        assert!(ab.join(&b));
        assert!(!ba.join(&a));
        assert_eq!(ab, ba);
        assert_eq!(ab.digest(), ba.digest());
    }
}
