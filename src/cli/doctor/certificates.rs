//! The listeners' certificates: their dates, and whether they are for the sites' hosts. That each
//! goes with its key was checked when the configuration was read.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Subject;
use super::finding::Finding;
use crate::config::units::duration_about;
use crate::config::{Certificate, Validity};

/// One that expires sooner is told.
pub(super) const RENEWED_BEFORE: Duration = Duration::from_secs(21 * 24 * 3_600);
const NAMES_SHOWN_MAX: usize = 4;

/// Each certificate, and each host without one.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let config = &subject.config;
    if !config.listeners.iter().any(|listener| listener.kind.is_tls()) {
        return vec![Finding::ok("no https listener needs one")];
    }
    if config.certificates.is_empty() {
        return vec![Finding::unknown("no certificate is here to look at", "see `config`")];
    }
    let of_each = config.certificates.iter().map(|one| {
        let finding = dates(one, subject.now);
        finding.of(one.path.display().to_string())
    });
    let uncovered = config.uncovered_hosts().into_iter().map(|text| {
        Finding::warn(text, "have one made for it, or viewers of it over https are warned off")
    });
    of_each.chain(ordered(subject)).chain(uncovered).collect()
}

/// Those that an authority has not issued yet, and whether it can look where it will.
fn ordered(subject: &Subject) -> Vec<Finding> {
    let config = &subject.config;
    let is_here = |path: &Path| config.certificates.iter().any(|one| one.path == path);
    let missing = config.certificates.managed().filter(|one| !is_here(&one.path));
    let mut findings: Vec<Finding> = missing
        .map(|one| {
            let to_do = "ordered when the appliance runs; `tidegate status` says how that goes";
            Finding::warn(format!("for {}; not issued yet", one.names.join(", ")), to_do)
                .of(one.path.display().to_string())
        })
        .collect();
    let asked = config.certificates.acme().and_then(|acme| acme.challenge.asks_at());
    if let (Some((kind, port)), true) = (asked, config.certificates.managed().next().is_some())
        && !config.listeners.iter().any(|one| one.kind == kind && one.address.port() == port)
    {
        let text = format!("the authority asks port {port}, where no {} listener is", kind.name());
        findings.push(Finding::note(text, "have that port lead here, or listen there"));
    }
    findings
}

/// The whole chain counts: viewers check it whole.
fn dates(certificate: &Certificate, now: SystemTime) -> Finding {
    let chain = &certificate.key.cert;
    let validity = chain.iter().map(|der| Validity::of(der));
    let Some(validity) = validity.collect::<Option<Vec<_>>>() else {
        return Finding::unknown("its dates cannot be read", "look at `openssl x509 -dates`");
    };
    let begin = validity.iter().map(|one| one.not_before).max().unwrap_or(now);
    let end = validity.iter().map(|one| one.not_after).min().unwrap_or(now);
    let shown = certificate.names.iter().take(NAMES_SHOWN_MAX).cloned().collect::<Vec<_>>();
    let more = certificate.names.len().saturating_sub(NAMES_SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = format!("for {}{more}", shown.join(", "));
    match () {
        () if now < begin => Finding::fail(
            format!("{names}; not valid before {}", httpdate::fmt_http_date(begin)),
            "look at the clock, or use the one before until then",
        ),
        () if now > end => Finding::fail(
            format!("{names}; expired on {}", httpdate::fmt_http_date(end)),
            "renew it: viewers refuse it",
        ),
        () if now + RENEWED_BEFORE > end => {
            Finding::warn(format!("{names}; {}", left(end, now)), "renew it")
        }
        () => Finding::ok(format!("{names}; {}", left(end, now))),
    }
}

/// How long something is valid.
pub(super) fn left(end: SystemTime, now: SystemTime) -> String {
    let left = duration_about(end.duration_since(now).unwrap_or_default());
    format!("expires in {left}, on {}", httpdate::fmt_http_date(end))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::super::finding::State;
    use super::super::root::Root;
    use super::super::tests::{configured, subject};
    use super::super::warnings;
    use super::*;

    #[test]
    fn what_an_authority_has_not_issued_yet_is_told_and_where_it_asks() {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "listeners.https = ['127.0.0.1:0']\nacme.terms = 'agreed'\nacme.state = {:?}\n\
             [[certificates]]\nacme = ['*.test', 'media.test']\n",
            folder.path()
        );
        let dns = "acme = { terms = 'agreed', challenge = 'dns-01', hook = '/bin/true', state = ";
        let dns = settings.replace("acme.terms = 'agreed'\nacme.state = ", dns);
        let dns = dns.replace("\n[[cert", " }\n[[cert");
        let http = settings.replace("'*.test'", "'other.test'");
        for (settings, findings) in [(dns, 1), (http, 2)] {
            let found = look(&subject(&settings, Root::at("/")));
            assert_eq!(found.len(), findings, "{found:#?}");
            assert!(found[0].found.ends_with("test, media.test; not issued yet"), "{found:#?}");
            assert!(found[1..].iter().all(|one| one.found.contains("asks port 80")), "{found:#?}");
        }
    }

    #[test]
    fn dates_of_certificates_and_hosts_without_one_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let mut params = CertificateParams::new(["media.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 2, 29);
        params.not_after = date_time_ymd(2051, 1, 1);
        let pair = KeyPair::generate().unwrap();
        fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        let settings = format!(
            "listeners.https = ['127.0.0.1:0']\n[[certificates]]\ncert = {cert:?}\nkey = {key:?}\n"
        );
        let at = |date: &str| {
            let now = httpdate::parse_http_date(date).unwrap();
            let findings = look(&Subject { now, ..subject(&settings, Root::at("/")) });
            assert_eq!(findings.len(), 2, "{findings:#?}");
            assert!(findings[1].found.starts_with("no certificate is for \"other.test\""));
            let mut config = configured(&settings);
            // As it is read at this moment.
            config.warnings.extend(config.refused_certificates(now));
            let told = warnings(&config, now).remove(0);
            assert_eq!(
                (told.state, told.to_do.unwrap().as_str()),
                (State::Note, "see `certificates`")
            );
            findings[0].state
        };
        for (date, state) in [
            ("Fri, 28 Feb 2020 23:59:59 GMT", State::Fail),
            ("Sat, 29 Feb 2020 00:00:01 GMT", State::Ok),
            ("Sun, 11 Dec 2050 00:00:00 GMT", State::Ok),
            ("Sun, 11 Dec 2050 00:00:01 GMT", State::Warn),
            ("Sun, 01 Jan 2051 00:00:01 GMT", State::Fail),
        ] {
            assert_eq!(at(date), state, "{date}");
        }
    }
}
