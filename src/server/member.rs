//! One member from start to stop.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::sync::{oneshot, watch as watch_channel};

use super::{
    adapters::OpenStorage,
    admin::Health,
    scrape::Sources,
    servers::{ClientSide, Ports, Servers, listen},
};
use crate::{
    api,
    clock::SystemClock,
    disk::{Disk, RealDisk},
    fault::Fault,
    lane::Lanes,
    membership::{
        ByHand, DataDir, Formation, FormationConfig, Formed, Identity, Kept, LeaderNews,
        Orchestrator, PATIENCE_AT_START, Parted, Parting, Stage, Standing, Steward, TAKE_OVER,
        ask_standing, dead, led_last,
    },
    node::{Lessor, Node, NodeOptions, NodePort, NodeTasks},
    peer::{Me, PeerAddresses, PeerClient, PeerService, Running},
    raft::{self, Raft, RaftOptions, RaftTasks, Retention, Timing},
    rng::{Rng, SystemRng},
    stop::{Stop, Stopping},
    types::{Command, MemberAttributes, Ordinal, PeerPlace},
    wal::{Log, Space, WalOptions},
    watch::{self, Feed, WatchLanes, Watches},
};

/// A planned change of leader takes milliseconds; more than this is waited for in vain.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Between two tries to tell the others who we are.
const DESCRIBE_PAUSE: Duration = Duration::from_millis(500);

/// What a member is made from.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    pub name: String,
    pub data_dir: PathBuf,
    pub ordinal: Ordinal,
    pub home: String,
    pub addresses: PeerAddresses,
    pub founders: u32,
    pub ports: Ports,
    pub client_urls: Vec<String>,
    pub timing: Timing,
    pub quota_bytes: u64,
    pub cache_bytes: usize,
    pub max_request_bytes: usize,
    /// How often a watch that asks for it is told its progress while nothing happens.
    pub watch_progress_interval: Duration,
    /// Whether a leader that stops hands over first: not where all stop at once.
    pub hands_over: bool,
    pub max_voters: u32,
    /// Who runs this member, if it is a pod.
    pub pod: Option<Pod>,
    pub wal_segment_bytes: u64,
    pub retention: Retention,
}

/// What a member has to do with whoever runs it.
#[derive(Debug, Clone)]
pub struct Pod {
    pub orchestrator: Arc<dyn Orchestrator>,
    /// Who leads, for whoever shows it elsewhere.
    pub leader: watch_channel::Sender<LeaderNews>,
    /// From the signal to stop until it is killed.
    pub grace: Duration,
}

