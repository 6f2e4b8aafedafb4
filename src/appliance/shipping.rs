//! Ships the access log, where that is wanted, and says beforehand whether memory has room for it.

use super::ApplianceError;
use super::parts::{Budget, Parts};
use crate::access_log::AccessLog;
use crate::config::units::bytes_about;
use crate::config::{Config, ConfigError};
use crate::shipping::Shipper;

impl Parts {
    /// Ships the access log.
    pub(super) fn ship(&self, mut shipper: Shipper) {
        let stop = self.stop_shipping.clone();
        self.filler.spawn(async move { shipper.ship_unless_followed(&stop).await });
    }
}

/// Who ships the access log, where that is wanted.
///
/// # Errors
/// Why its receiver cannot be asked.
pub(super) fn shipper(config: &Config, log: &AccessLog) -> Result<Option<Shipper>, ApplianceError> {
    let shipping = log.spool().zip(config.log.shipping.as_ref());
    let shipper = shipping.map(|(spool, shipping)| Shipper::new(spool.clone(), shipping));
    shipper.transpose().map_err(ApplianceError::Tls)
}

/// Whether a batch of the log can be in memory while it is shipped, and as much is left for heads
/// and connections.
///
/// # Errors
/// What to set, if not.
pub fn look_at_shipping(config: &Config) -> Result<(), ConfigError> {
    let Budget { shipping_bytes, rest_bytes, .. } = Budget::of(config);
    if shipping_bytes <= rest_bytes {
        return Ok(());
    }
    let text = format!(
        "`log.ship.batch` takes {} of memory, and {} would be left for heads and connections; \
         lower `log.ship.batch.bytes`, or raise `memory.total`",
        bytes_about(shipping_bytes),
        bytes_about(rest_bytes),
    );
    Err(ConfigError { file: config.file.clone(), place: None, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ACCESS_LOG_WRITE_BYTES_MAX, SITE_COUNTS_BYTES};

    #[test]
    fn what_is_shipped_has_its_place_in_memory_or_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let with = |ship: &str, sites: u32, total: &str| {
            let folder = folder.path().join("spool");
            let mut text = format!("memory = {{ total = {total:?}, ram = \"64 MiB\" }}\n");
            text += "listeners.http = [\"127.0.0.1:0\"]\nthreads.workers = 256\n";
            if !ship.is_empty() {
                text += &format!("[log.ship]\nurl = \"http://a\"\nfolder = {folder:?}\n{ship}\n");
            }
            for n in 0..sites {
                text += &format!("[[sites]]\nname = \"s{n}\"\nhosts = [\"{n}.test\"]\n");
                text += "origins = [\"http://o\"]\n";
            }
            Config::from_toml(&text, "test.toml").unwrap()
        };
        let batch = "batch = { bytes = \"8 MiB\" }";
        let budget = Budget::of(&with(batch, 1, "1 GiB"));
        let taken = (8 << 20) + ACCESS_LOG_WRITE_BYTES_MAX;
        assert_eq!(budget.shipping_bytes, taken);
        assert_eq!(budget.rest_bytes + taken, Budget::of(&with("", 1, "1 GiB")).rest_bytes);

        assert_eq!(look_at_shipping(&with(batch, 1, "192 MiB")), Ok(()));
        let per_site = SITE_COUNTS_BYTES * (256 + 2);
        let sites = (Budget::of(&with("", 1, "192 MiB")).rest_bytes - (12 << 20)) / per_site;
        let fault = look_at_shipping(&with(batch, sites as u32, "192 MiB")).unwrap_err();
        let text = fault.to_string();
        assert!(text.contains("`log.ship.batch` takes 8.1 MiB of memory, and "), "{text}");
        assert_eq!(look_at_shipping(&with("", sites as u32, "192 MiB")), Ok(()));
    }
}
