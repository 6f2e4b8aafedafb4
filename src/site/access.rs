//! Whether what is under a rule is for everybody, and served by every box.

/// Who is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Who shows a token that is for what he asks.
    Token,
}

impl Access {
    /// Every choice.
    pub const ALL: [Access; 2] = [Access::Open, Access::Token];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Open => "open",
            Access::Token => "token",
        }
    }
}

/// What becomes of a viewer whom routes have for other boxes, where one of those is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffRoute {
    /// He is served.
    #[default]
    Serve,
    /// He is not.
    Deny,
    /// He is sent there, once.
    Redirect,
}

impl OffRoute {
    /// Every choice.
    pub const ALL: [OffRoute; 3] = [OffRoute::Serve, OffRoute::Deny, OffRoute::Redirect];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            OffRoute::Serve => "serve",
            OffRoute::Deny => "deny",
            OffRoute::Redirect => "redirect",
        }
    }
}
