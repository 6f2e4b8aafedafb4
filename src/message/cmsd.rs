//! What the edge tells a player of the way to it: `CMSD-Dynamic` (Common Media Server Data,
//! CTA-5006). `CMSD-Static` is the origin's, and passes.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::message::syntax::written;

/// What is known of the way to a viewer, and of how the appliance does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// Estimated throughput in kbit/s.
    pub throughput_kbps: Option<u64>,
    /// Round trip in milliseconds.
    pub round_trip_ms: Option<u64>,
    /// It cannot do all that is asked of it.
    pub under_duress: bool,
}

impl Dynamic {
    /// Adds a member to the list, behind those of the servers before us.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        headers.append(CMSD_DYNAMIC, written(self));
    }
}

impl fmt::Display for Dynamic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"tidegate\"")?;
        if let Some(kbps) = self.throughput_kbps {
            write!(f, ";etp={kbps}")?;
        }
        if let Some(millis) = self.round_trip_ms {
            write!(f, ";rtt={millis}")?;
        }
        f.write_str(if self.under_duress { ";du" } else { "" })
    }
}

const CMSD_DYNAMIC: HeaderName = HeaderName::from_static("cmsd-dynamic");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_of_structured_items_to_which_each_server_adds() {
        let mut headers = HeaderMap::new();
        headers.append(CMSD_DYNAMIC, "\"origin\";rd=3".parse().unwrap());
        let all =
            Dynamic { throughput_kbps: Some(96_000), round_trip_ms: Some(8), under_duress: true };
        all.append_to(&mut headers);
        Dynamic::default().append_to(&mut headers);
        let lines: Vec<_> = headers.get_all(CMSD_DYNAMIC).iter().collect();
        let expected = ["\"origin\";rd=3", "\"tidegate\";etp=96000;rtt=8;du", "\"tidegate\""];
        assert_eq!(lines, expected);
        for line in lines {
            let list: Result<sfv::List, _> = sfv::Parser::new(line.as_bytes()).parse();
            assert_eq!(list.unwrap().len(), 1);
        }
    }
}
