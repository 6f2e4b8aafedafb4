//! Puts steering into a multivariant playlist of HLS: `EXT-X-CONTENT-STEERING`, and a pathway for
//! each variant (RFC 8216bis sections 4.4.6.2 and 4.4.6.6).
//!
//! Adds to lines and changes nothing else of them. What cannot be read with certainty is left as it
//! is: a playlist that players read differently than we do would break more than it helps.

use super::session::{Endpoint, Session, known};
use crate::control::registry::appliance::Pathway;
use crate::limits::{
    MANIFEST_REWRITTEN_BYTES_MAX, MANIFEST_STEERING_BYTES_MAX, PATHWAY_BYTES_MAX,
    PATHWAYS_KNOWN_MAX,
};

/// The playlist with steering: who follows it begins on `pathway`, where its variants without a
/// pathway lie, and asks at `endpoint` as `session`. `None`: it is to be left as it is, being no
/// multivariant playlist, too long, unreadable, or steered by its publisher, or as a variant
/// without a pathway, or a rendition beside it, lies somewhere else, by a URI that is not relative.
pub fn steered(
    text: &str,
    endpoint: &Endpoint,
    session: &Session,
    pathway: &Pathway,
) -> Option<String> {
    if text.len() > MANIFEST_REWRITTEN_BYTES_MAX {
        return None;
    }
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| content(line) == "#EXTM3U")?;
    let mut named = Vec::new();
    // Of no more than that, so that nobody needs more than twice the memory at once.
    let length_max = text.len() + MANIFEST_STEERING_BYTES_MAX;
    let (mut rest, mut variants) = (String::with_capacity(length_max), 0);
    let lies_here = text.split('\n').any(|line| is_unnamed(content(line)));
    let (mut is_named_here, mut has_renditions_elsewhere) = (false, false);
    for line in lines {
        if rest.len() + line.len() + NAMED_BYTES_MAX > length_max {
            return None;
        }
        match Tag::of(content(line)) {
            // Of the URI that follows its variant.
            Tag::Other if is_named_here && is_elsewhere(content(line)) => return None,
            Tag::Other => {
                is_named_here &= line.starts_with('#') || content(line).trim().is_empty();
                rest.push_str(line);
            }
            Tag::NotSteerable => return None,
            Tag::Rendition { attributes } => {
                has_renditions_elsewhere |= attribute(attributes, "URI")?.is_some_and(is_elsewhere);
                rest.push_str(line);
            }
            Tag::Variant { attributes, counts } => {
                variants += usize::from(counts);
                rest.push_str(content(line));
                let name = attribute(attributes, "PATHWAY-ID")?;
                if counts {
                    is_named_here = name.is_none();
                }
                let name = match name {
                    None if attribute(attributes, "URI")?.is_some_and(is_elsewhere) => return None,
                    // Key frames of variants that all have names.
                    None if !lies_here => None,
                    None => {
                        rest.extend([",PATHWAY-ID=\"", pathway.as_str(), "\""]);
                        Some(pathway.clone())
                    }
                    Some(name) => Some(Pathway::new(name)?),
                };
                named.extend(name.filter(|_| counts));
                rest.push_str(&line[content(line).len()..]);
            }
        }
    }
    let known = known(named.iter());
    // On another pathway a player would ask there for what lies elsewhere.
    let is_torn = lies_here && has_renditions_elsewhere;
    if variants == 0 || is_torn || known.len() > PATHWAYS_KNOWN_MAX {
        return None;
    }
    let begins = if known.contains(pathway) { pathway } else { named.first()? };
    let uri = endpoint.uri(&session.of_asset(known, begins));
    // A playlist of one line has no variants, so there is a line's end.
    let end = &first[content(first).len()..];
    let tag = format!("{STEERING}:SERVER-URI=\"{uri}\",PATHWAY-ID=\"{begins}\"{end}");
    Some([first, &tag, &rest].concat())
}

/// Whether it is a variant that has no pathway.
fn is_unnamed(line: &str) -> bool {
    let Tag::Variant { attributes, counts: true } = Tag::of(line) else { return false };
    attribute(attributes, "PATHWAY-ID") == Some(None)
}

