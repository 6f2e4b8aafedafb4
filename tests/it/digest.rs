//! Bytes that are not those their digest is of (RFC 9530): nobody gets all of them, and nothing of
//! them is kept, however much was served before that was known.

use crate::support::{BLOCK, Edge, Origin, PIECE, Script, Verdict, judge};

const LENGTH: u64 = 3 * BLOCK + PIECE + 77;
/// Of nothing.
const WRONG: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_with_another_ones_digest_is_cut_before_its_end_and_leaves_nothing() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for (number, field) in ["Content-Digest", "Repr-Digest"].into_iter().enumerate() {
        let path = format!("/{field}");
        origin.serve(&path, Script::of(LENGTH).field(field, WRONG));
        let lying = edge.get(&path).send().await;
        match judge(&origin, &path, &lying) {
            Verdict::Cut { version: 1, .. } => assert!((lying.body.len() as u64) < LENGTH),
            other => panic!("{field}: {other:?}"),
        }
        let kind = ["kind=\"bad_digest\""];
        let count = edge.metric("tidegate_origin_errors_total", &kind).await;
        assert_eq!(count, number as f64 + 1.0, "{field}");

        // Not a byte of what was published on the way is found again.
        let asked = origin.requests(&path).len();
        origin.serve(&path, Script::of(LENGTH).version(2));
        for range in [0..10, BLOCK..BLOCK + 9, LENGTH - 5..LENGTH] {
            let part = edge.get(&path).range(range.clone()).send().await;
            let verdict = judge(&origin, &path, &part);
            assert_eq!((part.status, verdict), (206, Verdict::Whole { version: 2 }), "{range:?}");
        }
        assert!(origin.requests(&path).len() > asked, "{field}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_with_its_own_digest_is_served_and_kept() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for field in ["Content-Digest", "Repr-Digest"] {
        let path = format!("/{field}");
        let bytes = origin.content(&path, 1).bytes(0, LENGTH as usize);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &bytes);
        let digest = sfv::ItemSerializer::new().bare_item(hash.as_ref()).finish();
        origin.serve(&path, Script::of(LENGTH).field(field, &format!("sha-512={digest}")));
        for _ in 0..2 {
            let whole = edge.get(&path).send().await;
            assert_eq!(judge(&origin, &path, &whole), Verdict::Whole { version: 1 }, "{field}");
        }
        assert_eq!(origin.requests(&path).len(), 1, "{field}");
    }
}
