//! What the answers of one origin's addresses mean. Pure.

use std::net::SocketAddr;

use http::StatusCode;

use super::ask::{ASKED, Seen, Trouble};
use crate::cli::doctor::Subject;
use crate::cli::doctor::certificates::{RENEWED_BEFORE, left};
use crate::cli::doctor::finding::Finding;
use crate::object::ByteRange;

/// What came of asking an address.
pub(super) type Answer = (SocketAddr, Result<Seen, Trouble>);

/// A clock that is further away is told: freshness is reckoned from both.
const CLOCKS_APART_MAX_SECONDS: u64 = 10;
/// To who does not show what an origin wants to see.
const REFUSED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
const NAME_AN_OBJECT: &str = "name an object that it has: --path /some/object, or by its URL";

/// What addresses were asked for, and what came of it.
pub(super) struct Asked {
    /// `None`: nothing that they must have.
    pub(super) path: Option<String>,
    pub(super) answers: Vec<Answer>,
}

/// Of one origin: that it answers, its certificate, its clock, ranges, validators.
pub(super) fn all(
    asked: &Result<Vec<Asked>, String>,
    subject: &Subject,
    is_needed: bool,
) -> Vec<Finding> {
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => {
            let to_do = "see `dns`";
            return vec![worse(is_needed, why.clone(), to_do.to_owned())];
        }
    };
    let mut findings: Vec<Finding> = Vec::new();
    for Asked { path, answers } in asked {
        let seen: Vec<(&SocketAddr, &Seen)> = answers
            .iter()
            .filter_map(|(address, answer)| Some((address, answer.as_ref().ok()?)))
            .collect();
        let reached = reached(answers, seen.len(), is_needed);
        let itself = [Some(reached), certificate(&seen, subject), clock(&seen)];
        for finding in itself.into_iter().flatten() {
            // Whatever it is asked for, of the origin itself most is the same.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        if seen.is_empty() {
            continue;
        }
        let Some(path) = path else {
            let found =
                "whether it honours ranges and has validators was not asked: no object was named";
            findings.push(Finding::note(found, NAME_AN_OBJECT));
            continue;
        };
        findings.push(ranges(&seen, path));
        findings.extend(validators(&seen).map(|mut finding| {
            if asked.len() > 1 {
                finding.found = format!("{path}: {}", finding.found);
            }
            finding
        }));
    }
    findings
}

/// Of an origin that cannot be asked: as bad as it is needed.
fn worse(is_needed: bool, found: String, to_do: String) -> Finding {
    match is_needed {
        true => Finding::fail(found, to_do),
        false => Finding::warn(format!("{found}; its sites have another origin"), to_do),
    }
}

fn reached(answers: &[Answer], seen: usize, is_needed: bool) -> Finding {
    let troubles: Vec<(&SocketAddr, &Trouble)> = answers
        .iter()
        .filter_map(|(address, answer)| Some((address, answer.as_ref().err()?)))
        .collect();
    let Some((_, first)) = troubles.first() else {
        let all: Vec<_> = answers.iter().map(|(address, _)| address.ip().to_string()).collect();
        return Finding::ok(format!("it answers at {}", all.join(", ")));
    };
    let told: Vec<_> =
        troubles.iter().map(|(address, one)| format!("{}: {}", address.ip(), one.found)).collect();
    let told = told.join("; ");
    match seen {
        0 => worse(is_needed, told, first.to_do.to_owned()),
        _ => Finding::warn(
            format!("{told}; {seen} of {} addresses answer", answers.len()),
            format!("{}, or take that address out of DNS", first.to_do),
        ),
    }
}

/// The certificate that expires first.
fn certificate(seen: &[(&SocketAddr, &Seen)], subject: &Subject) -> Option<Finding> {
    let end = seen.iter().filter_map(|(_, seen)| seen.certificate_end).min()?;
    let found = format!("its certificate is trusted and {}", left(end, subject.now));
    Some(match subject.now + RENEWED_BEFORE > end {
        true => Finding::warn(found, "have it renewed there"),
        false => Finding::ok(found),
    })
}