/// Runs a member until `shutdown`; `ready` is told once it serves clients.
///
/// # Errors
/// Whatever keeps the member from starting, or stopped it: by name of port, file and offset.
pub(super) async fn run(
    config: MemberConfig,
    shutdown: impl Future<Output = ()> + Send,
    ready: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    let listeners = listen(&config.ports).await?;
    let fault = Fault::default();
    let lanes = Lanes::Threads;
    let formation = open_formation(&config, lanes).await?;
    let (mut inner, mut outer) = (Servers::new(), Servers::new());
    let client = PeerClient::new(config.addresses.clone());
    let peers = client.metrics().clone();
    let stopping = inner.stopping();
    let addresses = config.addresses.clone();
    let service = PeerService::new(formation.clone(), addresses, lanes, peers.clone(), stopping);
    let health = Health::new(lanes, fault.clone());
    inner.serve_peers(listeners.peer, service.clone());
    inner.serve_admin(listeners.admin, health.clone());

    let mut shutdown = std::pin::pin!(shutdown);
    let formed = tokio::select! {
        formed = formation.run(&client) => formed?,
        () = &mut shutdown => {
            inner.drain().await;
            return Ok(());
        }
    };
    let me = &formed.identity;
    tracing::info!(
        cluster = %me.cluster, member = %me.member, ordinal = %me.ordinal, "starting as a member"
    );
    client.introduce(Me::from(me));
    let asks = client.clone();
    let member = tokio::select! {
        started = Member::start(&config, &formed, client, &formation, &fault, lanes) => started?,
        // A long recovery need not be waited for: it begins anew next time.
        () = &mut shutdown => return Ok(()),
    };
    if member.storage.rebuilt.is_some() {
        health.note_rebuilt_tables();
    }
    let orchestrator = config.pod.as_ref().map(|pod| pod.orchestrator.clone());
    let steward = Arc::new(Steward::new(
        member.raft.clone(),
        member.node.clone(),
        me.cluster,
        config.max_voters,
        orchestrator,
    ));
    let running =
        Running { raft: member.raft.clone(), node: member.node.clone(), steward: steward.clone() };
    if !formed.unconfirmed {
        service.run(running.clone());
    }
    tokio::select! {
        begun = member.begin(&formed, &formation, &asks, lanes) => begun?,
        // A founder that was not confirmed goes on at its next start.
        () = &mut shutdown => return Ok(()),
    }
    if formed.unconfirmed {
        service.run(running);
    }
    let by_hand = ByHand::new(
        member.raft.clone(),
        steward.clone(),
        asks.clone(),
        (formation.clone(), lanes),
        Arc::new(SystemClock),
        Arc::new(SystemRng),
    );
    let options = api::Options {
        max_request_bytes: config.max_request_bytes,
        watch_progress_interval: config.watch_progress_interval,
        ..api::Options::default()
    };
    outer.serve_clients(
        listeners.client,
        ClientSide {
            node: member.node.clone(),
            watches: member.watches.clone(),
            members: by_hand,
            calls: health.calls().clone(),
            options,
        },
    )?;
    let storage = member.storage.metrics();
    let (node, watches) = (member.node.clone(), member.watches.clone());
    health.run(Sources { node, storage, peers, watches });
    let stop_tasks = Stop::default();
    let tasks = [
        tokio::spawn(describe(member.node.clone(), attributes(&config, me), stop_tasks.stopping())),
        tokio::spawn(free_archive(
            member.log.clone(),
            formation.data_dir().clone(),
            lanes,
            stop_tasks.stopping(),
        )),
        tokio::spawn({
            let (steward, stopping) = (steward.clone(), stop_tasks.stopping());
            async move { steward.run(stopping).await }
        }),
        tokio::spawn({
            let (steward, stopping) = (steward.clone(), stop_tasks.stopping());
            async move { steward.follow_pods(stopping).await }
        }),
        tokio::spawn({
            let (steward, stopping) = (steward.clone(), stop_tasks.stopping());
            let leader = config.pod.as_ref().map(|pod| pod.leader.clone());
            async move {
                if let Some(leader) = leader {
                    steward.tell_leader(leader, stopping).await;
                }
            }
        }),
    ];
    // Whoever waited for it may have gone.
    let _ = ready.send(());

    let (known, raft) = (known_ordinals(&config), member.raft.clone());
    let pods = config.pod.as_ref().map(|pod| &*pod.orchestrator);
    let death = dead(&asks, me, &raft, &known, pods);
    let parting = Parting {
        formation: &formation,
        lanes,
        steward: &steward,
        raft: &raft,
        peers: &asks,
        me,
        grace: config.pod.as_ref().map_or(Duration::ZERO, |pod| pod.grace),
    };
    let life = async {
        let mut parted = None;
        tokio::select! {
            () = shutdown => {
                if let Some(pods) = pods {
                    let deadline = parting.deadline();
                    parted = Some((parting.wait(pods, deadline).await, deadline));
                } else if config.hands_over {
                    member.raft.hand_over(&BTreeSet::new(), HAND_OVER).await;
                }
            }
            standing = death => {
                bury(&formation, standing, lanes).await?;
                // Nothing may be answered in its name any more: the process ends as it is.
                anyhow::bail!(REMOVED);
            }
            () = formation.recovery_ordered() => {
                tracing::warn!("stopping, to go on alone at the next start");
            }
        }
        health.stop();
        outer.drain().await;
        if let Some((Parted::ForGood, deadline)) = parted {
            parting.be_removed(deadline).await;
        }
        if let Some((Parted::ForGood | Parted::ToReturn, _)) = parted {
            parting.lead_no_more().await;
        }
        stop_tasks.stop();
        for task in tasks {
            if let Err(e) = task.await {
                tracing::error!(error = %e, "a task ended badly");
            }
        }
        let data = member.stop().await;
        inner.drain().await;
        data.close().await;
        Ok(())
    };
    tokio::select! {
        // A member that cannot be sure of itself is not stopped in order: the process ends as it is,
        // and recovers at its next start.
        biased;
        reason = fault.stopped() => Err(anyhow::anyhow!("{reason}")),
        ended = life => ended,
    }
}

