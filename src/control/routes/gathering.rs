//! What one source tells, judged as it comes: nothing of a source that tells wrong is used.

use std::ops::Range;

use crate::control::registry::appliance::is_name;
use crate::control::routes::builder::Builder;
use crate::control::routes::error::RoutesError;
use crate::control::routes::table::Way;
use crate::control::routes::viewers::Viewers;
use crate::limits::{PATHWAY_BYTES_MAX, ROUTES_MAX, ROUTES_PER_FILE_MAX};

/// What no source may tell: a router that is set wrongly would send everybody to one box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// The shortest prefix of IPv4.
    pub ipv4_bits_min: u8,
    /// The shortest prefix of IPv6.
    pub ipv6_bits_min: u8,
    /// The most routes of one source.
    pub routes_max: usize,
    /// The most of all sources together.
    pub all_max: usize,
}

impl Default for Guards {
    /// Nobody announces shorter ones; all prefixes of the Internet are a million and a half.
    fn default() -> Guards {
        let (routes_max, all_max) = (ROUTES_PER_FILE_MAX, ROUTES_MAX);
        Guards { ipv4_bits_min: 8, ipv6_bits_min: 16, routes_max, all_max }
    }
}

/// Boxes that announce together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boxes(u32);

/// Takes the routes of one source.
pub struct Gathering<'a> {
    builder: &'a mut Builder,
    guards: Guards,
    source: u32,
    told: usize,
    notices: Vec<String>,
}

impl<'a> Gathering<'a> {
    /// Of a source of this name.
    pub fn new(builder: &'a mut Builder, guards: Guards, name: &str) -> Gathering<'a> {
        let source = builder.source(name);
        Gathering { builder, guards, source, told: 0, notices: Vec::new() }
    }

    /// The source's number in the table that is being made.
    pub(super) fn source(&self) -> u32 {
        self.source
    }

    /// Takes what a source tells, all of it or nothing. What an operator should know although it is
    /// used, a line each.
    ///
    /// # Errors
    /// Why nothing of it is used.
    pub fn take(
        mut self,
        tell: impl FnOnce(&mut Gathering<'_>) -> Result<(), RoutesError>,
    ) -> Result<Vec<String>, RoutesError> {
        let length_before = self.builder.len();
        let told = tell(&mut self);
        let told = told.and(if self.told == 0 { Err(RoutesError::Empty) } else { Ok(()) });
        if told.is_err() {
            self.builder.truncate(length_before);
        }
        told.map(|()| self.notices)
    }

    /// Boxes by their names.
    ///
    /// # Errors
    /// One is no name.
    pub fn boxes<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<Boxes, RoutesError> {
        match names.clone().find(|name| !is_name(name)) {
            Some(name) => Err(RoutesError::Name { name: shortened(name) }),
            None => Ok(Boxes(self.builder.group(names))),
        }
    }

    /// A route to viewers by boxes.
    ///
    /// # Errors
    /// A guard forbids it.
    pub fn announce(
        &mut self,
        viewers: Viewers,
        boxes: Boxes,
        way: Way,
    ) -> Result<(), RoutesError> {
        if let Some(prefix) = viewers.prefix() {
            let Guards { ipv4_bits_min, ipv6_bits_min, .. } = self.guards;
            let is_ipv4 = prefix.addr().is_ipv4();
            let bits_min = if is_ipv4 { ipv4_bits_min } else { ipv6_bits_min };
            if prefix.prefix_len() == 0 {
                return Err(RoutesError::DefaultRoute { prefix });
            }
            if prefix.prefix_len() < bits_min {
                return Err(RoutesError::TooShort { prefix, bits_min });
            }
        }
        if self.told >= self.guards.routes_max {
            return Err(RoutesError::TooMany { routes_max: self.guards.routes_max });
        }
        if self.builder.len() >= self.guards.all_max {
            return Err(RoutesError::TooManyInAll);
        }
        self.told += 1;
        self.builder.announce(viewers, boxes.0, self.source, way);
        Ok(())
    }

    /// How many routes were taken.
    pub(super) fn len(&self) -> usize {
        self.told
    }

    /// Takes back some of the routes, by their order.
    pub(super) fn forget(&mut self, range: Range<usize>) {
        let before = self.builder.len() - self.told;
        self.told -= range.len();
        self.builder.forget(before + range.start..before + range.end);
    }

    /// Says what an operator should know although it is used.
    pub fn notice(&mut self, line: String) {
        self.notices.push(line);
    }
}

/// What was written, for a line that says what is wrong with it.
pub(super) fn shortened(text: &str) -> String {
    let start: String = text.chars().take(PATHWAY_BYTES_MAX).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    start.escape_debug().to_string() + more
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn told(guards: Guards, prefixes: &[&str]) -> (Builder, Result<Vec<String>, RoutesError>) {
        let mut builder = Builder::default();
        let result = Gathering::new(&mut builder, guards, "test").take(|gathering| {
            let boxes = gathering.boxes(["a"].into_iter())?;
            prefixes.iter().try_for_each(|prefix| {
                gathering.announce(prefix.parse().unwrap(), boxes, Way::default())
            })
        });
        (builder, result)
    }

    #[test]
    fn what_no_source_may_tell_is_refused_with_all_that_it_tells() {
        let guards = Guards { routes_max: 3, ..Guards::default() };
        for (prefixes, line) in [
            (&["192.0.2.0/24", "0.0.0.0/0"][..], "0.0.0.0/0 is the default route"),
            (&["::/0"], "::/0 is the default route"),
            (&["192.0.2.0/24", "0.0.0.0/1"], "0.0.0.0/1 is shorter than /8"),
            (&["2000::/15"], "2000::/15 is shorter than /16"),
            (&["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8", "13.0.0.0/8"], "more than 3 routes"),
            (&[], "no route"),
        ] {
            let (builder, result) = told(guards, prefixes);
            let error = result.unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
            assert_eq!(builder.len(), 0, "{line}");
        }
        let (builder, result) = told(guards, &["10.0.0.0/8", "2000::/16", "DE"]);
        assert_eq!((builder.len(), result.unwrap().len()), (3, 0));
        assert_eq!(builder.build(Arc::default()).prefixes(), 2);
    }

    #[test]
    fn boxes_have_names_as_pathways_have() {
        for name in ["a", "fra-1", "Edge_1.example"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a/b", "ä", "a,b", &"a".repeat(PATHWAY_BYTES_MAX + 1)] {
            assert!(!is_name(name), "{name}");
        }
        assert_eq!(shortened("a\u{7}"), "a\\u{7}");
        assert!(shortened(&"ä".repeat(1_000)).ends_with('…'));
    }
}
