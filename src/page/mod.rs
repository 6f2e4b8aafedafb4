//! What the demo shows, embedded: the player page, its vendored players, and the film.
//!
//! Pure: paths in, bytes out. The page is served through the edge like any other object, so the
//! demo origin asks here. One object is made rather than stored: `/film/blocks.bin`, three blocks
//! and a bit.

mod film;

use std::sync::LazyLock;

/// The name of the made object, larger than three blocks and no multiple of anything.
pub const BLOCKS_PATH: &str = "/film/blocks.bin";
/// Its length in bytes.
pub const BLOCKS_LENGTH_BYTES: usize = (3 << 20) + 12_345;

const PAGES: &[(&str, &[u8])] = &[
    ("/", include_bytes!("player.html")),
    ("/dash.all.min.js", include_bytes!("vendor/dash.all.min.js")),
    ("/hls.min.js", include_bytes!("vendor/hls.min.js")),
];

static BLOCKS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words =
        (0..BLOCKS_LENGTH_BYTES.div_ceil(8) as u64).flat_map(|word| mix(word).to_le_bytes());
    words.take(BLOCKS_LENGTH_BYTES).collect()
});

/// The content type and bytes of the embedded file at `path` (`/`, `/film/master.m3u8`, ...).
pub fn file(path: &str) -> Option<(&'static str, &'static [u8])> {
    files().find(|(held, ..)| *held == path).map(|(_, content_type, bytes)| (content_type, bytes))
}

/// Every embedded file: path, content type, bytes.
pub fn files() -> impl Iterator<Item = (String, &'static str, &'static [u8])> {
    let pages = PAGES.iter().map(|(path, bytes)| (path.to_string(), *bytes));
    let film = film::FILM.iter().map(|(name, bytes)| (format!("/film/{name}"), *bytes));
    let blocks = std::iter::once((BLOCKS_PATH.to_string(), BLOCKS.as_slice()));
    let typed = |(path, bytes): (String, _)| {
        let content_type = content_type(&path);
        (path, content_type, bytes)
    };
    pages.chain(film).chain(blocks).map(typed)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        "m4s" => "video/iso.segment",
        "mp4" => "video/mp4",
        _ => "application/octet-stream",
    }
}

/// SplitMix64's finaliser: every byte of the made object depends on its offset alone.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_by_its_path_and_typed() {
        assert_eq!(file("/").unwrap().0, "text/html; charset=utf-8");
        assert_eq!(file("/film/master.m3u8").unwrap().0, "application/vnd.apple.mpegurl");
        assert_eq!(file("/film/seg-0-00001.m4s").unwrap().1.len(), 198_989);
        assert_eq!(file("/film/CREDITS.md"), None);
        assert_eq!(file("/film/"), None);
        for (path, content_type, bytes) in files() {
            assert_eq!(file(&path), Some((content_type, bytes)), "{path}");
            assert!(!bytes.is_empty() && bytes.len() < 4 << 20, "{path}");
        }
    }

    #[test]
    fn no_two_pieces_of_the_made_object_are_alike() {
        let (_, bytes) = file(BLOCKS_PATH).unwrap();
        assert_eq!(bytes.len(), BLOCKS_LENGTH_BYTES);
        let mut pieces: Vec<_> = bytes.chunks(64 << 10).collect();
        pieces.sort();
        pieces.dedup();
        assert_eq!(pieces.len(), BLOCKS_LENGTH_BYTES.div_ceil(64 << 10));
    }

    #[test]
    fn the_page_asks_no_other_host_for_anything() {
        let page = std::str::from_utf8(file("/").unwrap().1).unwrap();
        for elsewhere in ["http://", "https://", "src=\"//", "url("] {
            let mut found = page.match_indices(elsewhere).map(|(at, _)| &page[at..]);
            assert!(found.all(|text| text.starts_with("http://www.w3.org/")), "{elsewhere}");
        }
    }
}
