//! What the fuzz targets of `fuzz/` run of steering: any bytes go in, no panic and no broken
//! promise comes out. Not part of the appliance.

use super::content_steering::reported::Reported;
use super::content_steering::session::{Brought, Endpoint, Session};
use super::content_steering::signature::Secret;
use super::content_steering::{Dialect, mpd, playlist};
use super::registry::appliance::{Appliance, Pathway};
use crate::limits::{PATHWAYS_KNOWN_MAX, PATHWAYS_REPORTED_MAX, STEERING_SECRET_BYTES_MIN};

/// A query: what is read of it is bounded, and a session comes back as it was sent. Whatever
/// session it is or begins where sessions are signed, it comes back there too.
pub fn steering_query(bytes: &[u8]) {
    let query = String::from_utf8_lossy(bytes);
    for dialect in [Dialect::Hls, Dialect::Dash] {
        let reported = Reported::of_query(&query, dialect, |_| true);
        assert!(reported.pathways.len() <= PATHWAYS_REPORTED_MAX);
        assert_eq!(reported.pathways.len(), reported.bits_per_second.len());
    }
    let secret = Secret::of(&[b'a'; STEERING_SECRET_BYTES_MIN]).expect("it is long enough");
    let signing = endpoint().signed_with(secret);
    let (Brought::Session(session) | Brought::Nothing(session) | Brought::Forged(session)) =
        signing.session(&query);
    let uri = signing.uri(&session);
    let (_, again) = uri.split_once('?').expect("a session is a query");
    assert_eq!(signing.session(again), Brought::Session(session));
    let Some(session) = Session::of_query(&query) else { return };
    assert!(session.known.len() <= PATHWAYS_KNOWN_MAX);
    let uri = endpoint().uri(&session);
    let (_, query) = uri.split_once('?').expect("a session is a query");
    assert_eq!(Session::of_query(query), Some(session));
}

/// A playlist: what is steered is what it was and more, and is not steered twice.
pub fn steered_playlist(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let steered = |text: &str| playlist::steered(text, &endpoint(), &session(), &pathway());
    let Some(once) = steered(&text) else { return };
    assert!(is_within(&text, &once));
    assert_eq!(steered(&once), None);
}

/// The same of an MPD.
pub fn steered_mpd(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let steered = |text: &str| mpd::steered(text, &endpoint(), &session(), &pathway());
    let Some(once) = steered(&text) else { return };
    assert!(is_within(&text, &once));
    assert_eq!(steered(&once), None);
}

/// What an appliance registers with: one that is read is written and read again as it is.
pub fn appliance(bytes: &[u8]) {
    let Ok(appliance) = serde_json::from_slice::<Appliance>(bytes) else { return };
    let again = serde_json::to_vec(&appliance).expect("text and numbers can be written as JSON");
    assert_eq!(serde_json::from_slice::<Appliance>(&again).ok(), Some(appliance));
}

fn endpoint() -> Endpoint {
    Endpoint::new("https://steer.example/film").expect("it needs no escape")
}

fn session() -> Session {
    Session::new("s1").expect("it needs no escape")
}

fn pathway() -> Pathway {
    Pathway::new("edge-1").expect("it is a name")
}

/// Whether every character of `part` stands in `whole`, in its order.
fn is_within(part: &str, whole: &str) -> bool {
    let mut rest = whole.chars();
    part.chars().all(|wanted| rest.any(|found| found == wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::fuzz::tests::seeds;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 4] = [
        ("steering_query", steering_query),
        ("steered_playlist", steered_playlist),
        ("steered_mpd", steered_mpd),
        ("appliance", appliance),
    ];

    #[test]
    fn the_seeds_of_every_target_keep_its_promises() {
        for (name, target) in TARGETS {
            seeds(name, 5).iter().for_each(|seed| target(seed));
        }
    }

    proptest! {
        #[test]
        fn no_query_breaks_a_promise(
            query in "(sid=|known=|base=|told=|_(HLS|DASH)_(pathway|throughput)=|%22|\"|,|&|\
                [a-z0-9.]{1,4}|%[0-9a-f]{1,2}|[0-9]{1,22}|\u{e9}){0,30}",
        ) {
            steering_query(query.as_bytes());
        }

        #[test]
        fn no_playlist_breaks_a_promise(
            text in "#EXTM3U\r?\n(#EXT-X-(I-FRAME-)?STREAM-INF:|BANDWIDTH=1|PATHWAY-ID=\"[a-z.]?\"|\
                ,|=|\"|CODECS=\"a,b\"|[ab]\\.m3u8|#EXT-X-MEDIA:|\r?\n|\u{e9}){0,40}",
        ) {
            steered_playlist(text.as_bytes());
        }

        #[test]
        fn no_mpd_breaks_a_promise(
            text in "(<\\?xml version=\"1.0\"\\?>)?<MPD( a=\"b\")?>(<BaseURL\
                ( serviceLocation=\"[a-z]?\")?>|[a-z./]{1,5}|</BaseURL>|<Period>|<Period/>|\
                <ProgramInformation/>|<!--|-->|&amp;|&|<!\\[CDATA\\[|\\]\\]>|'|\"|\u{e9}){0,20}\
                (</Period>)?</MPD>",
        ) {
            steered_mpd(text.as_bytes());
        }

        #[test]
        fn no_bytes_break_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            TARGETS.iter().for_each(|(_, target)| target(&bytes));
        }
    }
}
