//! The flags of `kvd`. Each flag of `kvd serve` can be set by an environment variable `KVD_…` too.
//!
//! A flag that does the same as one of etcd's has etcd's name and takes etcd's values. Names that a
//! flag had before, and names that etcd had for it before, are hidden aliases. No flag is accepted
//! that has no effect.

mod host_port;
mod renamed;
pub mod sizing;
mod values;

#[cfg(feature = "k8s")]
use std::net::IpAddr;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use self::values::{
    advertised_url, bytes, duration, listen_address, progress_interval, quota_bytes, raft_interval,
    request_bytes,
};
pub use self::{
    host_port::{HostPort, HostPortError},
    renamed::with_renamed_variables,
};

/// The largest value of [`Tuning::max_request_bytes`]: one log entry holds one request, and one
/// message to a peer holds one entry. Fixed, because the members of a cluster may differ in the flag.
pub const MAX_REQUEST_BYTES_MAX: usize = 32 << 20;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum LogFormat {
    #[default]
    // etcd's name.
    #[value(alias = "console")]
    Text,
    Json,
}

/// Limits and intervals, the same for `serve` and `dev`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits and intervals")]
pub struct Tuning {
    /// Interval between the leader's heartbeats, as a duration or in milliseconds [default: a tenth
    /// of the election timeout]
    #[arg(long, alias = "heartbeat", env = "KVD_HEARTBEAT_INTERVAL", value_parser = raft_interval,
          value_name = "TIME")]
    pub heartbeat_interval: Option<Duration>,
    /// Time without a leader after which followers hold an election, as a duration or in
    /// milliseconds
    #[arg(long, env = "KVD_ELECTION_TIMEOUT", value_parser = raft_interval, default_value = "1s",
          value_name = "TIME")]
    pub election_timeout: Duration,
    /// Live bytes at which writes are refused with NOSPACE; 0: the default
    #[arg(long, alias = "quota-bytes", env = "KVD_QUOTA_BACKEND_BYTES", value_parser = quota_bytes,
          default_value = "2GiB", value_name = "BYTES", allow_negative_numbers = true)]
    pub quota_backend_bytes: u64,
    /// Memory for cached values
    #[arg(long, env = "KVD_CACHE_SIZE", value_parser = bytes, default_value = "64MiB",
          value_name = "BYTES")]
    pub cache_size: u64,
    /// Size of the largest client request; at most 32MiB
    #[arg(long, env = "KVD_MAX_REQUEST_BYTES", value_parser = request_bytes, default_value = "1536KiB",
          value_name = "BYTES")]
    pub max_request_bytes: u64,
    /// Interval between progress notifications on idle watches that ask for them; 0: the default
    #[arg(long, aliases = ["watch-progress", "experimental-watch-progress-notify-interval"],
          env = "KVD_WATCH_PROGRESS_NOTIFY_INTERVAL", value_parser = progress_interval,
          default_value = "10m", value_name = "TIME")]
    pub watch_progress_notify_interval: Duration,
    #[command(flatten)]
    pub telemetry: Telemetry,
    #[command(flatten)]
    pub wal: Wal,
}

/// The log of the process, and its traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log and traces")]
pub struct Telemetry {
    /// Format of the log on standard error
    #[arg(long, env = "KVD_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// OpenTelemetry collector that receives traces, over gRPC without TLS
    #[cfg(feature = "otlp")]
    #[arg(long, env = "KVD_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// Sizes of the write-ahead log. Hidden: the defaults suit every cluster. Tests choose small values
/// to reach snapshots and purges with few writes.
#[derive(Debug, Clone, Args)]
pub struct Wal {
    /// Length of a log segment: a multiple of 4KiB, at least 8KiB
    #[arg(long, hide = true, value_parser = bytes, default_value = "64MiB", value_name = "BYTES")]
    pub wal_segment_bytes: u64,
    /// Growth of the log since the last snapshot that triggers the next one
    #[arg(long, hide = true, value_parser = bytes, default_value = "64MiB", value_name = "BYTES")]
    pub snapshot_log_bytes: u64,
    /// Log kept behind a snapshot for lagging followers
    #[arg(long, hide = true, value_parser = bytes, default_value = "256MiB", value_name = "BYTES")]
    pub keep_log_bytes: u64,
}

/// `kvd serve`: one member.
#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
pub struct Serve {
    /// Directory of this member's data; members cannot share one
    #[arg(long, env = "KVD_DATA_DIR", value_name = "DIR", help_heading = "Member")]
    pub data_dir: PathBuf,
    /// Ordinal of this member [default: that of the pod's name, or the number at the end of the host
    /// name]
    #[arg(long, env = "KVD_ORDINAL", value_name = "N", help_heading = "Member")]
    pub ordinal: Option<u32>,
    /// Peer addresses of all members, in the order of their ordinals
    #[arg(
        long,
        env = "KVD_PEERS",
        value_delimiter = ',',
        value_name = "HOST:PORT,…",
        conflicts_with = "peer_template",
        help_heading = "Member"
    )]
    pub peers: Vec<String>,
    /// Pattern of the peer addresses, instead of a list: kv-{ordinal}.kv-peers:2380 [default in a pod:
    /// SET-{ordinal}.SET-peers:PORT]
    #[arg(long, env = "KVD_PEER_TEMPLATE", value_name = "PATTERN", help_heading = "Member")]
    pub peer_template: Option<String>,
    /// Number of members that bootstrap the cluster; at least as many as --peers lists [default: 1]
    #[arg(long, env = "KVD_INITIAL_REPLICAS", value_name = "N", help_heading = "Member")]
    pub initial_replicas: Option<u32>,
    /// Largest number of voters; the other members are learners, which serve reads and watches
    #[arg(long, env = "KVD_MAX_VOTERS", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=9), help_heading = "Member")]
    pub max_voters: u32,
    #[command(flatten)]
    pub listen: Listen,
    #[cfg(feature = "k8s")]
    #[command(flatten)]
    pub kubernetes: Kubernetes,
    /// Time between SIGTERM and SIGKILL: terminationGracePeriodSeconds of the pod
    #[arg(long, alias = "grace", env = "KVD_TERMINATION_GRACE_PERIOD", value_parser = duration,
          default_value = "120s", value_name = "TIME", help_heading = "Kubernetes")]
    pub termination_grace_period: Duration,
    #[command(flatten)]
    pub tuning: Tuning,
}

