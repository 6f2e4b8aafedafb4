//! Hits of a piece in ram by a token whose verdict is kept, beside the same hits without one.
//!
//! Half of the site is behind tokens, half is open: both are of one process, in turns. The
//! processor's time is compared, as `seen.rs` does it.
//!
//! Once more by a target as long as that with the token, which nobody looks at: what a token costs
//! is that and what it takes to carry it.

use serde_json::json;
use tempfile::TempDir;
use tidegate::token::jwk::Jwk;
use tidegate::token::key::Algorithm;
use tidegate::token::key_file::{IssuerFile, KeyFile};
use tidegate::token::uri_signing::{Matching, mint};

use crate::edge::Edge;
use crate::figure::{Measure, Promise, Unit};
use crate::origin::Origin;
use crate::seen::{FAST, PIECE, TURNS, load};

const COSTS_MORE_MAX: f64 = 1.03;
const NAME: &str = "URISigningPackage";

/// An edge with a door.
pub(crate) struct Door {
    edge: Edge,
    /// The names of what is told of each kind, and its token.
    tokens: [([&'static str; 2], String); 2],
    _origin: Origin,
    _folder: TempDir,
}

impl Door {
    pub(crate) fn start() -> Door {
        let (origin, folder) = (Origin::start(FAST), TempDir::new().unwrap());
        let (mut file, mut issuer) = (KeyFile::default(), IssuerFile::default());
        issuer.keys.push(Jwk::generate(Algorithm::Es256, "k").unwrap());
        issuer.renewal_kid = Some("k".to_owned());
        file.issuers.insert("publisher".to_owned(), issuer);
        let path = folder.path().join("keys.json");
        std::fs::write(&path, serde_json::to_string(&file).unwrap()).unwrap();
        let keys = file.keys(Matching::Full).unwrap();
        let minted = |pattern: &str| {
            let uri = format!("regex:{pattern}");
            let claims = json!({ "iss": "publisher", "exp": 4_000_000_000_u64, "cdniuc": uri });
            mint(claims.as_object().unwrap(), keys.renewal("publisher").unwrap()).unwrap()
        };
        let edge = Edge::start_with_site(
            origin.address(),
            "[threads]\nworkers = 1\n[memory]\nram = \"64 MiB\"\ntotal = \"512 MiB\"",
            &format!(
                "tokens = {{ keys = {path:?} }}\n\
                 rules = [{{ path = \"*/open\", access = \"open\", query = \"none\" }}]"
            ),
        );
        let tokens = [
            (
                ["a token for a folder: cost by that of none", "  by that of a target as long"],
                minted("http://[^/]*/65536/.*"),
            ),
            (["a token for all: the same", "  by a target as long"], minted("http://.*")),
        ];
        Door { edge, tokens, _origin: origin, _folder: folder }
    }

    pub(crate) async fn round(&mut self) -> Vec<Measure> {
        let mut measures = Vec::new();
        for ([name, by_as_long], token) in &self.tokens {
            let ratio = self.compared(token, "").await;
            let measure = Measure::shown(name, Unit::Ratio, ratio);
            measures.push(measure.promised(Promise::MedianAtMost(COSTS_MORE_MAX)));
            let as_long = format!("?{}={token}", "x".repeat(NAME.len()));
            let ratio = self.compared(token, &as_long).await;
            measures.push(Measure::shown(by_as_long, Unit::Ratio, ratio));
        }
        measures
    }

    /// What a hit by a token costs, by what one costs that takes none and has this query.
    async fn compared(&self, token: &str, query: &str) -> f64 {
        let open = format!("/{PIECE}/open{query}");
        let closed = format!("/{PIECE}/closed?{NAME}={token}");
        let mut before = load(&self.edge, &open).await;
        let mut ratios = Vec::new();
        for _ in 0..TURNS {
            let by_token = load(&self.edge, &closed).await;
            let after = load(&self.edge, &open).await;
            ratios.push(2.0 * by_token / (before + after));
            before = after;
        }
        ratios.sort_by(f64::total_cmp);
        ratios[TURNS / 2]
    }
}
