//! When content is made.

/// When what is under a rule is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Before anybody asks for it.
    #[default]
    OnDemand,
    /// While it is watched: an origin may hold a request for what is about to be made, and what is
    /// not there now may be there a moment later.
    Live,
}

impl Content {
    /// Every choice.
    pub const ALL: [Content; 2] = [Content::OnDemand, Content::Live];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Content::OnDemand => "on-demand",
            Content::Live => "live",
        }
    }
}