fn clock(seen: &[(&SocketAddr, &Seen)]) -> Option<Finding> {
    let apart = seen.iter().filter_map(|(_, seen)| seen.clock_ahead_seconds);
    let apart = apart.max_by_key(|seconds| seconds.unsigned_abs())?;
    let direction = if apart > 0 { "ahead of" } else { "behind" };
    (apart.unsigned_abs() > CLOCKS_APART_MAX_SECONDS).then(|| {
        Finding::warn(
            format!("its clock is {} s {direction} this machine's", apart.unsigned_abs()),
            "look at both: how long responses are fresh is reckoned from both",
        )
    })
}

/// What an answer says of ranges.
fn ranges(seen: &[(&SocketAddr, &Seen)], path: &str) -> Finding {
    let told: Vec<Finding> = seen.iter().map(|(_, seen)| range(seen, path)).collect();
    let worst = told.into_iter().max_by_key(|finding| finding.state);
    worst.expect("somebody has answered")
}

fn range(seen: &Seen, path: &str) -> Finding {
    let status = seen.status;
    let asked = ByteRange::new(1, 2);
    match (status, &seen.content_range, &seen.location) {
        (StatusCode::PARTIAL_CONTENT, Some(range), _)
            if range.range() == asked && !seen.is_exact =>
        {
            Finding::warn(
                format!("it said {range} of {path}, and gave more than that or broke off"),
                "have that set right: such answers are cut short for viewers too",
            )
        }
        (StatusCode::PARTIAL_CONTENT, Some(range), _) if range.range() == asked => {
            Finding::ok(format!("it honours ranges of {path}"))
        }
        (StatusCode::PARTIAL_CONTENT, Some(range), _) => Finding::warn(
            format!("asked for {ASKED} of {path} it gave {range}"),
            "have that set right: such answers are not believed, viewers get 502",
        ),
        (StatusCode::PARTIAL_CONTENT, None, _) => Finding::warn(
            format!("it gave a part of {path} without a right Content-Range"),
            "have that set right: such answers are not believed, viewers get 502",
        ),
        (StatusCode::OK, _, _) => Finding::warn(
            format!("it ignores ranges: asked for {ASKED} of {path} it gave all of it"),
            "let it honour Range: else a viewer who seeks waits for all that stands before",
        ),
        (StatusCode::RANGE_NOT_SATISFIABLE, _, _) => Finding::note(
            format!("{path} is too small to tell whether ranges are honoured"),
            "name a larger object: --path /some/object",
        ),
        (_, _, Some(location)) if status.is_redirection() => Finding::note(
            format!("{path} redirects to {location}, where nobody was asked"),
            "whether ranges are honoured there could not be judged: name an object of its own",
        ),
        _ if status.is_server_error() || REFUSED.contains(&status) => Finding::warn(
            format!("it answers {} to {path}", status.as_u16()),
            "look at its log, and at `fields` and `host` of the origin: viewers are told the same",
        ),
        _ => Finding::note(
            format!("it answers {} to {path}: ranges could not be judged", status.as_u16()),
            NAME_AN_OBJECT,
        ),
    }
}