/// A line without what ends it.
fn content(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// A line, as far as it matters here.
enum Tag<'a> {
    /// A variant; those of key frames alone make no multivariant playlist.
    Variant {
        attributes: &'a str,
        counts: bool,
    },
    /// Sound or captions, which each pathway has beside its variants.
    Rendition {
        attributes: &'a str,
    },
    /// Of a media playlist, of a publisher who steers himself, or of one whose URIs are made of
    /// variables, of which nobody knows where they lead.
    NotSteerable,
    Other,
}

impl Tag<'_> {
    fn of(line: &str) -> Tag<'_> {
        let Some((name, attributes)) = line.split_once(':') else {
            return Tag::Other;
        };
        match name {
            "#EXT-X-STREAM-INF" => Tag::Variant { attributes, counts: true },
            "#EXT-X-I-FRAME-STREAM-INF" => Tag::Variant { attributes, counts: false },
            "#EXT-X-MEDIA" => Tag::Rendition { attributes },
            STEERING | "#EXT-X-DEFINE" | "#EXTINF" | "#EXT-X-TARGETDURATION" => Tag::NotSteerable,
            _ => Tag::Other,
        }
    }
}

/// Whether a URI says by itself where it leads: of such a one nobody knows that it leads here.
pub(super) fn is_elsewhere(uri: &str) -> bool {
    let uri = uri.trim_start();
    let is_scheme = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(plain)
    };
    uri.starts_with("//") || uri.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// What an attribute list has of that name, if anything; `None` where the list cannot be read.
fn attribute<'a>(attributes: &'a str, wanted: &str) -> Option<Option<&'a str>> {
    let (mut rest, mut found) = (attributes, None);
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.trim_start_matches(' ');
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return None;
        }
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_at(value.find(',').unwrap_or(value.len())),
        };
        if name == wanted && found.replace(value).is_some() {
            return None;
        }
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None => return behind.is_empty().then_some(found),
        }
    }
}

const STEERING: &str = "#EXT-X-CONTENT-STEERING";
/// What a variant gets.
const NAMED_BYTES_MAX: usize = PATHWAY_BYTES_MAX + ",PATHWAY-ID=\"\"".len();

#[cfg(test)]
mod tests {
    use super::*;

    const FILM: &str = "#EXTM3U\n#EXT-X-VERSION:6\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"b\",URI=\"audio.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1280000,CODECS=\"avc1.4d401f,mp4a.40.2\",AUDIO=\"a\"\n\
        720p/index.m3u8\n\
        #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=128000,URI=\"key.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2560000\n\
        1080p/index.m3u8";

    fn written(text: &str) -> Option<String> {
        let endpoint = Endpoint::new("https://steer.example/hls/film").unwrap();
        let session = Session::new("s1").unwrap();
        steered(text, &endpoint, &session, &Pathway::new("edge-1").unwrap())
    }

    #[test]
    fn a_playlist_gets_a_server_and_each_of_its_variants_a_pathway() {
        let expected = "#EXTM3U\n\
            #EXT-X-CONTENT-STEERING:SERVER-URI=\"https://steer.example/hls/film?sid=s1&\
            known=edge-1&base=edge-1\",PATHWAY-ID=\"edge-1\"\n\
            #EXT-X-VERSION:6\n\
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"b\",URI=\"audio.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1280000,CODECS=\"avc1.4d401f,mp4a.40.2\",AUDIO=\"a\",\
            PATHWAY-ID=\"edge-1\"\n\
            720p/index.m3u8\n\
            #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=128000,URI=\"key.m3u8\",PATHWAY-ID=\"edge-1\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=2560000,PATHWAY-ID=\"edge-1\"\n\
            1080p/index.m3u8";
        assert_eq!(written(FILM).as_deref(), Some(expected));
        let by_lines = written(&FILM.replace('\n', "\r\n"));
        assert_eq!(by_lines, Some(expected.replace('\n', "\r\n")), "its lines end as they did");
        assert_eq!(written(expected), None, "what is steered is left alone");
    }

    #[test]
    fn a_pathway_that_its_publisher_names_stays_and_is_known() {
        let named = FILM.replace("=2560000", "=2560000,PATHWAY-ID=\"origin\"");
        let written = written(&named).unwrap();
        assert!(written.contains("?sid=s1&known=edge-1,origin&base=edge-1\""), "{written}");
        assert!(written.contains("BANDWIDTH=2560000,PATHWAY-ID=\"origin\"\n"), "{written}");
        assert_eq!(written.matches("PATHWAY-ID=\"edge-1\"").count(), 3, "{written}");
    }

