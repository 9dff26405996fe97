//! What happened, as one dense line per change, and as a hash.
//!
//! In: every step of a run. Out: a hash that is equal for equal runs (it is always computed), and
//! the lines, if asked for. Absent: anything that is written when nobody asked.

use super::dice::mix;

/// The run so far.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    steps: u64,
    /// Lines are kept only if asked for.
    pub lines: Option<Vec<String>>,
}

/// What a line begins with; see [`LEGEND`].
pub type Code = &'static str;

/// What the lines say.
pub const LEGEND: &str = "\
  time ms (virtual) | who | what
  c2         client 2            n1        node 1 (its boot is in [brackets])
  ->  c asks   <-  c is told   ??  c gives up
  >>  n sends (lost: dropped, cut: by a partition)   >|  n takes a message in
  w+  n submits a write   w=  n's group commit is done   rd  n's read is done   pl  plugin answers
  up  boots   KI killed   PW loses power   SD shuts down cleanly   PA paused   RE resumed
  **  a fault, or its end    !!  a notice of core    ==  phase";

impl Trace {
    /// With or without lines.
    pub fn new(lines: bool) -> Trace {
        Trace { lines: lines.then(Vec::new), ..Trace::default() }
    }

    /// One change: `numbers` make up the hash, `text` the line.
    pub fn note(&mut self, now_us: u64, code: Code, numbers: [u64; 3], text: impl FnOnce() -> String) {
        let mut h = self.hash ^ now_us.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in code.bytes() {
            h = h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
        }
        for number in numbers {
            h = mix(h ^ number.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
        }
        self.hash = h;
        self.steps += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>6}.{:03} {code} {}", now_us / 1000, now_us % 1000, text()));
        }
    }

    /// Equal for equal runs.
    pub fn hash(&self) -> u64 {
        mix(self.hash ^ self.steps)
    }
}

/// A hash of bytes for the trace.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        h = mix(h ^ u64::from_le_bytes(word));
    }
    h
}