/// Of those who gave the object or a part of it.
fn validators(seen: &[(&SocketAddr, &Seen)]) -> Option<Finding> {
    let gave = |seen: &Seen| matches!(seen.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    let given: Vec<_> = seen.iter().filter(|(_, seen)| gave(seen)).collect();
    let (first_at, first) = given.first()?;
    let weak = given.iter().find(|(_, seen)| !seen.validator.is_strong());
    if let Some((address, weak)) = weak {
        return Some(Finding::warn(
            format!("{} from {}, which is not strong", shown(weak), address.ip()),
            "send a strong ETag: without one no two answers can be joined to one object",
        ));
    }
    let differs = |seen: &Seen| {
        !seen.validator.strong_matches(&first.validator)
            || complete_bytes(seen) != complete_bytes(first)
    };
    if let Some((address, other)) = given.iter().find(|(_, seen)| differs(seen)) {
        let of = |address: &SocketAddr, seen: &Seen| {
            let length = complete_bytes(seen).map(|bytes| format!(", {bytes} bytes"));
            format!("{}{} from {}", shown(seen), length.unwrap_or_default(), address.ip())
        };
        return Some(Finding::warn(
            format!("its addresses differ: {}, {}", of(first_at, first), of(address, other)),
            "let all of them say the same ETag of the same bytes: each change of address throws \
             away what is held",
        ));
    }
    let where_from = if given.len() > 1 { " and the same from each address" } else { "" };
    Some(Finding::ok(format!("its validator is strong{where_from}: {}", shown(first))))
}

/// By what its version is told apart.
fn shown(seen: &Seen) -> String {
    let tag = seen.validator.etag().and_then(|tag| tag.as_header().to_str().ok());
    let date = seen.validator.last_modified().map(httpdate::fmt_http_date);
    tag.map(|tag| format!("ETag {tag}"))
        .or(date.map(|date| format!("Last-Modified {date}")))
        .unwrap_or_else(|| "no validator".to_owned())
}

/// Of a part: the length of the whole, where it is told.
fn complete_bytes(seen: &Seen) -> Option<u64> {
    seen.content_range.and_then(|range| range.complete())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::HeaderMap;

    use super::*;
    use crate::cli::doctor::finding::State;
    use crate::cli::doctor::root::Root;
    use crate::cli::doctor::tests::subject;
    use crate::message::conditional::Validator;

    fn plain() -> Seen {
        Seen {
            status: StatusCode::OK,
            location: None,
            content_range: None,
            is_exact: true,
            validator: Validator::of(&HeaderMap::new()),
            clock_ahead_seconds: None,
            certificate_end: None,
        }
    }

    /// What is said of the origin itself, beside that it answers and of what was not asked.
    fn told(seen: Seen) -> Vec<(State, String)> {
        let address = "192.0.2.1:80".parse().unwrap();
        let subject = subject("", Root::at("/"));
        let asked = Asked { path: None, answers: vec![(address, Ok(seen))] };
        let mut findings = all(&Ok(vec![asked]), &subject, true);
        assert_eq!(
            (findings.remove(0).state, findings.pop().unwrap().state),
            (State::Ok, State::Note)
        );
        findings.into_iter().map(|finding| (finding.state, finding.found)).collect()
    }

    #[test]
    fn a_clock_far_from_ours_is_told() {
        for (ahead, expected) in [(0, None), (10, None), (-10, None), (11, Some("11 s ahead of"))] {
            let told = told(Seen { clock_ahead_seconds: Some(ahead), ..plain() });
            assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}");
        }
        let behind = told(Seen { clock_ahead_seconds: Some(-3_600), ..plain() });
        let words = "its clock is 3600 s behind this machine's".to_owned();
        assert_eq!(behind, [(State::Warn, words)]);
    }

    #[test]
    fn a_certificate_that_expires_soon_is_told() {
        let day = Duration::from_secs(86_400);
        for (days, state) in [(20, State::Warn), (22, State::Ok)] {
            let end = SystemTime::now() + days * day;
            let told = told(Seen { certificate_end: Some(end), ..plain() });
            assert_eq!((told.len(), told[0].0), (1, state), "{days} days");
        }
    }

    #[test]
    fn an_origin_without_an_address_is_as_bad_as_it_is_needed() {
        let subject = subject("", Root::at("/"));
        let of = |is_needed| all(&Err("none".to_owned()), &subject, is_needed).remove(0).state;
        assert_eq!((of(true), of(false)), (State::Fail, State::Warn));
    }
}
