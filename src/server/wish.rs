//! What is wanted of all connections at once: that they stay, that they leave, that they are gone.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is wanted of viewers' connections, from the first accept to the last byte. Each asks more
/// of them than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// That they stay.
    #[default]
    Serving,
    /// That they end with their next answer, which says so. Who comes is served all the same.
    Leaving,
    /// That they end. Who comes is for the handler to refuse, by [`super::ConnectionFacts::wish`].
    Refusing,
    /// That they end; nobody is accepted any more.
    Draining,
    /// That they are gone, whatever is running.
    Abandoned,
}

impl Wish {
    /// Asks more of the connections that `wishes` is told to, never less.
    pub fn at_least(self, wishes: &Wishes) {
        wishes.send_if_modified(|wish| {
            let is_more = self > *wish;
            *wish = self.max(*wish);
            is_more
        });
    }
}

/// Tells connections; one for all that drain together.
pub type Wishes = watch::Sender<Wish>;

/// When a server stops: accepting first, and then all of it, or everything at once.
#[derive(Clone, Debug)]
pub struct Stop {
    /// No connection is accepted any more; those that are open stay.
    pub accepting: CancellationToken,
    /// Connections end too, and accepting with them.
    pub all: CancellationToken,
}

impl Default for Stop {
    fn default() -> Stop {
        let all = CancellationToken::new();
        Stop { accepting: all.child_token(), all }
    }
}
