//! `GET /usage?month=2026-11&site=NAME&samples=yes`: what each site was served in a month, this one
//! where none is named; of one site each sample too.

use std::sync::Arc;

use http::{Request, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::asking::{Said, refusal};
use super::log::parameter;
use crate::limits::LOOK_BYTES;
use crate::memory::{Class, Governor, Use};
use crate::moment::Moment;
use crate::site::CurrentSites;
use crate::usage::keeper::Usage;
use crate::usage::told::{Asked, Unreckoned};
use crate::usage::{Month, SITE_BYTES};

/// Tells of usage.
pub struct UsageSource {
    /// Of whom, where it is kept.
    pub usage: Option<Arc<Usage>>,
    /// Sites that are there, whether or not anything was served of them.
    pub sites: Arc<CurrentSites>,
    /// A month takes memory while it is reckoned.
    pub governor: Arc<Governor>,
    /// Taken by who looks.
    pub look: Semaphore,
}

impl UsageSource {
    /// What is told of a month. Dropping it midway is safe.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Result<Said, Said> {
        let now = Moment::now();
        let asked = asked(request, now).ok_or_else(|| {
            let text = "ask for /usage?month=2026-11, and perhaps &site=NAME&samples=yes, \
                        and nothing else";
            refusal(StatusCode::BAD_REQUEST, text)
        })?;
        let Some(usage) = self.usage.clone() else {
            let text = "no usage is kept here: `usage.months` is 0";
            return Err(refusal(StatusCode::NOT_FOUND, text));
        };
        let busy = |text: &str| refusal(StatusCode::SERVICE_UNAVAILABLE, text);
        let looking = self.look.try_acquire();
        let _looking = looking.map_err(|_| busy("somebody else looks just now; ask again"))?;
        let (governor, sites) = (self.governor.clone(), self.sites.load_full());
        let told = spawn_blocking(move || {
            let mut reserved = Vec::new();
            let mut room = |bytes| {
                let one = governor.try_reserve(Use::Requests, Class::Admission, bytes);
                let is_there = one.is_some();
                reserved.extend(one);
                is_there
            };
            if !room(LOOK_BYTES) {
                return Err(Unreckoned::NoRoom);
            }
            let told = usage.told(&asked, now, || room(SITE_BYTES))?;
            Ok(told.with_silent(&asked, sites.iter().map(|site| &*site.name)))
        });
        match told.await {
            Ok(Ok(told)) => Ok((StatusCode::OK, json!(told))),
            Ok(Err(error)) => Err(busy(&error.to_string())),
            Err(_) => Err(busy("it broke off; the log says why")),
        }
    }
}

fn asked<B>(request: &Request<B>, now: Moment) -> Option<Asked> {
    let mut names = request.uri().query().unwrap_or_default().split('&');
    // Whoever misspells one would be told of another month, or of all sites.
    let is_known = |one: &str| {
        one.is_empty() || one.split_once('=').is_some_and(|(name, _)| ASKED_BY.contains(&name))
    };
    if !names.all(is_known) {
        return None;
    }
    let value = |name| parameter(request.uri(), name).ok();
    let month = match &*value("month")? {
        "" => Month::at(now.time),
        month => month.parse().ok()?,
    };
    let site = value("site").filter(|site| !site.is_empty());
    let samples = match &*value("samples")? {
        "" => false,
        "yes" => site.is_some(),
        _ => return None,
    };
    Some(Asked { month, site, samples })
}

/// The names of all that a query may have.
const ASKED_BY: [&str; 3] = ["month", "site", "samples"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_what_nobody_knows_is_not_told_something_else() {
        let asked = |query: &str| {
            let request = Request::get(format!("/usage{query}")).body(()).unwrap();
            asked(&request, Moment::now())
        };
        for right in ["", "?", "?month=", "?month=2026-11&site=film&samples=yes", "?site=a&"] {
            assert!(asked(right).is_some(), "{right}");
        }
        for wrong in ["?sites=film", "?month=2026-11&colour=red", "?site", "?month=11", "?a=b&"] {
            assert!(asked(wrong).is_none(), "{wrong}");
        }
    }
}
