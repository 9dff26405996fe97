//! Who a plugin is: its hash, its world, what it says of itself.
//!
//! A plugin is immutable and addressed by the BLAKE3 hash of the uploaded bytes; name and version are for people.

use std::fmt;
use std::str::FromStr;

/// BLAKE3 of the uploaded bytes: a plugin's identity in metadata, metrics, receipts and the conflict log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginHash(pub [u8; 32]);

impl PluginHash {
    /// The hash of these uploaded bytes.
    pub fn of(wasm: &[u8]) -> PluginHash {
        PluginHash(*blake3::hash(wasm).as_bytes())
    }
}

impl fmt::Display for PluginHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PluginHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginHash({self})")
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a plugin hash has 64 hexadecimal digits")]
pub struct NotAHash;

impl FromStr for PluginHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotAHash);
        }
        let digit = |c: u8| (c as char).to_digit(16).ok_or(NotAHash);
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(PluginHash(hash))
    }
}

/// Which of the three contracts a plugin fulfils.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum World {
    /// Any deterministic function of a sibling set.
    Resolver,
    /// A join semilattice: PUT is a join.
    Lattice,
    /// A lattice with operations and queries.
    ReplicatedType,
}

impl World {
    /// The name that the WIT package gives it.
    pub fn name(self) -> &'static str {
        match self {
            World::Resolver => "resolver",
            World::Lattice => "lattice",
            World::ReplicatedType => "replicated-type",
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a plugin says of itself. For people; identity is the hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The plugin's name, at most 64 bytes.
    pub name: String,
    /// Its version, at most 64 bytes.
    pub version: String,
    /// One or two sentences, at most 1 KiB.
    pub summary: String,
}

/// What the host learned when it admitted a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The plugin's identity.
    pub hash: PluginHash,
    /// The contract it fulfils.
    pub world: World,
    /// What it says of itself.
    pub description: Description,
    /// Size of the upload.
    pub size_bytes: usize,
    /// Whether the upload was a plain core module that the host wrapped into a component.
    pub wrapped: bool,
    /// How long compiling it took on this node.
    pub compile_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_reads_back_what_it_prints() {
        let hash = PluginHash::of(b"a plugin");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!("".parse::<PluginHash>(), Err(NotAHash));
        assert_eq!("g".repeat(64).parse::<PluginHash>(), Err(NotAHash));
        assert_eq!("é".repeat(32).parse::<PluginHash>(), Err(NotAHash));
    }
}
