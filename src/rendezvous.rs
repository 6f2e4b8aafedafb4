//! Weighted rendezvous: which of several things another one belongs to. Pure.
//!
//! Everything is scored for each of them, by its hash, and belongs where its score is highest. One
//! that comes takes its share from all others alike, one that goes leaves its own to all of them
//! alike, and nothing else moves.

/// How much a thing belongs where `hash`, of both of them, was reckoned: shares of what there is
/// are in proportion to the weights.
pub fn score(hash: u64, weight: f64) -> f64 {
    // -w / ln(u), u uniform between 0 and 1.
    let uniform = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    -weight / uniform.max(f64::MIN_POSITIVE).ln()
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    use super::*;

    /// Where each of 20,000 things belongs, of places with these weights.
    fn homes(weights: &[f64], seed: u64) -> Vec<usize> {
        let hash = |thing: u64, place: usize| {
            xxh3_64_with_seed(&place.to_le_bytes(), thing.wrapping_add(seed << 32))
        };
        let home = |thing: u64| {
            let scores = weights.iter().enumerate();
            let scores = scores.map(|(place, weight)| (place, score(hash(thing, place), *weight)));
            scores.max_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap().0
        };
        (0..20_000).map(home).collect()
    }

    #[test]
    fn one_of_several_that_comes_or_goes_moves_no_more_than_its_share_and_a_fifth() {
        for seed in 0..4 {
            for places in [2, 5, 10, 40] {
                let all = homes(&vec![1.0; places], seed);
                let fewer = homes(&vec![1.0; places - 1], seed);
                let moved = all.iter().zip(&fewer).filter(|(one, other)| one != other).count();
                let most = 1.2 / places as f64 * all.len() as f64;
                assert!((moved as f64) < most, "{moved} of {places}, seed {seed}");
                assert!(all.iter().zip(&fewer).all(|(all, fewer)| {
                    // What moves came from the one that is gone.
                    all == fewer || *all == places - 1
                }));
            }
        }
    }

    #[test]
    fn shares_are_as_the_weights() {
        let homes = homes(&[1.0, 3.0], 1);
        let first = homes.iter().filter(|home| **home == 0).count();
        assert!((4_700..5_300).contains(&first), "{first} of {}", homes.len());
    }

    #[test]
    fn any_hash_has_a_score() {
        for hash in [0, 1, 1 << 11, u64::MAX] {
            assert!(score(hash, 1.0) > 0.0, "{hash}");
        }
    }
}
