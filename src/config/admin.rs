//! What operators may do beyond looking on, and how they prove that they are operators.

use std::fs::File;
use std::io::Read as _;

use super::error::cause;
use super::raw::Section;
use super::setting::Setting;
use crate::limits::TOKEN_BYTES_MAX;
use crate::purge::{TOKEN_BYTES_MIN, Token};

/// The section `admin`.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Who bears it may purge; `None`: nobody may.
    pub token: Option<Token>,
}

/// Reads the section `admin`.
pub(super) fn read(section: &Section<'_>) -> Admin {
    Admin { token: section.setting("token_file").and_then(|setting| token(&setting)) }
}

fn token(setting: &Setting<'_>) -> Option<Token> {
    let path = setting.source.folder.join(setting.text()?);
    if setting.is_brought_later(&path) {
        return None;
    }
    let mut text = String::new();
    let read = File::open(&path)
        .and_then(|file| file.take(TOKEN_BYTES_MAX as u64 + 3).read_to_string(&mut text));
    if let Err(error) = read {
        let (file, why) = (path.display(), cause(&error));
        setting.fail(format!("names {file}, which cannot be read: {why}"));
        return None;
    }
    let token = Token::of(&text);
    if token.is_none() {
        setting.fail(format!(
            "names {}, which holds no token; one line of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} \
             printable letters is wanted, such as `openssl rand -hex 32` writes",
            path.display()
        ));
    }
    token
}
