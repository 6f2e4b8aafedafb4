//! What all that is asked of the admin listener shares: who asks and whether he may, what he sends,
//! how he is refused. Who may:
//!
//! - Health and `openapi.json`: everybody.
//! - Looking on: everybody; where a viewer has a token, from elsewhere who bears one.
//! - Looking at more than metrics: the same, but from this machine without a token by an address.
//! - Reading of requests (`log.rs`), or what one would get (`/explain`): who bears a token; without
//!   any, who asks from this machine, by an address.
//! - Reloads, upgrades, drains: operators; without any token, who asks from this machine.
//! - Purges: operators; without any token, nobody.
//!
//! A page of another site that a browser shows has it ask for what everybody may, and metrics.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::purge::{Bearer, Role, Tokens};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Somebody on this machine.
    Here,
    /// Anybody else.
    Elsewhere,
}

/// What an answer says.
pub(super) type Said = (StatusCode, Value);

/// A request's body, whatever it is sent by.
pub trait AskedBody: Body<Data = Bytes, Error: Into<BodyError>> {}

impl<B: Body<Data = Bytes, Error: Into<BodyError>>> AskedBody for B {}

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Whether he may purge: operators; who it is.
pub(super) fn may_purge(
    tokens: &Option<Arc<Tokens>>,
    fields: &HeaderMap,
) -> Result<Arc<str>, Said> {
    let Some(tokens) = tokens else {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "nobody may purge here; write `admin.token_file` in the configuration, the path of a \
             file with a token",
        ));
    };
    match tokens.bearer(fields) {
        Some(Bearer { role: Role::Operator, name, .. }) => Ok(name.clone()),
        Some(Bearer { role: Role::Viewer, name, .. }) => Err(refusal(
            StatusCode::FORBIDDEN,
            &format!("{name} may look, and nothing else; show the token of an operator"),
        )),
        None => Err(unknown(
            fields,
            "who changes anything shows the token of `admin.token_file`: \
             `Authorization: Bearer TOKEN`",
        )),
    }
}

