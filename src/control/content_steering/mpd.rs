//! Puts steering into an MPD of DASH: `ContentSteering`, and a service location for its base URL
//! (ISO/IEC 23009-1, ETSI TS 103 998).
//!
//! Reads the whole document and adds to it; every byte that was there stays. What cannot be read
//! with certainty is left as it is.

use quick_xml::events::{BytesDecl, BytesStart, Event};
use quick_xml::reader::Reader;

use super::playlist::is_elsewhere;
use super::session::{Endpoint, Session, known};
use crate::control::registry::appliance::Pathway;
use crate::limits::{MANIFEST_REWRITTEN_BYTES_MAX, PATHWAYS_KNOWN_MAX};

/// The MPD with steering: who follows it begins on `pathway`, where what has no service location
/// lies, and asks at `endpoint` as `session`. `None`: it is to be left as it is, being none, too
/// long, unreadable, or steered by its publisher, or as something without a service location lies
/// somewhere else, by a URL that is not relative.
pub fn steered(
    text: &str,
    endpoint: &Endpoint,
    session: &Session,
    pathway: &Pathway,
) -> Option<String> {
    if text.len() > MANIFEST_REWRITTEN_BYTES_MAX {
        return None;
    }
    let read = Read::of(text)?;
    let named = read.bases.iter().filter_map(|base| base.location.as_deref());
    let named: Vec<Pathway> = named.map(Pathway::new).collect::<Option<_>>()?;
    let unnamed: Vec<&Base> = read.bases.iter().filter(|base| base.location.is_none()).collect();
    // Two of one service location could not be told apart.
    if unnamed.len() > 1 || read.bases.len() > PATHWAYS_KNOWN_MAX {
        return None;
    }
    let lies_here = !unnamed.is_empty() || read.bases.is_empty();
    let begins = if lies_here { pathway } else { named.first()? };
    let known = known(named.iter().chain(lies_here.then_some(pathway)));
    let uri = endpoint.uri(&session.of_asset(known, begins));
    let mut added: Vec<(usize, String)> = Vec::new();
    if read.bases.is_empty() {
        let base = format!("<BaseURL serviceLocation=\"{pathway}\">./</BaseURL>");
        added.push((read.head_end, base));
    }
    for base in unnamed {
        added.push((base.name_end, format!(" serviceLocation=\"{pathway}\"")));
    }
    let uri = uri.replace('&', "&amp;");
    let steering = format!(
        "<ContentSteering defaultServiceLocation=\"{begins}\" queryBeforeStart=\"true\">{uri}\
         </ContentSteering>"
    );
    added.push((read.period, steering));
    with(text, added)
}

/// What matters of an MPD; places are in bytes.
#[derive(Default)]
struct Read {
    /// The outermost.
    bases: Vec<Base>,
    /// Where the first base URL may stand.
    head_end: usize,
    /// Where the first period stands.
    period: usize,
}

/// A base URL.
struct Base {
    /// Where its element's name ends.
    name_end: usize,
    location: Option<String>,
}

impl Read {
    fn of(text: &str) -> Option<Read> {
        let (mut reader, mut read) = (Reader::from_str(text), Read::default());
        let (mut depth, mut roots) = (0_usize, 0);
        loop {
            let event = reader.read_event().ok()?;
            let end = usize::try_from(reader.buffer_position()).ok()?;
            match event {
                Event::Start(element) => {
                    roots += usize::from(depth == 0);
                    read.take(text, &element, end.checked_sub(element.len() + 2)?, end, depth)?;
                    depth += 1;
                }
                Event::Empty(element) => {
                    read.take(text, &element, end.checked_sub(element.len() + 3)?, end, depth)?;
                }
                Event::End(element) => {
                    depth = depth.checked_sub(1)?;
                    if depth == 1 && element.name().into_inner() == "ProgramInformation" {
                        read.head_end = end;
                    }
                }
                Event::Text(text) if depth == 0 && !text.trim().is_empty() => return None,
                Event::CData(_) | Event::GeneralRef(_) if depth == 0 => return None,
                Event::Decl(declared) if !is_utf_8(&declared) => return None,
                // Entities of its own could stand for anything.
                Event::DocType(_) => return None,
                Event::Eof => break,
                _ => {}
            }
            if depth > DEPTH_MAX {
                return None;
            }
        }
        (depth == 0 && roots == 1 && read.period > 0).then_some(read)
    }