const REMOVED: &str = "this member was removed from its cluster, or its volume is an older copy: started \
    again, it sets its data aside (in `archive`) and joins anew";

/// The volume's member is dead: from here on nothing may be answered in its name.
async fn bury(formation: &Arc<Formation>, standing: Standing, lanes: Lanes) -> anyhow::Result<()> {
    tracing::error!(?standing, "{REMOVED}");
    let formation = formation.clone();
    let buried = lanes.run("identity", move || formation.bury()).await?;
    Ok(buried.context("writing the identity panicked")??)
}

/// Who may know of a cluster, as far as this member was told at its start.
fn known_ordinals(config: &MemberConfig) -> BTreeSet<Ordinal> {
    let founders = (0..config.founders).map(Ordinal);
    config.addresses.known(config.ordinal).into_iter().chain(founders).collect()
}

async fn open_formation(config: &MemberConfig, lanes: Lanes) -> anyhow::Result<Arc<Formation>> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);
    let formation = FormationConfig {
        ordinal: config.ordinal,
        home: config.home.clone(),
        founders: config.founders,
        known: known_ordinals(config),
        orchestrator: config.pod.as_ref().map(|pod| pod.orchestrator.clone()),
        take_over: TAKE_OVER,
    };
    let root = config.data_dir.clone();
    let opened = lanes.run("open", move || -> anyhow::Result<Formation> {
        let dir = Arc::new(DataDir::open(disk, &root)?);
        Ok(Formation::open(formation, dir, rng)?)
    });
    let opened = opened.await?.context("opening the data directory panicked")?;
    Ok(Arc::new(opened?))
}

/// Everything below the services.
struct Member {
    raft: Raft,
    raft_tasks: RaftTasks,
    node: Node,
    node_tasks: NodeTasks,
    watches: Watches,
    watch_lanes: WatchLanes,
    storage: OpenStorage,
    log: Log,
}

impl Member {
    async fn start(
        config: &MemberConfig,
        formed: &Formed,
        client: PeerClient,
        formation: &Arc<Formation>,
        fault: &Fault,
        lanes: Lanes,
    ) -> anyhow::Result<Member> {
        let identity = &formed.identity;
        let (dir, member, seed) =
            (formation.data_dir().clone(), identity.member, SystemRng.next_id());
        let (wal, faults) = (dir.clone(), fault.clone());
        let segment_bytes = config.wal_segment_bytes;
        let opened = lanes.run("open", move || {
            let options = WalOptions { segment_bytes, ..WalOptions::new(member, seed, lanes) };
            Log::open(wal.disk().clone(), &wal.wal(), &options, faults)
        });
        let log = opened.await?.context("opening the log panicked")??;
        let opened =
            OpenStorage::open(&dir, member, config.cache_bytes, &log, lanes, fault.clone());
        let (storage, recovered) = opened.await?;
        if identity.stage == Stage::Recovering {
            let me = PeerPlace { member: identity.member, ordinal: identity.ordinal };
            raft::go_on_alone(&log, me).await?;
            tracing::warn!(cluster = %identity.cluster, "going on alone, as a new cluster");
        }
        if identity.stage == Stage::Member {
            // A snapshot that was installed may be ahead of the log.
            let held = log.last().max(recovered.position).map_or(0, |last| last.index);
            check_volume(config, &client, identity, formation, held, lanes).await?;
        }
        let options = RaftOptions {
            me: identity.member,
            timing: config.timing,
            lanes,
            retention: config.retention,
        };
        let lessor = Arc::new(Lessor::default());
        let limits = watch::Limits::default();
        let feed = Feed::new(&limits);
        let (raft, raft_tasks) = Raft::start(
            options,
            client.clone(),
            log.clone(),
            storage.snapshots.clone(),
            recovered,
            vec![lessor.clone(), feed.clone()],
            fault.clone(),
        )
        .await?;
        let options = watch::Options {
            fragment_bytes: api::message_bytes_max(config.max_request_bytes),
            limits,
            lanes,
        };
        let (watches, watch_lanes) =
            Watches::start(options, &feed, raft.view().clone(), fault.clone())?;
        let options = NodeOptions {
            cluster: identity.cluster,
            member: identity.member,
            quota_bytes: config.quota_bytes,
            max_request_bytes: config.max_request_bytes,
            lanes,
            rng: Arc::new(SystemRng),
            lessor,
        };
        let (node, node_tasks) = Node::start(options, raft.clone(), client, fault.clone())?;
        Ok(Member { raft, raft_tasks, node, node_tasks, watches, watch_lanes, storage, log })
    }

