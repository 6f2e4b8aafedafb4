//! Whom a route is for: a prefix, an AS, a country.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::control::steering::Match;
use crate::geo::Country;
use crate::site::network;

/// Whom a route is for. The order is that of lists: prefixes first, by family and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Viewers {
    /// Who has an address of it.
    Prefix(IpNet),
    /// Whose address an AS announces.
    As(u32),
    /// Whose address is used in a country.
    Country(Country),
}

impl Viewers {
    /// As steering compares it.
    pub fn matched(self) -> Match {
        match self {
            Viewers::Prefix(prefix) => Match::bits(prefix.prefix_len()),
            Viewers::As(_) => Match::As,
            Viewers::Country(_) => Match::Country,
        }
    }

    /// The prefix, if it is one.
    pub fn prefix(self) -> Option<IpNet> {
        match self {
            Viewers::Prefix(prefix) => Some(prefix),
            Viewers::As(_) | Viewers::Country(_) => None,
        }
    }
}

impl FromStr for Viewers {
    type Err = ();

    /// `192.0.2.0/24`, `2001:db8::/32`, one address, `AS64500` or `DE`.
    fn from_str(text: &str) -> Result<Viewers, ()> {
        if let Some(number) = text.strip_prefix("AS") {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            return number.parse().ok().filter(|_| is_number).map(Viewers::As).ok_or(());
        }
        if let Ok(country) = text.parse() {
            return Ok(Viewers::Country(country));
        }
        network(text).map(Viewers::Prefix).ok_or(())
    }
}

impl fmt::Display for Viewers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Viewers::Prefix(prefix) => write!(f, "{prefix}"),
            Viewers::As(number) => write!(f, "AS{number}"),
            Viewers::Country(country) => write!(f, "{country}"),
        }
    }
}

impl Serialize for Viewers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_route_is_for_is_read_as_it_is_told() {
        for (written, told) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("AS4200000000", "AS4200000000"),
            ("DE", "DE"),
        ] {
            assert_eq!(
                written.parse::<Viewers>().map(|viewers| viewers.to_string()),
                Ok(told.into())
            );
        }
        for wrong in
            ["", "de", "DEU", "D1", "AS", "AS-1", "AS+1", "AS4294967296", "AS1 ", "1.2.3.4/33", "x"]
        {
            assert_eq!(wrong.parse::<Viewers>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_is_more_special_than_an_as_and_an_as_than_a_country() {
        let matched = |text: &str| text.parse::<Viewers>().unwrap().matched();
        let order = ["10.0.0.0/32", "10.0.0.0/8", "0.0.0.0/0", "AS1", "DE"];
        assert!(order.map(matched).is_sorted_by(|one, other| one < other));
    }
}
