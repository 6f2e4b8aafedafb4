//! What is done for players beside answering them: what they are told, what is brought ahead, how
//! fast they are sent it.

/// To whom `CMSD-Dynamic` is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cmsd {
    /// Nobody.
    Off,
    /// Whoever tells of himself (CMCD).
    #[default]
    Players,
    /// All.
    All,
}

impl Cmsd {
    /// Every choice.
    pub const ALL: [Cmsd; 3] = [Cmsd::Off, Cmsd::Players, Cmsd::All];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Cmsd::Off => "off",
            Cmsd::Players => "players",
            Cmsd::All => "all",
        }
    }
}

/// How fast the bytes of a connection go at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the way to the viewer bears.
    #[default]
    Off,
    /// So many bytes in a second.
    Bytes(u64),
    /// As the player asks (CMCD `rtp`); who does not, as fast as it goes.
    Cmcd,
}

/// What is brought before anybody asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foresight {
    /// Nothing.
    #[default]
    Off,
    /// What players say that they will ask for next (CMCD `nor`).
    Cmcd,
}

impl Foresight {
    /// Every choice.
    pub const ALL: [Foresight; 2] = [Foresight::Off, Foresight::Cmcd];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Foresight::Off => "off",
            Foresight::Cmcd => "cmcd",
        }
    }
}

/// What is put into playlists and MPDs as they are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steered {
    /// Nothing.
    #[default]
    Off,
    /// Where their players ask whom they play from (content steering).
    Tags,
}

impl Steered {
    /// Every choice.
    pub const ALL: [Steered; 2] = [Steered::Off, Steered::Tags];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Steered::Off => "off",
            Steered::Tags => "tags",
        }
    }
}
