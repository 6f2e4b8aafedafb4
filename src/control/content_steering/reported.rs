//! What a player reports when it asks: `_HLS_pathway` and `_HLS_throughput`, `_DASH_pathway` and
//! `_DASH_throughput`.
//!
//! Players write these with and without quotes, around the list or each member, escaped or not, and
//! leave members out. Whatever can be read counts; the rest is told as a [`Flaw`] and fails nobody.

use super::Dialect;
use super::session::parameter;
use crate::control::registry::appliance::Pathway;
use crate::limits::PATHWAYS_REPORTED_MAX;
use crate::message::target::decoded;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// In the player's order, each once. In HLS the one it plays from; in DASH those it measured.
    pub pathways: Vec<Pathway>,
    /// What it could receive from each, in bits per second; `None`: it does not say.
    pub bits_per_second: Vec<Option<u64>>,
    /// What could not be read, each once.
    pub flaws: Vec<Flaw>,
}

/// What is wrong with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A broken escape, or no text.
    Encoding,
    /// A quote without its other half.
    Quote,
    /// No pathway is called that.
    Name,
    /// A pathway that neither the asset nor the fleet has.
    Unknown,
    /// No whole number.
    Number,
    /// More throughputs than pathways, or fewer.
    Count,
    /// More pathways than are read.
    TooMany,
}

impl Flaw {
    /// One word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Flaw::Encoding => "encoding",
            Flaw::Quote => "quote",
            Flaw::Name => "name",
            Flaw::Unknown => "unknown",
            Flaw::Number => "number",
            Flaw::Count => "count",
            Flaw::TooMany => "too-many",
        }
    }
}

impl Reported {
    /// What a query reports; `is_known`: of pathways that the asset or the fleet has.
    pub fn of_query(
        query: &str,
        dialect: Dialect,
        is_known: impl Fn(&Pathway) -> bool,
    ) -> Reported {
        let mut reported = Reported::default();
        let (pathway, throughput) = match dialect {
            Dialect::Hls => ("_HLS_pathway", "_HLS_throughput"),
            Dialect::Dash => ("_DASH_pathway", "_DASH_throughput"),
        };
        let pathways = reported.members(parameter(query, pathway));
        let throughputs = reported.members(parameter(query, throughput));
        if !throughputs.is_empty() && throughputs.len() != pathways.len() {
            reported.flag(Flaw::Count);
        }
        for (n, name) in pathways.iter().enumerate() {
            let bits_per_second = throughputs.get(n).filter(|number| !number.is_empty());
            let bits_per_second = bits_per_second.and_then(|number| reported.number(number));
            if name.is_empty() {
                continue;
            }
            match Pathway::new(name) {
                None => reported.flag(Flaw::Name),
                Some(pathway) if !is_known(&pathway) => reported.flag(Flaw::Unknown),
                Some(pathway) => reported.push(pathway, bits_per_second),
            }
        }
        reported
    }

