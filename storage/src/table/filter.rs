//! A blocked Bloom filter: says "surely not here" for most keys that a table does not hold.
//!
//! In: hashes of keys (xxh3 with the database's seed; computed once per lookup for all tables). Out: bits in
//! lines of 64 bytes, so that a probe touches one cache line. Deliberately absent: hashing.

use bytes::Bytes;

use crate::encoding::Reader;

const KIND_BLOCKED_BLOOM: u8 = 1;
const LINE_BYTES: usize = 64;
const LINE_BITS: u32 = (LINE_BYTES * 8) as u32;
const HEADER_BYTES: usize = 16;
/// Each probe takes nine bits of a 64-bit number.
const PROBES_MAX: usize = 7;

/// Builds a filter's raw bytes.
pub(crate) fn build(hashes: &[u64], bits_per_key: usize, seed: u64) -> Vec<u8> {
    let lines = (hashes.len() * bits_per_key).div_ceil(LINE_BITS as usize).max(1);
    // In lines the optimum lies below that of one large filter (0.69): crowded lines err more.
    let probes = ((bits_per_key as f64 * 0.6).round() as usize).clamp(1, PROBES_MAX);
    let mut out = Vec::with_capacity(HEADER_BYTES + lines * LINE_BYTES);
    out.extend_from_slice(&[KIND_BLOCKED_BLOOM, probes as u8, 0, 0]);
    out.extend_from_slice(&(lines as u32).to_le_bytes());
    out.extend_from_slice(&seed.to_le_bytes());
    out.resize(HEADER_BYTES + lines * LINE_BYTES, 0);
    for hash in hashes {
        let line = HEADER_BYTES + line_of(*hash, lines as u32) * LINE_BYTES;
        for bit in bits_of(*hash, probes) {
            out[line + bit / 8] |= 1 << (bit % 8);
        }
    }
    out
}

fn line_of(hash: u64, lines: u32) -> usize {
    (((hash >> 32) * u64::from(lines)) >> 32) as usize
}

/// Bits within the line, from a mix of the whole hash, as its upper half has chosen the line.
fn bits_of(hash: u64, probes: usize) -> impl Iterator<Item = usize> {
    let mixed = (hash ^ (hash >> 29)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = mixed ^ (mixed >> 32);
    (0..probes).map(move |probe| (mixed >> (9 * probe)) as usize % LINE_BITS as usize)
}

/// A filter in memory.
pub(crate) struct Filter {
    lines: Bytes,
    count: u32,
    probes: usize,
    pub(crate) seed: u64,
}

impl Filter {
    pub(crate) fn parse(raw: Bytes) -> Option<Filter> {
        let mut reader = Reader::new(&raw);
        let (kind, probes) = (reader.u8()?, reader.u8()? as usize);
        reader.take(2)?;
        let (count, seed) = (reader.u32()?, reader.u64()?);
        let sound = kind == KIND_BLOCKED_BLOOM
            && (1..=PROBES_MAX).contains(&probes)
            && count > 0
            && reader.remaining() == count as usize * LINE_BYTES;
        sound.then(|| Filter { lines: raw.slice(HEADER_BYTES..), count, probes, seed })
    }

    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        let line = line_of(hash, self.count) * LINE_BYTES;
        let line = &self.lines[line..line + LINE_BYTES];
        bits_of(hash, self.probes).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        self.lines.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    #[test]
    fn ten_bits_a_key_err_in_at_most_1_2_percent_and_never_miss() {
        for (seed, keys) in [(1, 1_000u64), (2, 100_000), (3, 300_000)] {
            let hash = |n: u64| xxh3_64_with_seed(&n.to_be_bytes(), seed);
            let hashes: Vec<u64> = (0..keys).map(hash).collect();
            let filter = Filter::parse(build(&hashes, 10, seed).into()).expect("it was just built");
            assert!(hashes.iter().all(|hash| filter.may_hold(*hash)));
            let probes = 200_000;
            let wrong = (keys..keys + probes).filter(|n| filter.may_hold(hash(*n))).count();
            let rate = wrong as f64 / probes as f64;
            assert!(rate <= 0.012, "{rate} with {keys} keys");
            assert!(filter.resident_bytes() <= keys * 10 / 8 + 64);
        }
    }

    #[test]
    fn damaged_filters_are_refused() {
        let raw = build(&[1, 2, 3], 10, 0);
        assert!(Filter::parse(raw.clone().into()).is_some());
        assert!(Filter::parse(raw[..raw.len() - 1].to_vec().into()).is_none());
        assert!(Filter::parse(Bytes::from_static(&[2, 6])).is_none());
    }
}
