//! What the oracle reads otherwise than an RFC says, each as two writings of one meaning.
//!
//! It is asked about both. What it says of the odd one is counted; what it says of the plain one
//! must be what Tidegate makes of the odd one.

use std::time::Duration;

use crate::cases::{Chance, Exchange, Fields, stored_at};

/// One such writing.
#[derive(Debug)]
pub(crate) struct Oddity {
    pub(crate) name: &'static str,
    /// The sentence that says what it means.
    pub(crate) because: &'static str,
    /// Writes it, and what it means.
    pub(crate) write: fn(&mut Chance, &mut Exchange, &mut Exchange),
}

pub(crate) const ODDITIES: [Oddity; 19] = [
    Oddity {
        name: "a directive in upper case",
        because: "RFC 9111 5.2: cache directives are identified by a token, to be compared \
                  case-insensitively",
        write: |chance, odd, plain| {
            let has_number = control(plain).says("max-age");
            let number = if has_number { "no-cache" } else { "max-age=60" };
            let directive = chance.pick(&["no-store", "private", "no-cache", number]);
            control(odd).add(NAME, &directive.to_uppercase());
            control(plain).add(NAME, directive);
        },
    },
    Oddity {
        name: "a request's directive in upper case",
        because: "RFC 9111 5.2: cache directives are identified by a token, to be compared \
                  case-insensitively",
        write: |_, odd, plain| {
            odd.second.add(NAME, "NO-CACHE");
            plain.second.add(NAME, "no-cache");
        },
    },
    Oddity {
        name: "a comma inside quotes",
        because: "RFC 9111 5.2: arguments can use both token and quoted-string syntax; RFC 9110 \
                  5.6.4: a string is parsed as a single value if it is quoted",
        write: |_, odd, plain| {
            control(odd).add(NAME, "x=\"a, no-store, b\"");
            control(plain).add(NAME, "x=1");
        },
    },
    Oddity {
        name: "a number said twice",
        because: "RFC 9111 4.2.1: when there is more than one value present for a given directive, \
                  either the first occurrence should be used or the response considered stale",
        write: |chance, odd, plain| {
            if !control(plain).says("max-age") {
                control(plain).add(NAME, "max-age=60");
                control(odd).add(NAME, "max-age=60");
            }
            control(odd).add(NAME, chance.pick(&["max-age=0", "max-age=7", "max-age=100000"]));
        },
    },
    Oddity {
        name: "a number with a fraction",
        because: "RFC 9111 1.2.2: delta-seconds is 1*DIGIT; 4.2.1: caches are encouraged to \
                  consider responses that have invalid freshness information to be stale",
        write: |_, odd, plain| number(odd, plain, "max-age=60.5"),
    },
    Oddity {
        name: "a number that is empty",
        because: "RFC 9111 1.2.2: delta-seconds is 1*DIGIT; 4.2.1: caches are encouraged to \
                  consider responses that have invalid freshness information to be stale",
        write: |_, odd, plain| number(odd, plain, "max-age="),
    },
    Oddity {
        name: "spaces around the equals sign",
        because: "RFC 9111 5.2: cache-directive = token [ \"=\" ( token / quoted-string ) ]; \
                  4.2.1: invalid freshness information is considered stale",
        write: |_, odd, plain| number(odd, plain, "max-age = 60"),
    },
    Oddity {
        name: "a number above 2^31",
        because: "RFC 9111 1.2.2: if a cache receives a delta-seconds value greater than the \
                  greatest integer it can represent, it MUST consider the value to be 2147483648 \
                  (2^31) or the greatest it can conveniently represent",
        write: |_, odd, plain| {
            number(odd, plain, "s-maxage=99999999999");
            let line = control(plain).get(NAME).unwrap_or_default();
            let line = line.replace("s-maxage=0", "s-maxage=2147483648");
            control(plain).set(NAME, line);
        },
    },
    Oddity {
        name: "private with the name of a field",
        because: "RFC 9111 5.2.2.7: the cache MUST NOT store the listed fields; the remainder of \
                  the response message can be stored",
        write: |_, odd, plain| {
            control(odd).add(NAME, "private=\"x-b\"");
            control(plain).add(NAME, "x=1");
        },
    },
    Oddity {
        name: "no-cache with the name of a field",
        because: "RFC 9111 5.2.2.4: a cache MUST NOT use the listed fields without validation; the \
                  response can be used to satisfy a subsequent request",
        write: |_, odd, plain| {
            control(odd).add(NAME, "no-cache=\"x-b\"");
            control(plain).add(NAME, "x=1");
        },
    },
    Oddity {
        name: "an Age that is no number",
        because: "RFC 9111 5.1: if the field value is invalid (e.g., it contains something other \
                  than a non-negative integer), a cache SHOULD ignore the field",
        write: |chance, odd, plain| {
            odd.stored.fields.set("age", chance.pick(&["-30", "30.5", "30s"]));
            plain.stored.fields.remove("age");
        },
    },
    Oddity {
        name: "an Age above 2^31",
        because: "RFC 9111 1.2.2: it MUST consider the value to be 2147483648 (2^31)",
        write: |_, odd, plain| {
            odd.stored.fields.set("age", "99999999999");
            plain.stored.fields.set("age", "2147483648");
        },
    },
    Oddity {
        name: "an empty Expires",
        because: "RFC 9111 5.3: a cache recipient MUST interpret invalid date formats as \
                  representing a time in the past",
        write: |_, odd, plain| {
            odd.stored.fields.set("expires", "");
            plain.stored.fields.set("expires", "0");
        },
    },
    Oddity {
        name: "an Expires of another time zone",
        because: "RFC 9110 5.6.7: a recipient MUST accept the three HTTP-date formats, all of them \
                  GMT; RFC 9111 5.3: invalid dates are in the past",
        write: |_, odd, plain| {
            let date = httpdate::fmt_http_date(stored_at() + Duration::from_secs(86_400));
            odd.stored.fields.set("expires", date.replace("GMT", "+0100"));
            plain.stored.fields.set("expires", "0");
        },
    },
    Oddity {
        name: "an Expires thousands of years away",
        because: "RFC 9111 4.2.1 makes a lifetime of it, and 1.2.2 bounds what one is counted in",
        write: |_, odd, plain| {
            let date = plain.stored.fields.date("date").unwrap_or(stored_at());
            let bound = httpdate::fmt_http_date(date + Duration::from_secs(1 << 31));
            // A 304 with another Date would count it from there.
            (odd.told.status, plain.told.status) = (200, 200);
            odd.stored.fields.set("expires", "Sat, 06 Nov 9993 08:49:37 GMT");
            plain.stored.fields.set("expires", bound);
        },
    },
    Oddity {
        name: "a Date in another form",
        because: "RFC 9110 5.6.7: HTTP-date = IMF-fixdate / obs-date; 6.6.1: a recipient may \
                  replace a Date that is invalid by the time of receipt",
        write: |_, odd, plain| {
            odd.stored.fields.set("date", "2023-11-14T20:13:20Z");
            plain.stored.fields.remove("date");
        },
    },
    Oddity {
        name: "Pragma in a response",
        because: "RFC 9111 5.4: its meaning in responses was never specified, it is no reliable \
                  replacement for Cache-Control: no-cache there",
        write: |_, odd, plain| {
            odd.stored.fields.remove(NAME);
            plain.stored.fields.remove(NAME);
            odd.stored.fields.set("pragma", "no-cache");
        },
    },
    Oddity {
        name: "a request's Pragma beside Cache-Control",
        because: "RFC 7234 5.4, which RFC 9111 5.4 deprecates: when Cache-Control is also present \
                  and understood in a request, Pragma is ignored",
        write: |_, odd, plain| {
            odd.second.add(NAME, "x-unknown");
            plain.second.add(NAME, "x-unknown");
            odd.second.set("pragma", "no-cache");
            plain.second.remove("pragma");
        },
    },
    Oddity {
        name: "Accept-Encoding in another spelling",
        because: "RFC 9111 4.1: fields match if they can be transformed into each other by \
                  normalizing both in a way known to have identical semantics",
        write: |chance, odd, plain| {
            for exchange in [&mut *odd, &mut *plain] {
                exchange.stored.fields.set("vary", "accept-encoding");
                exchange.first.set("accept-encoding", "br, gzip");
                exchange.second.set("accept-encoding", "br, gzip");
            }
            let other = ["gzip,br", "gzip;q=1.0, br;q=0.5", "br, x-unheard-of, GZIP"];
            odd.second.set("accept-encoding", chance.pick(&other));
        },
    },
];

const NAME: &str = "cache-control";

fn control(exchange: &mut Exchange) -> &mut Fields {
    &mut exchange.stored.fields
}

/// A number that means zero, alone of its name.
fn number(odd: &mut Exchange, plain: &mut Exchange, written: &str) {
    let name = written.split([' ', '=']).next().unwrap_or(written);
    let line = control(plain).get(NAME).unwrap_or_default().to_owned();
    let others = line.split(", ").filter(|member| !member.is_empty() && !member.starts_with(name));
    let others = others.collect::<Vec<_>>().join(", ");
    for (exchange, member) in [(odd, written.to_owned()), (plain, format!("{name}=0"))] {
        control(exchange).remove(NAME);
        for part in [others.as_str(), &member].into_iter().filter(|part| !part.is_empty()) {
            control(exchange).add(NAME, part);
        }
    }
}
