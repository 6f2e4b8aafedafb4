//! What the fuzz targets of `fuzz/` run: any bytes go in, no panic and no broken promise comes out.
//!
//! Here so that the seeds can be replayed by ordinary tests too. Not part of the appliance.

use super::journal::replay;
use super::request::PurgeRequest;
use crate::limits::{PURGES_HELD_MAX, PURGES_PER_REQUEST_MAX};
use crate::object::SiteId;
use crate::site::{QueryPolicy, Rule, Site, Sites};

/// A journal: what it says is bounded, and one that goes on under its own name forgot nothing that
/// it does not own to.
pub fn journal(bytes: &[u8]) {
    const NEW_ID: u64 = u64::MAX;
    let replayed = replay(bytes, NEW_ID);
    let purges = replayed.table.purges();
    assert!(replayed.table.len() <= PURGES_HELD_MAX);
    assert!(purges.iter().all(|purge| (1..=replayed.count).contains(&purge.number)));
    let again = replay(bytes, NEW_ID - 1);
    assert_eq!((again.count, again.table.purges().len()), (replayed.count, purges.len()));
    if replayed.id == NEW_ID && again.id != NEW_ID {
        assert!(replayed.forgot && again.forgot);
    }
}

/// A request to purge: what is accepted is bounded, and can be written and read again.
pub fn request(bytes: &[u8]) {
    let Ok(request) = PurgeRequest::parse(bytes) else { return };
    let written = serde_json::to_vec(&request).expect("texts and lists are JSON");
    assert_eq!(PurgeRequest::parse(&written).as_ref(), Ok(&request));
    let sites = Sites::new(vec![site()]);
    let Ok(scopes) = request.scopes(&sites) else { return };
    assert!((1..=PURGES_PER_REQUEST_MAX).contains(&scopes.len()));
    assert_eq!(request.scopes(&sites), Ok(scopes), "the same whenever it is asked");
}

pub(super) fn site() -> Site {
    Site {
        id: SiteId(0),
        name: "film".to_owned(),
        hosts: vec!["film.test".to_owned(), "*.film.test".to_owned()],
        origins: Vec::new(),
        share: 1,
        ssd_percent: 100,
        edited_before: Vec::new(),
        rules: vec![Rule { query: QueryPolicy::Only(vec!["a".to_owned()]), ..Rule::everything() }],
    }
}
