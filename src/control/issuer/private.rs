//! Whether a private key in a file is its owner's alone. One that others may read is used all the
//! same, as nobody should be without boxes for it, and told of.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What to do about a file with a private key in it that others than its owner may use, in one
/// line. Blocks.
pub fn open_to_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    let path = path.display();
    (mode & 0o077 != 0).then(|| {
        format!(
            "{path} has a private key in it, and others may use it (mode {mode:o}): chmod 600 \
             {path}"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_others_may_use_is_told_with_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        assert_eq!(open_to_others(&path), None);
        fs::write(&path, "").unwrap();
        for (mode, is_told) in [(0o640, true), (0o602, true), (0o400, false), (0o600, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = open_to_others(&path);
            let wanted = format!("chmod 600 {}", path.display());
            assert_eq!(said.is_some_and(|said| said.ends_with(&wanted)), is_told, "{mode:o}");
        }
    }
}
