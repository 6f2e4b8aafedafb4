//! CRC-64/NVME, of bytes that come in parts.
//!
//! Through the one function of the crate that is compiled with the crate: its other ones are
//! inlined into who calls them, and a debug build then reckons 100 times slower (0.4 GB/s against
//! 40 of a release build, measured).

use std::sync::LazyLock;

use crc_fast::{CrcParams, checksum_with_params};

static PARAMETERS: LazyLock<CrcParams> = LazyLock::new(|| {
    let (polynomial, ones, check) = (0xad93_d235_94c9_3659, u64::MAX, 0xae8b_1486_0a79_9888);
    CrcParams::new("CRC-64/NVME", 64, polynomial, ones, true, ones, check)
});

/// A checksum of all bytes so far.
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn new() -> Checksum {
        Checksum(0)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut parameters = *PARAMETERS;
        // What was reckoned so far, before the last step of the algorithm turned it over.
        parameters.init_algorithm = !self.0;
        self.0 = checksum_with_params(parameters, bytes);
    }

    pub(super) fn value(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_checksum_of_its_name_in_parts_too() {
        for parts in [["", "123456789"], ["123456789", ""], ["1", "23456789"]] {
            let mut checksum = Checksum::new();
            parts.iter().for_each(|part| checksum.update(part.as_bytes()));
            assert_eq!(checksum.value(), 0xae8b_1486_0a79_9888, "the value of its catalogue");
        }
    }
}
