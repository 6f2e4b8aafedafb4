//! Common Access Tokens (CTA-5007) for `tidegate token`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{Failure, MintArgs, Url, VerifyArgs};
use crate::access_log::RequestId;
use crate::token::cat::{Asked, Denied, Settings, Verified, mint, only};
use crate::token::key::Key;
use crate::token::key_file::Keys;

/// What of a request a Common Access Token may depend on, beside its URL and who asks.
#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// The method, for a Common Access Token
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header of the request, for such a token; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// What TLS has agreed on (h2, http/1.1), for such a token; left out: there is no TLS
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Option<String>,
    /// The country of who asks, two letters, for such a token; left out: not known
    #[arg(long, value_name = "CODE", value_parser = country)]
    country: Option<[u8; 2]>,
    /// The autonomous system of who asks, for such a token; left out: not known
    #[arg(long, value_name = "NUMBER")]
    asn: Option<u32>,
}

/// A token and what it says.
pub(super) fn minted(
    args: &MintArgs,
    url: &Url,
    keys: &Keys,
    key: &Key,
    now: u64,
) -> Result<(String, Map<String, Value>), Failure> {
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    claim("iss", key.issuer().into());
    claim("iat", now.into());
    claim("exp", (now + args.valid.as_secs()).into());
    claim("catv", 1.into());
    claim("catu", only(&url.uri));
    if let Some(audience) = &args.audience {
        claim("aud", audience.as_str().into());
    }
    if args.once {
        let id = RequestId::assign().to_string();
        claim("cti", id.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into());
        claim("catreplay", 1.into());
    }
    if let Some(renew) = args.renew {
        let seconds = renew.as_secs();
        claim("catr", json!({ "type": "automatic", "expadd": seconds, "deadline": seconds / 2 }));
    }
    if let Some(more) = &args.claims {
        let none = |error| Failure::Misused(format!("--claims is no object of JSON: {error}"));
        claims.extend(serde_json::from_str::<Map<String, Value>>(more).map_err(none)?);
    }
    let token = mint(&claims, key).map_err(Failure::Misused)?;
    let settings = Settings { audience: args.audience.clone(), ..Settings::default() };
    let none = HeaderMap::new();
    let asked = plain(url, &none, now);
    let admits = Verified::of(&token, keys, &settings).and_then(|verified| {
        verified.admits(&asked, |_| true).map(drop).map_err(|refused| refused.denied)
    });
    match admits {
        // Who asks, and how, is not known yet.
        Err(denied) if !OF_THE_REQUEST.contains(&denied) => {
            Err(Failure::Misused(format!("it would not let in to {}: {denied}", args.url)))
        }
        _ => Ok((token, claims)),
    }
}

/// A verdict as facts, and as a line.
pub(super) fn verified(
    args: &VerifyArgs,
    url: &Url,
    keys: &Keys,
    now: u64,
) -> Result<(Value, Result<String, String>), Failure> {
    let request = &args.request;
    let headers: HeaderMap = request.header.iter().cloned().collect();
    let asn = |_: IpAddr| request.asn;
    let country = |_: IpAddr| request.country;
    let asked = Asked {
        method: &request.method,
        alpn: request.alpn.as_ref().map(|alpn| alpn.as_bytes()),
        client: args.client,
        asn: Some(&asn),
        country: Some(&country),
        ..plain(url, &headers, now)
    };
    let settings = Settings { audience: args.audience.clone(), ..Settings::default() };
    let verified = Verified::of(url.token.as_deref().unwrap_or_default(), keys, &settings);
    let refused = |denied: Denied, status: Option<u16>| {
        let facts = json!({ "lets_in": false, "code": denied.code(), "reason": denied.reason(),
            "answers_with_status": status });
        let instead = status.map(|status| format!("; it says that {status} is answered"));
        let line = format!("it does not let in: {denied}{}", instead.unwrap_or_default());
        (facts, Err(line))
    };
    Ok(match &verified {
        Err(denied) => refused(*denied, None),
        Ok(verified) => match verified.admits(&asked, |_| true) {
            Err(why) => refused(why.denied, why.answer.map(|answer| answer.status)),
            Ok(renewal) => {
                let facts = json!({ "lets_in": true, "issuer": verified.issuer(),
                    "claims": verified.claims(),
                    "renews_for_seconds": renewal.map(|it| it.seconds) });
                (facts, Ok(format!("it lets in: signed by {:?}\n", verified.issuer())))
            }
        },
    })
}