    /// An element that begins at `start`, whose tag ends at `end`.
    fn take(
        &mut self,
        text: &str,
        element: &BytesStart<'_>,
        start: usize,
        end: usize,
        depth: usize,
    ) -> Option<()> {
        let name = element.name().into_inner();
        let name_end = start + 1 + name.len();
        if text.get(start + 1..name_end) != Some(name) || depth == 0 && name != "MPD" {
            return None;
        }
        match (depth, name) {
            (0, _) => self.head_end = end,
            (_, "ContentSteering") => return None,
            (1, "BaseURL") => {
                let location = location(element)?;
                if location.is_none() && !is_relative(&text[end..]) {
                    return None;
                }
                self.bases.push(Base { name_end, location });
            }
            // Where the outermost counts for nothing, there is nothing to steer.
            (_, "BaseURL") => return is_relative(&text[end..]).then_some(()),
            (1, "Period") if self.period == 0 => self.period = start,
            _ => {}
        }
        Some(())
    }
}

/// Whether the URL that stands there is certainly relative; what is written in another way than as
/// text could be anything.
fn is_relative(text: &str) -> bool {
    let (url, behind) = text.split_at(text.find('<').unwrap_or(text.len()));
    !url.contains('&') && behind.starts_with("</") && !is_elsewhere(url)
}

/// The service location of a base URL, if it has one; `None` where that cannot be read.
fn location(element: &BytesStart<'_>) -> Option<Option<String>> {
    let mut found = None;
    for attribute in element.attributes() {
        let attribute = attribute.ok()?;
        if attribute.key.into_inner() == "serviceLocation" {
            found = Some(attribute.value.into_owned());
        }
    }
    Some(found)
}

fn is_utf_8(declared: &BytesDecl<'_>) -> bool {
    match declared.encoding() {
        None => true,
        Some(encoding) => encoding.is_ok_and(|name| name.eq_ignore_ascii_case("utf-8")),
    }
}

/// `text` with what is added to it at these places.
fn with(text: &str, mut added: Vec<(usize, String)>) -> Option<String> {
    added.sort_by_key(|(at, _)| *at);
    let mut out = String::with_capacity(text.len() + 1_024);
    let mut done = 0;
    for (at, more) in &added {
        out.push_str(text.get(done..*at)?);
        out.push_str(more);
        done = *at;
    }
    out.push_str(text.get(done..)?);
    Some(out)
}

