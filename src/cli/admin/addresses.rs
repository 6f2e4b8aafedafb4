//! Where the admin listeners of a configuration are, and what may be shown to them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::cli::Failure;
use crate::config::{self, Config, ListenerKind};
use crate::purge::{Token, Tokens};

/// Where the admin listeners of a configuration are, and what may be shown to them.
pub(in crate::cli) struct Admins {
    /// At least one.
    pub(in crate::cli) addresses: Vec<String>,
    /// Whose bearer may purge.
    pub(in crate::cli) token: Option<Token>,
}

impl Admins {
    /// Of the configuration in `file`.
    pub(in crate::cli) fn of_config(file: &Path) -> Result<Admins, Failure> {
        let admins = match config::load(file) {
            Ok(config) => Admins::of(&config),
            Err(errors) => match Admins::as_written(file) {
                admins if admins.addresses.is_empty() => {
                    return Err(Failure::Misused(errors.to_string()));
                }
                admins => admins,
            },
        };
        if admins.addresses.is_empty() {
            return Err(Failure::Misused(format!(
                "{}: no admin listener with a port of its own; write \
                 `admin = [\"127.0.0.1:9180\"]` under `[listeners]`",
                file.display()
            )));
        }
        Ok(admins)
    }

    /// Of a configuration that was read; there may be none.
    pub(in crate::cli) fn of(config: &Config) -> Admins {
        let admins = config.listeners.iter().filter(|l| l.kind == ListenerKind::Admin);
        let addresses = admins.filter(|admin| admin.address.port() != 0);
        let addresses = addresses.map(|admin| here(admin.address)).collect();
        let token = config.admin.token.as_ref().map(|tokens| tokens.to_show().clone());
        Admins { addresses, token }
    }

    /// Those of a configuration that is not right any more, or not to this user: a volume that is
    /// ill is a reason to ask.
    fn as_written(file: &Path) -> Admins {
        let text = fs::read_to_string(file).unwrap_or_default();
        let table = text.parse::<toml::Table>().unwrap_or_default();
        let setting = |section: &str, key: &str| table.get(section)?.get(key);
        let admins = match setting("listeners", "admin") {
            Some(toml::Value::Array(admins)) => admins.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        let addresses = admins.iter().filter_map(|admin| admin.as_str()?.parse().ok());
        let addresses = addresses.filter(|address: &SocketAddr| address.port() != 0).map(here);
        let token = || {
            let folder = file.parent().unwrap_or(Path::new(""));
            let path = folder.join(setting("admin", "token_file")?.as_str()?);
            Some(Tokens::of(&fs::read_to_string(path).ok()?).ok()?.to_show().clone())
        };
        Admins { addresses: addresses.collect(), token: token() }
    }
}

/// Where a listener of this machine is reached from it.
fn here(listener: SocketAddr) -> String {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_at_every_address_is_reached_from_here() {
        assert_eq!(here("0.0.0.0:9180".parse().unwrap()), "127.0.0.1:9180");
        assert_eq!(here("[::]:9180".parse().unwrap()), "[::1]:9180");
    }

    #[test]
    fn the_admin_listener_is_found_in_a_configuration_that_is_not_right_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let volume = "[[ssd.volumes]]\npath = \"/nowhere/volume\"\n";
        for (admin, expected) in [
            ("\"0.0.0.0:9180\"", vec!["127.0.0.1:9180"]),
            ("[\"127.0.0.1:0\", \"[::]:29180\"]", vec!["[::1]:29180"]),
        ] {
            fs::write(&file, format!("[listeners]\nadmin = {admin}\n{volume}")).unwrap();
            assert_eq!(Admins::of_config(&file).ok().unwrap().addresses, expected);
        }
        fs::write(&file, volume).unwrap();
        assert!(matches!(Admins::of_config(&file), Err(Failure::Misused(_))));
    }
}