    #[test]
    fn what_lies_somewhere_else_may_be_there_where_its_publisher_names_its_pathway() {
        let named = FILM.replace("=2560000", "=2560000,PATHWAY-ID=\"origin\"");
        let named = named.replace("1080p/", "https://other.example/");
        assert!(written(&named).is_some_and(|it| it.contains("known=edge-1,origin&base=edge-1")));
        for (uri, expected) in [
            ("a.m3u8", false),
            ("../a:b.m3u8", false),
            ("/a?b=https://c", false),
            ("?a:b", false),
            (":a", false),
            ("http:a", true),
            (" Https://a/b", true),
            ("//a/b", true),
        ] {
            assert_eq!(is_elsewhere(uri), expected, "{uri}");
        }
    }

    #[test]
    fn where_its_publisher_names_every_pathway_it_begins_on_the_first() {
        let all = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID=\"z\"\nz.m3u8\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID=\"b\"\nb.m3u8\n";
        let written = written(all).unwrap();
        assert!(written.contains("sid=s1&known=b,z&base=z\",PATHWAY-ID=\"z\"\n"), "{written}");
        assert!(!written.contains("edge-1"), "nothing of it lies there: {written}");
    }

    #[test]
    fn what_is_no_multivariant_playlist_or_cannot_be_read_is_left_alone() {
        let with = |line: &str| FILM.replace("#EXT-X-VERSION:6", line);
        for text in [
            "",
            "#EXTM3U",
            "#EXTM3U\n",
            "#EXTM3U \n#EXT-X-STREAM-INF:BANDWIDTH=1\na",
            "\u{feff}#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na",
            "#EXTM3U\n#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"a\"\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n",
            &with("#EXTINF:4,"),
            &with("#EXT-X-CONTENT-STEERING:SERVER-URI=\"/a\""),
            &with("#EXT-X-STREAM-INF:"),
            &with("#EXT-X-STREAM-INF:BANDWIDTH"),
            &with("#EXT-X-STREAM-INF:BANDWIDTH=1,"),
            &with("#EXT-X-STREAM-INF:CODECS=\"a"),
            &with("#EXT-X-STREAM-INF:CODECS=\"a\"b"),
            &with("#EXT-X-STREAM-INF:Bandwidth=1"),
            &with("#EXT-X-STREAM-INF:PATHWAY-ID=\"a\",PATHWAY-ID=\"b\""),
            &with("#EXT-X-STREAM-INF:PATHWAY-ID=\"a b\""),
            &FILM.replace("720p/", "https://other.example/"),
            &FILM.replace("720p/", "\n# the best\n //other.example/"),
            &FILM.replace("URI=\"key", "URI=\"HTTPS://other.example/key"),
            &FILM.replace("URI=\"audio", "URI=\"https://audio.example/audio"),
            &with("#EXT-X-MEDIA:TYPE=AUDIO,URI=\"a"),
            &with("#EXT-X-DEFINE:NAME=\"b\",VALUE=\"https://other.example\"")
                .replace("720p/", "{$b}/"),
            &format!("#EXTM3U\n{}a", "#EXT-X-STREAM-INF:A=1\n".repeat(4_000)),
            &format!("{FILM}\n{}", "#".repeat(MANIFEST_REWRITTEN_BYTES_MAX)),
        ] {
            let begins: String = text.chars().take(99).collect();
            assert_eq!(written(text), None, "{begins}");
        }
        let all_named = FILM.replace("1280000", "1280000,PATHWAY-ID=\"a\"");
        let all_named = all_named.replace("2560000", "2560000,PATHWAY-ID=\"a\"");
        let elsewhere = all_named.replace("URI=\"audio", "URI=\"https://audio.example/audio");
        let steered = written(&elsewhere).expect("its publisher knows what goes with those");
        assert!(
            steered.contains(",PATHWAY-ID=\"a\"\n") && !steered.contains("edge-1"),
            "{steered}"
        );
        let variant = |n| format!("\n#EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID=\"p{n}\"\na");
        let pathways = |count| (1..count).map(variant).collect::<String>();
        assert!(written(&format!("{FILM}{}", pathways(PATHWAYS_KNOWN_MAX))).is_some());
        assert_eq!(written(&format!("{FILM}{}", pathways(PATHWAYS_KNOWN_MAX + 1))), None);
    }
}
