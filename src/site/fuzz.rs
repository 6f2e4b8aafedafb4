//! What the fuzz target `networks` runs: any bytes go in, no panic and no broken promise comes out.
//!
//! Here so that the seeds can be replayed by ordinary tests too. Not part of the appliance.

use super::Prefixes;

/// A list of networks that is taken holds each of them, and says the same when it is written again.
pub fn networks(bytes: &[u8]) {
    let Ok(prefixes) = Prefixes::parse(bytes) else { return };
    let written: String = prefixes.iter().map(|network| format!("{network}\n")).collect();
    let again = Prefixes::parse(written.as_bytes()).expect("what was read is written so");
    assert!(prefixes.iter().eq(again.iter()));
    for network in prefixes.iter() {
        assert_eq!(network, network.trunc());
        // Addresses of a wider network of IPv6 may be IPv4's that are written so.
        let first = network.network();
        assert!(first != first.to_canonical() || prefixes.hold(first));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds_of_the_fuzz_target_cut_short_anywhere() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/networks");
        let mut found = 0;
        for seed in fs::read_dir(seeds).unwrap() {
            let seed = fs::read(seed.unwrap().path()).unwrap();
            (0..=seed.len()).for_each(|length| networks(&seed[..length]));
            found += 1;
        }
        assert!(found > 0);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..200), text in "[0-9a-f:./# \n]{0,60}") {
            networks(&bytes);
            networks(text.as_bytes());
        }
    }
}