    /// A list's members without quotes; bounded, and empty where there is no list.
    fn members(&mut self, value: Option<&str>) -> Vec<String> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Vec::new() };
        let Some(text) = decoded(value).and_then(|bytes| String::from_utf8(bytes).ok()) else {
            self.flag(Flaw::Encoding);
            return Vec::new();
        };
        // One pair of quotes around all, or one around each.
        let around = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let text = around.filter(|inside| !inside.contains('"')).unwrap_or(&text);
        if text.is_empty() {
            return Vec::new();
        }
        let mut members = Vec::new();
        for member in text.split(',') {
            if members.len() == PATHWAYS_REPORTED_MAX {
                self.flag(Flaw::TooMany);
                break;
            }
            members.push(self.unquoted(member).to_owned());
        }
        members
    }

    fn unquoted<'t>(&mut self, text: &'t str) -> &'t str {
        let text = text.trim_matches(' ');
        match (text.strip_prefix('"'), text.strip_suffix('"')) {
            (None, None) => text,
            (Some(_), Some(_)) if text.len() >= 2 => &text[1..text.len() - 1],
            (rest, _) => {
                self.flag(Flaw::Quote);
                rest.unwrap_or(text).trim_matches('"')
            }
        }
    }

    fn number(&mut self, text: &str) -> Option<u64> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            self.flag(Flaw::Number);
            return None;
        }
        // Only too many digits are left that are no number of ours.
        Some(text.parse().unwrap_or(u64::MAX))
    }

    fn push(&mut self, pathway: Pathway, bits_per_second: Option<u64>) {
        if !self.pathways.contains(&pathway) {
            self.pathways.push(pathway);
            self.bits_per_second.push(bits_per_second);
        }
    }

    fn flag(&mut self, flaw: Flaw) {
        if !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read<'a> = (&'a [(&'a str, Option<u64>)], &'a [Flaw]);

    fn read(query: &str, dialect: Dialect) -> (Vec<(String, Option<u64>)>, Vec<Flaw>) {
        let known = |pathway: &Pathway| pathway.as_str() != "elsewhere";
        let Reported { pathways, bits_per_second, flaws } =
            Reported::of_query(query, dialect, known);
        let pathways = pathways.iter().map(Pathway::to_string);
        (pathways.zip(bits_per_second).collect(), flaws)
    }

    fn holds(table: &[(&str, Read<'_>)], dialect: Dialect) {
        for (query, (expected, flaws)) in table {
            let expected: Vec<_> =
                expected.iter().map(|(name, bits)| (name.to_string(), *bits)).collect();
            assert_eq!(read(query, dialect), (expected, flaws.to_vec()), "{query}");
        }
    }

    #[test]
    fn hls_players_write_their_pathway_in_every_way_there_is() {
        let a: &[(&str, Option<u64>)] = &[("A", Some(5_140_000))];
        holds(
            &[
                ("_HLS_pathway=A&_HLS_throughput=5140000", (a, &[])),
                ("_HLS_pathway=\"A\"&_HLS_throughput=5140000", (a, &[])),
                ("_HLS_pathway=%22A%22&_HLS_throughput=5140000", (a, &[])),
                ("sid=x&_HLS_throughput=%225140000%22&_HLS_pathway=%22A%22", (a, &[])),
                ("_HLS_pathway=A", (&[("A", None)], &[])),
                ("_HLS_pathway=.", (&[(".", None)], &[])),
                ("_HLS_throughput=5140000", (&[], &[Flaw::Count])),
                ("", (&[], &[])),
                ("_HLS_pathway=", (&[], &[])),
                ("_HLS_pathway=%22%22", (&[], &[])),
                ("_HLS_pathway=%22A", (&[("A", None)], &[Flaw::Quote])),
                ("_HLS_pathway=A%22", (&[("A", None)], &[Flaw::Quote])),
                ("_HLS_pathway=%22", (&[], &[Flaw::Quote])),
                ("_HLS_pathway=elsewhere", (&[], &[Flaw::Unknown])),
                ("_HLS_pathway=a%2Fb", (&[], &[Flaw::Name])),
                ("_HLS_pathway=%zz", (&[], &[Flaw::Encoding])),
                ("_HLS_pathway=%ff", (&[], &[Flaw::Encoding])),
                ("_HLS_pathway=A&_HLS_throughput=1.5", (&[("A", None)], &[Flaw::Number])),
                ("_HLS_pathway=A&_HLS_throughput=-1", (&[("A", None)], &[Flaw::Number])),
                (
                    "_HLS_pathway=A&_HLS_throughput=99999999999999999999",
                    (&[("A", Some(u64::MAX))], &[]),
                ),
                ("_HLS_pathway=A&_HLS_pathway=B", (&[("A", None)], &[])),
                ("_DASH_pathway=A", (&[], &[])),
            ],
            Dialect::Hls,
        );
    }

    #[test]
    fn dash_players_report_lists_with_members_missing() {
        let both: &[(&str, Option<u64>)] = &[("a", Some(1)), ("b", Some(2))];
        let first: &[(&str, Option<u64>)] = &[("a", Some(1)), ("b", None)];
        holds(
            &[
                ("_DASH_pathway=a,b&_DASH_throughput=1,2", (both, &[])),
                ("_DASH_pathway=\"a,b\"&_DASH_throughput=1,2", (both, &[])),
                ("_DASH_pathway=%22a%2Cb%22&_DASH_throughput=%221%2C2%22", (both, &[])),
                ("_DASH_pathway=%22a%22,%22b%22&_DASH_throughput=1,2", (both, &[])),
                ("_DASH_pathway=%22a%22,b&_DASH_throughput=1,2", (both, &[])),
                ("_DASH_pathway=a&_DASH_throughput=1", (&both[..1], &[])),
                ("_DASH_pathway=a,b&_DASH_throughput=1,", (first, &[])),
                ("_DASH_pathway=a,b&_DASH_throughput=,2", (&[("a", None), ("b", Some(2))], &[])),
                ("_DASH_pathway=a,b&_DASH_throughput=", (&[("a", None), ("b", None)], &[])),
                ("_DASH_pathway=a,,b&_DASH_throughput=1,7,2", (both, &[])),
                ("_DASH_pathway=a,b&_DASH_throughput=1", (first, &[Flaw::Count])),
                ("_DASH_pathway=a&_DASH_throughput=1,2", (&both[..1], &[Flaw::Count])),
                ("_DASH_pathway=a,b,a&_DASH_throughput=1,2,3", (both, &[])),
                ("_DASH_pathway=a,elsewhere&_DASH_throughput=1,2", (&both[..1], &[Flaw::Unknown])),
                ("_DASH_pathway=a,b&_DASH_throughput=1,NaN", (first, &[Flaw::Number])),
                ("_DASH_pathway=%22a,b", (&[("a", None), ("b", None)], &[Flaw::Quote])),
                ("", (&[], &[])),
            ],
            Dialect::Dash,
        );
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let names: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let query = format!("_DASH_pathway={}", names.join(","));
        let (read, flaws) = read(&query, Dialect::Dash);
        assert_eq!((read.len(), flaws), (PATHWAYS_REPORTED_MAX, vec![Flaw::TooMany]));
        assert_eq!(Flaw::TooMany.word(), "too-many");
    }
}