/// Elements within each other; an MPD has no more than ten.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const FILM: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- a film -->\n\
        <MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\">\n\
        <ProgramInformation><Title>T&amp;T</Title></ProgramInformation>\n\
        <BaseURL>dash/</BaseURL>\n\
        <Period id=\"1\"><AdaptationSet><Representation id=\"v\">\
        <BaseURL>v/</BaseURL></Representation></AdaptationSet></Period>\n</MPD>\n";

    fn written(text: &str) -> Option<String> {
        let endpoint = Endpoint::new("https://steer.example/dash/film").unwrap();
        let session = Session::new("s1").unwrap();
        steered(text, &endpoint, &session, &Pathway::new("edge-1").unwrap())
    }

    fn steering(known: &str, begins: &str) -> String {
        format!(
            "<ContentSteering defaultServiceLocation=\"{begins}\" queryBeforeStart=\"true\">\
             https://steer.example/dash/film?sid=s1&amp;known={known}&amp;base={begins}\
             </ContentSteering>"
        )
    }

    #[test]
    fn an_mpd_gets_a_server_and_its_base_url_a_service_location() {
        let expected = FILM.replace("<BaseURL>dash/", "<BaseURL serviceLocation=\"edge-1\">dash/");
        let steering = steering("edge-1", "edge-1");
        let expected = expected.replace("<Period", &format!("{steering}<Period"));
        assert_eq!(written(FILM).as_deref(), Some(&*expected));
        assert_eq!(written(&expected), None, "what is steered is left alone");
    }

    #[test]
    fn an_mpd_without_a_base_url_gets_that_of_its_folder() {
        let base = "<BaseURL serviceLocation=\"edge-1\">./</BaseURL>";
        let without = FILM.replace("<BaseURL>dash/</BaseURL>\n", "");
        let steered = written(&without).unwrap();
        let head = format!("</ProgramInformation>{base}\n");
        assert!(steered.contains(&head), "{steered}");
        let bare = "<MPD a='>'><Period/></MPD>";
        let expected = format!("<MPD a='>'>{base}{}<Period/></MPD>", steering("edge-1", "edge-1"));
        assert_eq!(written(bare), Some(expected));
    }

    #[test]
    fn service_locations_that_its_publisher_names_stay_and_are_known() {
        let named = "<BaseURL serviceLocation=\"b\">https://b.example/</BaseURL>";
        let both = FILM.replace("<Period", &format!("{named}<Period"));
        let steered = written(&both).unwrap();
        assert!(steered.contains(&steering("b,edge-1", "edge-1")), "{steered}");
        let alone = both.replace("<BaseURL>dash/</BaseURL>", "");
        let expected = alone.replace("<Period", &format!("{}<Period", steering("b", "b")));
        assert_eq!(written(&alone), Some(expected), "nothing of it lies on the pathway");
    }

    #[test]
    fn what_is_no_mpd_or_cannot_be_read_is_left_alone() {
        let with = |more: &str| FILM.replace("<Period", &format!("{more}<Period"));
        for text in [
            "",
            "<MPD",
            "<MPD/>",
            "<MPD></MPD>",
            "<MPD><Period></MPD>",
            "<MPD><Period/></MPD><MPD><Period/></MPD>",
            "<mpd:MPD><Period/></mpd:MPD>",
            "<SmoothStreamingMedia><Period/></SmoothStreamingMedia>",
            "a<MPD><Period/></MPD>",
            "<MPD><Period/></MPD>a",
            "<!DOCTYPE MPD [<!ENTITY a \"b\">]><MPD><Period/></MPD>",
            "<MPD><Period><Period/></Period>",
            &FILM.replace("UTF-8", "UTF-16"),
            &FILM.replace("</Period>", ""),
            &with("<BaseURL>a/</BaseURL>"),
            &with("<BaseURL serviceLocation=\"a b\">a/</BaseURL>"),
            &with("<BaseURL serviceLocation=\"a\" serviceLocation=\"b\">a/</BaseURL>"),
            &with("<ContentSteering>/a</ContentSteering>"),
            &FILM.replace("v/", "\n HTTPS://v.example/"),
            &FILM.replace("v/", "//v.example/"),
            &FILM.replace("dash/", "https://other.example/"),
            &FILM.replace("dash/", "\n//other.example/"),
            &FILM.replace("dash/", "<![CDATA[https://other.example/]]>"),
            &FILM.replace("dash/", "&#104;ttps://other.example/"),
            &with(&["<a>".repeat(DEPTH_MAX), "</a>".repeat(DEPTH_MAX)].concat()),
            &format!("{FILM}{}", " ".repeat(MANIFEST_REWRITTEN_BYTES_MAX)),
        ] {
            let begins: String = text.chars().take(99).collect();
            assert_eq!(written(text), None, "{begins}");
        }
    }
}