    /// Takes its part in a cluster that is just being formed.
    async fn begin(
        &self,
        formed: &Formed,
        formation: &Arc<Formation>,
        peers: &PeerClient,
        lanes: Lanes,
    ) -> anyhow::Result<()> {
        if formed.initialize && !self.raft.is_initialized().await? {
            let founders: Vec<PeerPlace> = formed.identity.founders.clone();
            self.raft.initialize(&founders).await?;
        }
        if formed.unconfirmed {
            formation.confirm_founded(peers, &formed.identity).await?;
        }
        let formation = formation.clone();
        let identity = formed.identity.clone();
        let kept = lanes.run("identity", move || formation.became_member(&identity)).await?;
        kept.context("writing the identity panicked")??;
        Ok(())
    }

    /// Ends everything that could still answer a peer; what is left is the data.
    async fn stop(self) -> Data {
        drop(self.node);
        self.node_tasks.stop().await;
        self.watch_lanes.stop().await;
        self.raft.stop(self.raft_tasks).await;
        Data { storage: self.storage, log: self.log }
    }
}

/// A volume that was rolled back must not take part: Raft would believe what it has forgotten.
async fn check_volume(
    config: &MemberConfig,
    peers: &PeerClient,
    me: &Identity,
    formation: &Arc<Formation>,
    last_index: u64,
    lanes: Lanes,
) -> anyhow::Result<()> {
    let kept = Kept { last_index, membership_index: 0 };
    let mut others = known_ordinals(config);
    // Only the leader knows of some things, and it may live anywhere.
    if let Some(pod) = &config.pod {
        others.extend(led_last(&*pod.orchestrator).await);
    }
    let standing = ask_standing(peers, me, kept, others, PATIENCE_AT_START).await;
    if standing.is_dead() {
        bury(formation, standing, lanes).await?;
        anyhow::bail!(REMOVED);
    }
    Ok(())
}

/// What a stopped member has on disk.
struct Data {
    storage: OpenStorage,
    log: Log,
}

impl Data {
    async fn close(self) {
        self.storage.close().await;
        self.log.close().await;
    }
}

fn attributes(config: &MemberConfig, me: &Identity) -> MemberAttributes {
    let peer = config.addresses.of(me.ordinal).unwrap_or_else(|| config.ports.peer.to_string());
    MemberAttributes {
        member: me.member,
        ordinal: me.ordinal,
        name: config.name.clone(),
        peer_urls: vec![format!("http://{peer}")],
        client_urls: config.client_urls.clone(),
        boot: me.boot,
    }
}

/// Gives up what a dead member left here once the volume runs short.
async fn free_archive(log: Log, dir: Arc<DataDir>, lanes: Lanes, mut stopping: Stopping) {
    let mut space = log.space();
    loop {
        tokio::select! {
            () = stopping.wait() => return,
            low = space.wait_for(|space| *space == Space::Low) => if low.is_err() { return },
        }
        let archive = dir.clone();
        match lanes.run("archive", move || archive.drop_archive()).await {
            Ok(Some(Ok(true))) => tracing::warn!("the volume runs short: the archive is removed"),
            Ok(Some(Ok(false))) => {}
            failed => tracing::warn!(?failed, "the archive is not removed"),
        }
        tokio::select! {
            () = stopping.wait() => return,
            ok = space.wait_for(|space| *space != Space::Low) => if ok.is_err() { return },
        }
    }
}

/// Tells the cluster who this member is, until it knows.
async fn describe(node: Node, me: MemberAttributes, mut stopping: Stopping) {
    loop {
        if node.raft().view().roster().members.get(&me.member) == Some(&me) {
            return;
        }
        tokio::select! {
            () = stopping.wait() => return,
            described = node.propose(Command::Describe(me.clone())) => match described {
                Ok(_) => return,
                Err(e) => tracing::debug!(error = %e, "this member is not described yet"),
            }
        }
        tokio::select! {
            () = stopping.wait() => return,
            () = tokio::time::sleep(DESCRIBE_PAUSE) => {}
        }
    }
}
