//! An origin's answer as it goes over the wire.

use http::HeaderMap;

use super::read::Said;

/// Its length is told unless the fields say how it is framed, or its end is that of the connection.
pub(crate) fn written(method: &str, asked: &HeaderMap, said: &Said) -> Vec<u8> {
    let is = |name: &str| said.fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
    let span = span(asked, said);
    let status = said.status.unwrap_or(if span.is_some() { 206 } else { 200 });
    let mut head = format!("HTTP/1.1 {status} as dictated\r\n");
    for (name, value) in &said.fields {
        head += &format!("{name}: {value}\r\n");
    }
    let complete = said.body.len();
    let body = match span {
        Some((first, last)) => {
            head += &format!("Content-Range: bytes {first}-{last}/{complete}\r\n");
            &said.body[first..=last]
        }
        None => &said.body[..],
    };
    let bodiless = matches!(status, 100..200 | 204 | 304);
    if !bodiless && !said.closes && !is("content-length") && !is("transfer-encoding") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut written = (head + "\r\n").into_bytes();
    if method == "HEAD" || bodiless {
        return written;
    }
    if !is("transfer-encoding") {
        written.extend_from_slice(body);
        return written;
    }
    for chunk in body.chunks(body.len().div_ceil(2).max(1)) {
        written.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        written.extend_from_slice(chunk);
        written.extend_from_slice(b"\r\n");
    }
    if !said.closes {
        written.extend_from_slice(b"0\r\n\r\n");
    }
    written
}

/// The first and last byte that were asked for, where the origin answers as it is asked.
fn span(asked: &HeaderMap, said: &Said) -> Option<(usize, usize)> {
    let range = asked.get("range").filter(|_| said.status.is_none())?;
    let (first, last) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let end = said.body.len();
    Some(match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), last) => (first, last.unwrap_or(usize::MAX).min(end - 1)),
        (Err(_), length) => (end.saturating_sub(length.ok()?), end - 1),
    })
}
