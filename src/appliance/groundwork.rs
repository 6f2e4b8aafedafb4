//! What is built before there are volumes, which only one of two processes can have: whatever of it
//! fails has then taken nothing from anybody.

use std::sync::Arc;

use super::ApplianceError;
use super::parts::{Budget, Live};
use crate::cache::ram::{Ram, RamSettings};
use crate::config::Config;
use crate::fill::client::{Client, Patience};
use crate::memory::Governor;
use crate::overload::Shares;

/// Built from the configuration alone.
pub(super) struct Groundwork {
    pub(super) budget: Budget,
    pub(super) shares: Arc<Shares>,
    pub(super) governor: Arc<Governor>,
    pub(super) ram: Arc<Ram>,
    pub(super) client: Client,
    pub(super) live: Live,
}

impl Groundwork {
    /// # Errors
    /// The ram tier that cannot be mapped, or the origin whose TLS settings cannot be used.
    pub(super) fn of(config: &Config) -> Result<Groundwork, ApplianceError> {
        let (budget, shares) = (Budget::of(config).saying(config), Arc::<Shares>::default());
        let governor = Governor::new(budget.working_bytes, budget.rest_bytes, shares.clone());
        shares.set(config.sites.iter().map(|site| (site.id, site.share)));
        let ram = ram(config, &budget, &shares)?;
        let (client, live) = (client(config, &governor)?, Live::new(config, &budget));
        Ok(Groundwork { budget, shares, governor, ram, client, live })
    }
}

fn ram(config: &Config, budget: &Budget, shares: &Arc<Shares>) -> Result<Arc<Ram>, ApplianceError> {
    let settings = RamSettings {
        mapping_bytes: config.memory.ram_bytes,
        cached_bytes_max: budget.cached_bytes,
        block_size: config.block_size,
    };
    let ram = Ram::new(settings, shares);
    ram.map_err(|source| ApplianceError::System { what: "the ram tier", source })
}

fn client(config: &Config, governor: &Arc<Governor>) -> Result<Client, ApplianceError> {
    let (patience, retries) = (patience(config), config.fill.retries);
    let client = Client::new(&config.sites, governor.clone(), patience, retries);
    client.map_err(ApplianceError::Tls)
}

fn patience(config: &Config) -> Patience {
    Patience {
        connect: config.fill.connect_timeout,
        first_byte: config.fill.first_byte_timeout,
        progress: config.fill.progress_timeout,
    }
}