/// Whether he may have something done that harms no object: an operator, or, where there is no
/// token, who asks from this machine.
pub(super) fn may_operate(
    path: &str,
    tokens: &Option<Arc<Tokens>>,
    fields: &HeaderMap,
    from: From,
) -> Result<(), Said> {
    match tokens {
        None if from == From::Elsewhere => Err(from_here_alone()),
        None if fields.get(CONTENT_TYPE) != Some(&JSON) => {
            let text = "send it as `Content-Type: application/json`";
            Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
        None => Ok(()),
        // It may have been written anew: then the one of before counts, or a SIGHUP.
        tokens => may_purge(tokens, fields).map(|by| tracing::info!(%by, "POST {path}")),
    }
}

/// Whether he may know what viewers do: who bears a token, or, where there is none, who asks from
/// this machine.
pub(super) fn may_read_of_requests(
    tokens: &Option<Arc<Tokens>>,
    fields: &HeaderMap,
    from: From,
) -> Result<(), Said> {
    match tokens {
        None if from == From::Elsewhere => Err(from_here_alone()),
        None if !names_this_machine(fields) => Err(by_another_name()),
        None => Ok(()),
        Some(tokens) if tokens.bearer(fields).is_some() => Ok(()),
        Some(_) => {
            let text = "who reads of requests shows a token of `admin.token_file`: \
                        `Authorization: Bearer TOKEN`";
            Err(unknown(fields, text))
        }
    }
}

/// Whether he may look on: who asks from this machine, and everybody where no viewer has a token.
pub(super) fn may_look(
    tokens: &Option<Arc<Tokens>>,
    fields: &HeaderMap,
    from: From,
) -> Result<(), Said> {
    match tokens {
        Some(tokens) if from == From::Elsewhere && tokens.has_viewers() => {
            let text = "who looks from another machine shows a token of `admin.token_file`: \
                        `Authorization: Bearer TOKEN`";
            tokens.bearer(fields).map(drop).ok_or_else(|| unknown(fields, text))
        }
        _ => Ok(()),
    }
}

/// Whether he may look at what is told of the appliance beside its metrics: who may look on, but
/// for any page of a browser of this machine.
pub(super) fn may_look_closely(
    tokens: &Option<Arc<Tokens>>,
    fields: &HeaderMap,
    from: From,
) -> Result<(), Said> {
    may_look(tokens, fields, from)?;
    if from == From::Elsewhere || names_this_machine(fields) {
        return Ok(());
    }
    match tokens {
        None => Err(by_another_name()),
        Some(tokens) if tokens.bearer(fields).is_some() => Ok(()),
        Some(_) => {
            let text = "who asks by another name than `localhost` or an address shows a token of \
                        `admin.token_file`: `Authorization: Bearer TOKEN`";
            Err(unknown(fields, text))
        }
    }
}

/// Whether it is asked for by what no name server says. A page may have a name that leads to this
/// machine all of a sudden, and then reads what is answered; a browser tells that name. Whoever is
/// no browser may leave it out.
fn names_this_machine(fields: &HeaderMap) -> bool {
    let Some(host) = fields.get(HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

/// Whether a page of another site has a browser ask (Fetch Metadata section 2.4), as any does that
/// shows an image: it would read nothing, and take the places of who follows the log. Whoever is no
/// browser does not say, nor does one that asks by plain HTTP at another machine's address.
pub(super) fn is_of_another_site(fields: &HeaderMap) -> bool {
    let mut sites = fields.get_all("sec-fetch-site").iter();
    sites.any(|site| site != "same-origin" && site != "none")
}

fn by_another_name() -> Said {
    let text = "without a token ask by `localhost` or an address, such as 127.0.0.1: any page in a \
                browser could ask by another name that leads here";
    refusal(StatusCode::FORBIDDEN, text)
}

fn from_here_alone() -> Said {
    let text = "without a token only who asks from this machine may; write `admin.token_file` in \
                the configuration";
    refusal(StatusCode::FORBIDDEN, text)
}

/// Of who shows no token that counts.
fn unknown(fields: &HeaderMap, without: &str) -> Said {
    let text = match fields.contains_key(AUTHORIZATION) {
        true => {
            "this is not the token that was in `admin.token_file` when the appliance started or \
             was last reloaded"
        }
        false => without,
    };
    refusal(StatusCode::UNAUTHORIZED, text)
}

/// A request's whole body, of so many bytes at most.
pub(super) async fn body_of(body: impl AskedBody, bytes_max: usize) -> Result<Bytes, Said> {
    match timeout(BODY_WITHIN, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("a request has {bytes_max} bytes at most");
            Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, &text))
        }
        Ok(Err(_)) => Err(refusal(StatusCode::BAD_REQUEST, "the request broke off")),
        Err(_) => Err(refusal(StatusCode::REQUEST_TIMEOUT, "the request did not end in time")),
    }
}

/// What is answered to who is refused.
pub(super) fn refusal(status: StatusCode, error: &str) -> Said {
    (status, json!({ "error": error }))
}

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BODY_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_by_a_name_that_leads_here_reads_of_no_requests() {
        let table = [
            (None, true),
            (Some("127.0.0.1:9180"), true),
            (Some("[::1]:9180"), true),
            (Some("LocalHost"), true),
            (Some("rebound.test:9180"), false),
            (Some("localhost.rebound.test"), false),
            (Some("127.0.0.1.rebound.test:9180"), false),
            (Some("a b"), false),
        ];
        for (host, may) in table {
            let host = host.map(|host| (HOST, HeaderValue::from_static(host)));
            let fields = HeaderMap::from_iter(host);
            let said = may_read_of_requests(&None, &fields, From::Here);
            assert_eq!(said.is_ok(), may, "{fields:?}");
            assert!(may_read_of_requests(&None, &fields, From::Elsewhere).is_err());
            assert_eq!(may_look_closely(&None, &fields, From::Here).is_ok(), may, "{fields:?}");
            assert!(may_look_closely(&None, &fields, From::Elsewhere).is_ok());
            assert!(may_look(&None, &fields, From::Here).is_ok(), "metrics are no secret");
            let tokens = Some(Arc::new(Tokens::of("a-token-of-an-operator").unwrap()));
            let said = may_look_closely(&tokens, &fields, From::Here);
            let refused = said.err().map(|(status, _)| status);
            let expected = (!may).then_some(StatusCode::UNAUTHORIZED);
            assert_eq!(refused, expected, "whoever can show a token is asked for it: {fields:?}");
        }
    }
}
