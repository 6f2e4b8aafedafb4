//! Our own prefix file: a line for whom, with the boxes that are for them.
//!
//! ```text
//! # Frankfurt's two boxes serve the access networks there.
//! 192.0.2.0/24      fra-1 fra-2
//! 2001:db8::/32     fra-1 fra-2
//! 198.51.100.0/24   muc-1 as-path=2 med=50   # by way of Munich
//! # Who is in no prefix: by AS, then by country, where a database says which.
//! AS64500           muc-1
//! DE                fra-1 fra-2
//! ```
//!
//! `as-path` and `med` rank boxes for the same prefix, as BGP would; they are 0 where they are not
//! written. A prefix may have several lines.

use std::io::{BufRead, Read as _};

use crate::control::registry::appliance::is_name;
use crate::control::routes::error::{LineFault, RoutesError};
use crate::control::routes::gathering::{Gathering, shortened};
use crate::control::routes::table::Way;
use crate::control::routes::viewers::Viewers;
use crate::limits::ROUTE_LINE_BYTES_MAX;

/// Reads all of a file.
///
/// # Errors
/// It cannot be read, or the first line that is wrong.
pub(super) fn read(input: &mut dyn BufRead, into: &mut Gathering<'_>) -> Result<(), RoutesError> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let most = ROUTE_LINE_BYTES_MAX as u64 + 1;
        input.take(most).read_until(b'\n', &mut bytes).map_err(RoutesError::Read)?;
        if bytes.is_empty() {
            break;
        }
        let at = |fault| RoutesError::Line { line, fault };
        if bytes.len() > ROUTE_LINE_BYTES_MAX {
            return Err(at(LineFault::TooLong));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| at(LineFault::NoText))?;
        let Some(told) = Told::of(text).map_err(at)? else { continue };
        let boxes = into.boxes(told.boxes.iter().copied())?;
        into.announce(told.viewers, boxes, told.way)?;
    }
    Ok(())
}

/// What a line says.
struct Told<'a> {
    viewers: Viewers,
    boxes: Vec<&'a str>,
    way: Way,
}

impl Told<'_> {
    /// Nothing, where a line is for people.
    fn of(line: &str) -> Result<Option<Told<'_>>, LineFault> {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let mut words = line.split_ascii_whitespace();
        let Some(whom) = words.next() else { return Ok(None) };
        let viewers = whom.parse().map_err(|()| LineFault::NoViewers(shortened(whom)))?;
        let mut told = Told { viewers, boxes: Vec::new(), way: Way::default() };
        for word in words {
            let no_value = |_| LineFault::NoValue(shortened(word));
            match word.split_once('=') {
                Some(("as-path", value)) => told.way.as_path = value.parse().map_err(no_value)?,
                Some(("med", value)) => told.way.med = value.parse().map_err(no_value)?,
                None if is_name(word) => told.boxes.push(word),
                _ => return Err(LineFault::NoBox(shortened(word))),
            }
        }
        if told.boxes.is_empty() { Err(LineFault::NoBoxes) } else { Ok(Some(told)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::builder::Builder;
    use crate::control::routes::fuzz::table_of;
    use crate::control::routes::gathering::Guards;

    fn refused(text: &[u8]) -> String {
        let mut builder = Builder::default();
        let gathering = Gathering::new(&mut builder, Guards::default(), "test");
        gathering.take(|into| read(&mut &*text, into)).unwrap_err().to_string()
    }

    #[test]
    fn each_line_says_whom_which_boxes_are_for() {
        let table = table_of(
            "# Frankfurt\n\n192.0.2.0/24 fra-2 fra-1 # both\r\n2001:db8::/32\tfra-1\n\
             198.51.100.0/24 muc-1 as-path=2 med=50\n192.0.2.0/24 muc-1 med=9\nAS64500 muc-1\n\
             DE fra-1",
        );
        let told: Vec<String> = table
            .routes()
            .map(|(viewers, routes)| {
                let route = |route: &super::super::Route| {
                    format!("{} {} {}", route.boxes.join("+"), route.way.as_path, route.way.med)
                };
                let routes: Vec<String> = routes.iter().map(route).collect();
                format!("{viewers}: {}", routes.join(", "))
            })
            .collect();
        assert_eq!(
            told,
            [
                "192.0.2.0/24: fra-1+fra-2 0 0, muc-1 0 9",
                "198.51.100.0/24: muc-1 2 50",
                "2001:db8::/32: fra-1 0 0",
                "AS64500: muc-1 0 0",
                "DE: fra-1 0 0",
            ]
        );
    }

    #[test]
    fn a_line_that_is_wrong_is_named_with_what_to_write() {
        let long = format!("192.0.2.0/24 {}", "a ".repeat(ROUTE_LINE_BYTES_MAX));
        for (text, line) in [
            (&b"192.0.2.0/24 a\n192.0.2.0/33 a\n"[..], "line 2: `192.0.2.0/33` is no prefix"),
            (b"edge-1 192.0.2.0/24\n", "line 1: `edge-1` is no prefix, AS or country; a line is"),
            (b"192.0.2.0/24\n", "line 1: names no box; a line is like"),
            (b"192.0.2.0/24 med=1 # a\n", "line 1: names no box"),
            (b"192.0.2.0/24 a,b", "line 1: `a,b` is no name of a box"),
            (b"192.0.2.0/24 a weight=3", "line 1: `weight=3` is no name of a box"),
            (b"192.0.2.0/24 a med=-1", "line 1: `med=-1` has no number"),
            (b"192.0.2.0/24 a as-path=65536", "line 1: `as-path=65536` has no number"),
            (b"\n\xff\n", "line 2: is not UTF-8"),
            (long.as_bytes(), "line 1: has more than"),
            (b"# nothing\n", "tells no route"),
            (b"192.0.2.0/24 a\n0.0.0.0/0 a\n", "0.0.0.0/0 is the default route"),
        ] {
            let error = refused(text);
            assert!(error.starts_with(line), "{error}");
            assert!(!error.contains('\n'));
        }
    }
}
