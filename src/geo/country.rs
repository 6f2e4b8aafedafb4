//! Countries, by the two letters of ISO 3166-1.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Two letters of ISO 3166-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Its letters, which are capitals.
    pub fn letters(self) -> [u8; 2] {
        self.0
    }
}

impl FromStr for Country {
    type Err = ();

    fn from_str(text: &str) -> Result<Country, ()> {
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(drop)?;
        letters.iter().all(u8::is_ascii_uppercase).then_some(Country(letters)).ok_or(())
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl Serialize for Country {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