/// What a claim of CTA-5007 means, in a few words.
pub(super) fn meaning(name: &str) -> String {
    let words = match name {
        "cti" => "its id",
        "catreplay" => "whether it may be used again: 0 it may, 1 it may not, 2 it is to be known",
        "catv" => "the version",
        "catnip" => "networks it is for, or autonomous systems",
        "catu" => "the URIs it is for",
        "catm" => "the methods it is for",
        "catalpn" => "the protocols it is for",
        "cath" => "the headers it is for",
        "catgeoiso3166" => "the countries it is for",
        "cattpk" => "the key of the client's certificate",
        "catif" => "what is answered to who does not meet a claim",
        "catr" => "how it is renewed",
        "sub" => "whom it is about",
        "catifdata" => "which claim was not met, and brought this",
        "alg" | "kid" | "iss" | "aud" | "exp" | "nbf" | "iat" => return String::new(),
        _ => "cannot be checked here: it lets nobody in",
    };
    format!("  # {words}")
}

fn plain<'a>(url: &'a Url, headers: &'a HeaderMap, now: u64) -> Asked<'a> {
    Asked {
        uri: &url.uri,
        method: "GET",
        headers,
        alpn: None,
        tls_public_key: None,
        client: IpAddr::from([127, 0, 0, 1]),
        asn: None,
        country: None,
        now: now as f64,
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| "its name is none that a header can have")?;
    let value = value.trim().parse().map_err(|_| "its value is none that a header can have")?;
    Ok((name, value))
}

fn country(text: &str) -> Result<[u8; 2], String> {
    let code = text.to_ascii_uppercase().into_bytes().try_into().ok();
    code.filter(|code: &[u8; 2]| code.iter().all(u8::is_ascii_uppercase))
        .ok_or_else(|| "it is no code of two letters".to_owned())
}

/// What depends on who asks, and not on what for.
const OF_THE_REQUEST: [Denied; 6] = [
    Denied::Network,
    Denied::Country,
    Denied::TlsKey,
    Denied::Protocol,
    Denied::Method,
    Denied::Header,
];

#[cfg(test)]
mod tests {
    use super::super::tests::{key_file, typed};
    use super::*;

    #[test]
    fn what_is_minted_lets_in_where_it_is_for_and_is_explained() {
        let (_folder, file) = key_file();
        let url = "https://v.test:8443/film/a.m3u8?x=1";
        let minted = |more: &[&str]| {
            typed(&[&["mint", "--cat", "--keys", &file, "--issuer", "a"], more, &[url]].concat())
        };
        let verify = |url: &str, more: &[&str]| {
            typed(&[&["verify", "--keys", &file, url][..], more].concat())
        };
        let signed = minted(&[]).unwrap();
        let signed = signed.trim();
        assert!(signed.starts_with(&format!("{url}&cat=2D3S")), "{signed}");
        assert_eq!(verify(signed, &[]).unwrap(), "it lets in: signed by \"a\"\n");
        let token = signed.rsplit_once('=').unwrap().1;
        assert!(verify(url, &["--token", token]).is_ok(), "where it does not stand in the URL");
        assert!(verify(signed, &["--token", token]).is_err());
        for (url, more, code) in [
            (signed.replace("film", "other"), &[][..], "catu"),
            (signed.replace("8443", "443"), &[], "catu"),
            (signed.to_owned(), &["--at", "99999999999"], "exp"),
            (format!("{signed}AAAA"), &[], "malformed"),
        ] {
            let refused = verify(&url, more).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("it does not let in: {code}: ")), "{refused}");
        }
        let explained = typed(&["explain", signed]).unwrap();
        for words in ["  alg        \"EdDSA\"", "# lets in until 20", "# the URIs it is for"] {
            assert!(explained.contains(words), "{explained}");
        }

        let claims = r#"{"catm":["HEAD"],"catnip":["192.0.2.0/24",64500],"catalpn":["h2"],
            "cath":{"x-a":{"exact-match":"b"}},"catgeoiso3166":["SE"],
            "catif":{"catm":[405,{"Allow":"HEAD"}]}}"#;
        let signed = minted(&["--claims", claims, "--once", "--renew", "30m"]).unwrap();
        let here =
            ["--client", "192.0.2.7", "--country", "se", "--alpn", "h2", "--header", "X-A: b"];
        let met = [&here[..], &["--method", "HEAD", "--json"]].concat();
        let told: Value = serde_json::from_str(&verify(signed.trim(), &met).unwrap()).unwrap();
        assert_eq!((&told["lets_in"], &told["claims"]["catreplay"]), (&true.into(), &1.into()));
        let refused = verify(signed.trim(), &here).unwrap_err().to_string();
        assert!(refused.ends_with("; it says that 405 is answered"), "{refused}");
        for (claims, says) in [
            (r#"{"geohash":"u"}"#, "would not let in"),
            (r#"{"catu":{"path":{"exact-match":"/"}}}"#, "would not let in"),
            (r#"{"catz":1}"#, "is the name of no claim"),
            ("[]", "--claims is no object"),
        ] {
            let refused = minted(&["--claims", claims]).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
