//! The parts of a member that exist from its first stage to its last.

use std::sync::Arc;

use anyhow::Context as _;

use super::{admin::MemberHealth, member_config::MemberConfig};
use crate::{
    disk::{Disk, RealDisk},
    fault::Fault,
    lane::Lanes,
    membership::{Bootstrap, BootstrapConfig, DataDir, FOUNDER_TAKEOVER_TIMEOUT},
    peer::PeerClient,
    rng::{Rng, SystemRng},
};

/// Shared by all stages of one member.
#[derive(Debug)]
pub struct MemberContext {
    pub config: MemberConfig,
    pub lanes: Lanes,
    pub fault: Fault,
    pub bootstrap: Arc<Bootstrap>,
    pub peers: PeerClient,
    pub health: MemberHealth,
}

impl MemberContext {
    /// Opens and locks the data directory.
    pub async fn open(config: MemberConfig) -> anyhow::Result<MemberContext> {
        let (lanes, fault) = (Lanes::Threads, Fault::default());
        let bootstrap = open_bootstrap(&config, lanes).await?;
        let peers = PeerClient::new(config.addresses.clone(), config.pod_ip);
        let health = MemberHealth::new(lanes, fault.clone());
        health.follow_bootstrap(bootstrap.clone());
        Ok(MemberContext { config, lanes, fault, bootstrap, peers, health })
    }
}

async fn open_bootstrap(config: &MemberConfig, lanes: Lanes) -> anyhow::Result<Arc<Bootstrap>> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);
    let bootstrap = BootstrapConfig {
        ordinal: config.ordinal,
        home: config.home.clone(),
        founders: config.founders,
        known: config.known_ordinals(),
        orchestrator: config.orchestrator(),
        takeover_timeout: FOUNDER_TAKEOVER_TIMEOUT,
    };
    let root = config.data_dir.clone();
    let opened = lanes.run("open", move || -> anyhow::Result<Bootstrap> {
        let dir = Arc::new(DataDir::open(disk, &root)?);
        Ok(Bootstrap::open(bootstrap, dir, rng)?)
    });
    let opened = opened.await?.context("opening the data directory panicked")?;
    Ok(Arc::new(opened?))
}
