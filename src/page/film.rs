//! The demo film, embedded: two manifests and the segments they share.
//!
//! A listing of `tests/media`, kept whole by a test. `CREDITS.md` there says whose film it is.

/// Name under `/film/`, and bytes.
pub(super) const FILM: &[(&str, &[u8])] = &[
    ("init-0.mp4", include_bytes!("../../tests/media/init-0.mp4")),
    ("init-1.mp4", include_bytes!("../../tests/media/init-1.mp4")),
    ("init-2.mp4", include_bytes!("../../tests/media/init-2.mp4")),
    ("init-3.mp4", include_bytes!("../../tests/media/init-3.mp4")),
    ("manifest.mpd", include_bytes!("../../tests/media/manifest.mpd")),
    ("master.m3u8", include_bytes!("../../tests/media/master.m3u8")),
    ("media_0.m3u8", include_bytes!("../../tests/media/media_0.m3u8")),
    ("media_1.m3u8", include_bytes!("../../tests/media/media_1.m3u8")),
    ("media_2.m3u8", include_bytes!("../../tests/media/media_2.m3u8")),
    ("media_3.m3u8", include_bytes!("../../tests/media/media_3.m3u8")),
    ("seg-0-00001.m4s", include_bytes!("../../tests/media/seg-0-00001.m4s")),
    ("seg-0-00002.m4s", include_bytes!("../../tests/media/seg-0-00002.m4s")),
    ("seg-0-00003.m4s", include_bytes!("../../tests/media/seg-0-00003.m4s")),
    ("seg-0-00004.m4s", include_bytes!("../../tests/media/seg-0-00004.m4s")),
    ("seg-0-00005.m4s", include_bytes!("../../tests/media/seg-0-00005.m4s")),
    ("seg-0-00006.m4s", include_bytes!("../../tests/media/seg-0-00006.m4s")),
    ("seg-0-00007.m4s", include_bytes!("../../tests/media/seg-0-00007.m4s")),
    ("seg-0-00008.m4s", include_bytes!("../../tests/media/seg-0-00008.m4s")),
    ("seg-0-00009.m4s", include_bytes!("../../tests/media/seg-0-00009.m4s")),
    ("seg-0-00010.m4s", include_bytes!("../../tests/media/seg-0-00010.m4s")),
    ("seg-0-00011.m4s", include_bytes!("../../tests/media/seg-0-00011.m4s")),
    ("seg-0-00012.m4s", include_bytes!("../../tests/media/seg-0-00012.m4s")),
    ("seg-0-00013.m4s", include_bytes!("../../tests/media/seg-0-00013.m4s")),
    ("seg-0-00014.m4s", include_bytes!("../../tests/media/seg-0-00014.m4s")),
    ("seg-0-00015.m4s", include_bytes!("../../tests/media/seg-0-00015.m4s")),
    ("seg-1-00001.m4s", include_bytes!("../../tests/media/seg-1-00001.m4s")),
    ("seg-1-00002.m4s", include_bytes!("../../tests/media/seg-1-00002.m4s")),
    ("seg-1-00003.m4s", include_bytes!("../../tests/media/seg-1-00003.m4s")),
    ("seg-1-00004.m4s", include_bytes!("../../tests/media/seg-1-00004.m4s")),
    ("seg-1-00005.m4s", include_bytes!("../../tests/media/seg-1-00005.m4s")),
    ("seg-1-00006.m4s", include_bytes!("../../tests/media/seg-1-00006.m4s")),
    ("seg-1-00007.m4s", include_bytes!("../../tests/media/seg-1-00007.m4s")),
    ("seg-1-00008.m4s", include_bytes!("../../tests/media/seg-1-00008.m4s")),
    ("seg-1-00009.m4s", include_bytes!("../../tests/media/seg-1-00009.m4s")),
    ("seg-1-00010.m4s", include_bytes!("../../tests/media/seg-1-00010.m4s")),
    ("seg-1-00011.m4s", include_bytes!("../../tests/media/seg-1-00011.m4s")),
    ("seg-1-00012.m4s", include_bytes!("../../tests/media/seg-1-00012.m4s")),
    ("seg-1-00013.m4s", include_bytes!("../../tests/media/seg-1-00013.m4s")),
    ("seg-1-00014.m4s", include_bytes!("../../tests/media/seg-1-00014.m4s")),
    ("seg-1-00015.m4s", include_bytes!("../../tests/media/seg-1-00015.m4s")),
    ("seg-2-00001.m4s", include_bytes!("../../tests/media/seg-2-00001.m4s")),
    ("seg-2-00002.m4s", include_bytes!("../../tests/media/seg-2-00002.m4s")),
    ("seg-2-00003.m4s", include_bytes!("../../tests/media/seg-2-00003.m4s")),
    ("seg-2-00004.m4s", include_bytes!("../../tests/media/seg-2-00004.m4s")),
    ("seg-2-00005.m4s", include_bytes!("../../tests/media/seg-2-00005.m4s")),
    ("seg-2-00006.m4s", include_bytes!("../../tests/media/seg-2-00006.m4s")),
    ("seg-2-00007.m4s", include_bytes!("../../tests/media/seg-2-00007.m4s")),
    ("seg-2-00008.m4s", include_bytes!("../../tests/media/seg-2-00008.m4s")),
    ("seg-2-00009.m4s", include_bytes!("../../tests/media/seg-2-00009.m4s")),
    ("seg-2-00010.m4s", include_bytes!("../../tests/media/seg-2-00010.m4s")),
    ("seg-2-00011.m4s", include_bytes!("../../tests/media/seg-2-00011.m4s")),
    ("seg-2-00012.m4s", include_bytes!("../../tests/media/seg-2-00012.m4s")),
    ("seg-2-00013.m4s", include_bytes!("../../tests/media/seg-2-00013.m4s")),
    ("seg-2-00014.m4s", include_bytes!("../../tests/media/seg-2-00014.m4s")),
    ("seg-2-00015.m4s", include_bytes!("../../tests/media/seg-2-00015.m4s")),
    ("seg-3-00001.m4s", include_bytes!("../../tests/media/seg-3-00001.m4s")),
    ("seg-3-00002.m4s", include_bytes!("../../tests/media/seg-3-00002.m4s")),
    ("seg-3-00003.m4s", include_bytes!("../../tests/media/seg-3-00003.m4s")),
    ("seg-3-00004.m4s", include_bytes!("../../tests/media/seg-3-00004.m4s")),
    ("seg-3-00005.m4s", include_bytes!("../../tests/media/seg-3-00005.m4s")),
    ("seg-3-00006.m4s", include_bytes!("../../tests/media/seg-3-00006.m4s")),
    ("seg-3-00007.m4s", include_bytes!("../../tests/media/seg-3-00007.m4s")),
    ("seg-3-00008.m4s", include_bytes!("../../tests/media/seg-3-00008.m4s")),
    ("seg-3-00009.m4s", include_bytes!("../../tests/media/seg-3-00009.m4s")),
    ("seg-3-00010.m4s", include_bytes!("../../tests/media/seg-3-00010.m4s")),
    ("seg-3-00011.m4s", include_bytes!("../../tests/media/seg-3-00011.m4s")),
    ("seg-3-00012.m4s", include_bytes!("../../tests/media/seg-3-00012.m4s")),
    ("seg-3-00013.m4s", include_bytes!("../../tests/media/seg-3-00013.m4s")),
    ("seg-3-00014.m4s", include_bytes!("../../tests/media/seg-3-00014.m4s")),
    ("seg-3-00015.m4s", include_bytes!("../../tests/media/seg-3-00015.m4s")),
    ("seg-3-00016.m4s", include_bytes!("../../tests/media/seg-3-00016.m4s")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_listing_names_every_file_of_the_film() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/media");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut held: BTreeSet<_> = std::fs::read_dir(folder).unwrap().map(name).collect();
        assert!(held.remove(std::ffi::OsStr::new("CREDITS.md")));
        assert_eq!(held, FILM.iter().map(|(name, _)| (*name).into()).collect());
    }
}
