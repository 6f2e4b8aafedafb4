//! Whether what is under a rule is for everybody.

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
