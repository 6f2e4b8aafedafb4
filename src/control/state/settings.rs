//! Which etcd several control planes share, and as whom it is asked. Known to every build, so that
//! one without etcd can say what it lacks.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a state on etcd goes by.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Its members, asked in turn: `http://` or `https://`, a host and a port.
    pub endpoints: Vec<String>,
    /// What all keys begin with, without a slash at its end.
    pub prefix: String,
    /// A user and his password.
    pub user: Option<(String, String)>,
    /// Whose certificates its members show, in PEM.
    pub ca: Option<String>,
    /// A certificate to show, and its key, in PEM.
    pub shown: Option<(String, String)>,
    /// How long a control plane counts as there that says nothing.
    pub lease: Duration,
    /// How long one question may take.
    pub timeout: Duration,
    /// Where keys lie, and a copy of the last state.
    pub folder: PathBuf,
}

/// Without what is secret.
impl fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("EtcdSettings")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("user", &user)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