/// The ports of a member. Each listens on one address: URLs that differ are refused, and so is TLS.
/// `[::]` is every address of the host, of IPv6 and IPv4 (`server::listen`).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ports")]
pub struct Listen {
    /// Listener for clients: the etcd v3 API. One address, as http://IP:PORT or IP:PORT
    #[arg(long = "listen-client-urls", alias = "listen-client", env = "KVD_LISTEN_CLIENT_URLS",
          value_parser = listen_address, default_value = "http://[::]:2379", value_name = "URL")]
    pub client: SocketAddr,
    /// Listener for the other members
    #[arg(long = "listen-peer-urls", alias = "listen-peer", env = "KVD_LISTEN_PEER_URLS",
          value_parser = listen_address, default_value = "http://[::]:2380", value_name = "URL")]
    pub peer: SocketAddr,
    /// Listener for probes and metrics: /livez, /readyz, /metrics
    #[arg(long = "listen-admin", alias = "listen-metrics-urls", env = "KVD_LISTEN_ADMIN",
          value_parser = listen_address, default_value = "http://[::]:2381", value_name = "URL")]
    pub admin: SocketAddr,
    /// URLs of this member in `member list`, for clients [default: http://HOSTNAME:PORT, in a pod
    /// with the name POD.SET-peers.NAMESPACE.svc]
    #[arg(long = "advertise-client-urls", alias = "advertise-client",
          env = "KVD_ADVERTISE_CLIENT_URLS", value_parser = advertised_url, value_delimiter = ',',
          value_name = "URL,…")]
    pub advertise_client: Vec<String>,
}

/// The Kubernetes objects of a member that is a pod of a StatefulSet. A name that is not given follows
/// from the name of the pod.
#[cfg(feature = "k8s")]
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct Kubernetes {
    /// Name of this pod, SET-ORDINAL. Says that the member is a pod of StatefulSet SET, whose replicas
    /// are the desired number of members
    #[arg(long, env = "KVD_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
    /// StatefulSet of this pod [default: SET of --pod-name]
    #[arg(long, env = "KVD_STATEFULSET", value_name = "NAME")]
    pub statefulset: Option<String>,
    /// Namespace of the StatefulSet
    #[arg(long, env = "KVD_NAMESPACE", default_value = "default", value_name = "NAME")]
    pub namespace: String,
    /// UID of this pod, for the Events that the member creates
    #[arg(long, env = "KVD_POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
    /// IP address of this pod, for the other members: their DNS caches may know an older one
    #[arg(long, env = "KVD_POD_IP", value_name = "IP")]
    pub pod_ip: Option<IpAddr>,
    /// ConfigMap that records the bootstrap of the cluster [default: SET-cluster]
    #[arg(long, alias = "claim", env = "KVD_BOOTSTRAP_CONFIGMAP", value_name = "NAME")]
    pub bootstrap_configmap: Option<String>,
    /// Lease in which the leader publishes its name; an empty name: none [default: SET-leader]
    #[arg(long, env = "KVD_LEASE_MIRROR", value_name = "NAME")]
    pub lease_mirror: Option<Option<String>>,
    /// Service whose selector the leader sets to its own pod; an empty name: none [default: SET-leader]
    #[arg(long, env = "KVD_LEADER_SERVICE", value_name = "NAME")]
    pub leader_service: Option<String>,
}

/// `kvd dev`: a whole cluster in one process.
#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
pub struct Dev {
    /// Number of members
    #[arg(long, default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=9))]
    pub members: u16,
    /// First port: member i serves clients at PORT+2i, peers at PORT+2i+1, probes and metrics at
    /// PORT+100+i
    #[arg(long, default_value_t = 2379, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: u16,
    /// Directory of the members' data, which the next run finds again
    #[arg(long, default_value = "./ordinal-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub tuning: Tuning,
}
