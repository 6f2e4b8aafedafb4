//! What operators may do beyond looking on, and how they prove that they are operators.

use std::fs::File;
use std::io::Read as _;

use super::error::cause;
use super::listeners::{Listener, ListenerKind};
use super::raw::Section;
use super::setting::Setting;
use crate::limits::TOKEN_FILE_BYTES_MAX;
use crate::purge::Tokens;
use crate::site::Sites;

/// The section `admin`.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Operators may purge and reload, viewers look; `None`: nobody may purge.
    pub token: Option<Tokens>,
    /// There will be some, though a start may have to bring the file first.
    names_token: bool,
}

/// Reads the section `admin`.
pub(super) fn read(section: &Section<'_>) -> Admin {
    let token = section.setting("token_file").and_then(|setting| tokens(&setting));
    Admin { token, names_token: section.has("token_file") }
}

/// The tokens of the file that a setting names.
pub(super) fn tokens(setting: &Setting<'_>) -> Option<Tokens> {
    let path = setting.source.folder.join(setting.text()?);
    if setting.is_brought_later(&path) {
        return None;
    }
    let mut text = String::new();
    let read = File::open(&path)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    let file = path.display();
    if let Err(error) = read {
        setting.fail(format!("names {file}, which cannot be read: {}", cause(&error)));
        return None;
    }
    if text.len() > TOKEN_FILE_BYTES_MAX {
        setting.fail(format!("names {file}, which has more than {TOKEN_FILE_BYTES_MAX} bytes"));
        return None;
    }
    let tokens = Tokens::of(&text);
    tokens.map_err(|error| setting.fail(format!("names {file}, which {error}"))).ok()
}

impl Admin {
    /// Says what is allowed and hardly meant.
    pub(super) fn warn(&self, document: &Section<'_>, listeners: &[Listener], sites: &Sites) {
        let mut rules = sites.iter().flat_map(|site| &site.rules);
        if !self.names_token && rules.any(|rule| !rule.purge_from.is_empty()) {
            let text = "`purge_from` lets nobody purge, as there is no token to show; write \
                        `admin.token_file`";
            document.source.warn(document.source.place(0), text);
        }
        let is_open = match &self.token {
            Some(tokens) => !tokens.has_viewers(),
            None => !self.names_token,
        };
        let admins = listeners.iter().filter(|listener| listener.kind == ListenerKind::Admin);
        for listener in admins.filter(|admin| is_open && !admin.address.ip().is_loopback()) {
            let text = format!(
                "`listeners.admin` {}: whoever reaches it may look at everything; write 127.0.0.1, \
                 or a line `viewer NAME TOKEN` into the file of `admin.token_file`",
                listener.address
            );
            document.source.warn(listener.place, text);
        }
    }
}
