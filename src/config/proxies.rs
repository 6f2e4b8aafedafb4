//! Load balancers and proxies in front, and how they say whom they bring.

use http::header::{FORWARDED, HeaderName};

use super::raw::Section;
use super::rules::networks;
use crate::network::Network;

/// Who is believed when he says whom he brings; empty lists: nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    /// Whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<Network>,
    /// Whose requests say it in a field.
    pub forwarded: Vec<Network>,
    /// In this one.
    pub forwarded_field: HeaderName,
}

/// Reads the section `proxies`.
pub(super) fn read(section: &Section<'_>) -> Proxies {
    let listed = |key| section.setting(key).map(|setting| networks(&setting)).unwrap_or_default();
    let (proxy_protocol, forwarded) = (listed("proxy_protocol"), listed("forwarded"));
    let fields = [("X-Forwarded-For", false), ("Forwarded", true)];
    let is_forwarded = section.choice("forwarded_field", false, &fields);
    let forwarded_field = match is_forwarded {
        true => FORWARDED,
        false => HeaderName::from_static("x-forwarded-for"),
    };
    Proxies { proxy_protocol, forwarded, forwarded_field }
}
