//! How soon a viewer needs an answer (RFC 9218): a hint, which he may use to stand back.
//!
//! Of HTTP/2 only the field is heard: `PRIORITY_UPDATE` frames end in hyper, which tells nobody.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use crate::message::cmcd::Cmcd;

/// The `Priority` field of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// 0 is the most urgent, 7 the least.
    pub urgency: u8,
    /// Whether a part of the answer is of use before the rest.
    pub incremental: bool,
}

impl Priority {
    /// Of a request's fields; what is missing, or not as it should be, is as section 4 has it.
    pub fn of(headers: &HeaderMap) -> Priority {
        let mut lines = headers.get_all(PRIORITY).iter().map(|line| line.as_bytes());
        let Some(first) = lines.next() else { return Priority::default() };
        let whole = lines.fold(first.to_vec(), |whole, line| [&whole, &b", "[..], line].concat());
        let told: Dictionary = Parser::new(&whole).parse().unwrap_or_default();
        let value = |name| match told.get(name) {
            Some(ListEntry::Item(Item { bare_item, .. })) => Some(bare_item),
            _ => None,
        };
        let urgency = match value("u") {
            Some(BareItem::Integer(urgency)) => u8::try_from(i64::from(*urgency)).ok(),
            _ => None,
        };
        Priority {
            urgency: urgency.filter(|urgency| *urgency <= 7).unwrap_or(URGENCY_DEFAULT),
            incremental: matches!(value("i"), Some(BareItem::Boolean(true))),
        }
    }

    /// Whether others may go first: he says so, and his player does not say that it starves or
    /// begins.
    pub fn stands_back(self, cmcd: Option<&Cmcd>) -> bool {
        let is_needed = |cmcd: &Cmcd| cmcd.says("bs") || cmcd.says("su");
        self.urgency > URGENCY_DEFAULT && !cmcd.is_some_and(is_needed)
    }
}

impl Default for Priority {
    fn default() -> Priority {
        Priority { urgency: URGENCY_DEFAULT, incremental: false }
    }
}

const PRIORITY: HeaderName = HeaderName::from_static("priority");
const URGENCY_DEFAULT: u8 = 3;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_not_as_it_should_be_is_as_if_it_were_not_there() {
        for (lines, urgency, incremental) in [
            // RFC 9218 4.1 and 4.2.
            (&[][..], 3, false),
            (&["u=0"], 0, false),
            (&["u=7, i"], 7, true),
            (&["i"], 3, true),
            (&["i=?0, u=5"], 5, false),
            (&["u=1", "i"], 1, true),
            (&["u=1, u=6"], 6, false),
            (&["u=8"], 3, false),
            (&["u=-1"], 3, false),
            (&["u=256"], 3, false),
            (&["u=1.0"], 3, false),
            (&["u=\"1\", i=1"], 3, false),
            (&["u=(1)"], 3, false),
            (&["u=5, new=x;a=b"], 5, false),
            (&["u=5,"], 3, false),
            (&["U=5"], 3, false),
            (&[""], 3, false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PRIORITY, HeaderValue::from_static(line));
            }
            let expected = Priority { urgency, incremental };
            assert_eq!(Priority::of(&headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn who_starves_or_begins_does_not_stand_back() {
        let told = |text| Cmcd::of(&HeaderMap::new(), Some(text));
        let priority = |urgency| Priority { urgency, incremental: false };
        for (urgency, query, expected) in [
            (3, "", false),
            (0, "", false),
            (4, "", true),
            (7, "CMCD=bl%3D1", true),
            (7, "CMCD=bs", false),
            (7, "CMCD=su", false),
            (7, "CMCD=bs=?0", true),
        ] {
            let cmcd = told(query);
            assert_eq!(priority(urgency).stands_back(cmcd.as_ref()), expected, "{urgency} {query}");
        }
    }
}
