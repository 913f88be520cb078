//! What an operator can set: flags, each of them an environment variable `KVD_…` too.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

/// As large as [`Tuning::max_request_bytes`] may be: one log entry holds a request, and one message
/// to a peer an entry. Fixed, because the members of a cluster need not agree on the flag.
pub const MAX_REQUEST_BYTES_MAX: usize = 32 << 20;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Limits and times, the same for `serve` and `dev`.
#[derive(Debug, Clone, Args)]
pub struct Tuning {
    /// How often the leader shows that it is there [default: a tenth of the election timeout]
    #[arg(long, env = "KVD_HEARTBEAT", value_parser = duration, value_name = "TIME")]
    pub heartbeat: Option<Duration>,
    /// A lost leader is noticed within this time
    #[arg(long, env = "KVD_ELECTION_TIMEOUT", value_parser = duration, default_value = "1s",
          value_name = "TIME")]
    pub election_timeout: Duration,
    /// Writes are refused beyond so many live bytes (8GiB, 512MiB, …)
    #[arg(long, env = "KVD_QUOTA_BYTES", value_parser = bytes, default_value = "8GiB",
          value_name = "BYTES")]
    pub quota_bytes: u64,
    /// Values kept in memory
    #[arg(long, env = "KVD_CACHE_SIZE", value_parser = bytes, default_value = "64MiB",
          value_name = "BYTES")]
    pub cache_size: u64,
    /// The largest request a client may send
    #[arg(long, env = "KVD_MAX_REQUEST_BYTES", value_parser = request_bytes, default_value = "1536KiB",
          value_name = "BYTES")]
    pub max_request_bytes: u64,
    /// How often a watch that asks for it hears how far it is while nothing happens
    // By etcd's name, too.
    #[arg(long, alias = "watch-progress-notify-interval", env = "KVD_WATCH_PROGRESS",
          value_parser = interval, default_value = "10m", value_name = "TIME")]
    pub watch_progress: Duration,
    #[command(flatten)]
    pub telemetry: Telemetry,
    #[command(flatten)]
    pub wal: Wal,
}

/// What the process tells of itself while it runs, besides metrics.
#[derive(Debug, Clone, Args)]
pub struct Telemetry {
    /// How the log is written
    #[arg(long, env = "KVD_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Sends traces to this OpenTelemetry collector, over plain gRPC
    #[cfg(feature = "otlp")]
    #[arg(long, env = "KVD_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// How the write-ahead log is cut and kept. Hidden, because nobody has to choose: tests take small
/// values to come by snapshots and purges cheaply.
#[derive(Debug, Clone, Args)]
pub struct Wal {
    /// The length of a file of the log: a multiple of 4KiB, and two of them at least
    #[arg(long, hide = true, value_parser = bytes, default_value = "64MiB", value_name = "BYTES")]
    pub wal_segment_bytes: u64,
    /// No snapshot before the log since the last one has grown to this
    #[arg(long, hide = true, value_parser = bytes, default_value = "64MiB", value_name = "BYTES")]
    pub snapshot_log_bytes: u64,
    /// Log kept behind a snapshot for followers that lag
    #[arg(long, hide = true, value_parser = bytes, default_value = "256MiB", value_name = "BYTES")]
    pub keep_log_bytes: u64,
}

/// `kvd serve`: one member.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where this member keeps its data; one directory for each member
    #[arg(long, env = "KVD_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The place of this member [default: the number that the host name ends with]
    #[arg(long, env = "KVD_ORDINAL", value_name = "N")]
    pub ordinal: Option<u32>,
    /// Where all members' peer ports are, by ordinal
    #[arg(
        long,
        env = "KVD_PEERS",
        value_delimiter = ',',
        value_name = "HOST:PORT,…",
        conflicts_with = "peer_template"
    )]
    pub peers: Vec<String>,
    /// The same as a pattern: kv-{ordinal}.kv-peers:2380
    #[arg(long, env = "KVD_PEER_TEMPLATE", value_name = "PATTERN")]
    pub peer_template: Option<String>,
    /// How many members found the cluster; at least as many as --peers lists [default: 1]
    #[arg(long, env = "KVD_INITIAL_REPLICAS", value_name = "N")]
    pub initial_replicas: Option<u32>,
    /// For clients: the etcd v3 API
    #[arg(long, env = "KVD_LISTEN_CLIENT", default_value = "0.0.0.0:2379", value_name = "ADDR")]
    pub listen_client: SocketAddr,
    /// For the other members
    #[arg(long, env = "KVD_LISTEN_PEER", default_value = "0.0.0.0:2380", value_name = "ADDR")]
    pub listen_peer: SocketAddr,
    /// For probes and metrics: /livez, /readyz, /metrics
    #[arg(long, env = "KVD_LISTEN_ADMIN", default_value = "0.0.0.0:2381", value_name = "ADDR")]
    pub listen_admin: SocketAddr,
    /// What `member list` tells clients [default: http://HOSTNAME:PORT]
    #[arg(long, env = "KVD_ADVERTISE_CLIENT", value_name = "URL")]
    pub advertise_client: Option<String>,
    /// At most so many members vote; the others are learners, which serve reads and watches
    #[arg(long, env = "KVD_MAX_VOTERS", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=9))]
    pub max_voters: u32,
    /// How long Kubernetes waits for a pod that it stops (terminationGracePeriodSeconds)
    #[arg(long, env = "KVD_GRACE", value_parser = duration, default_value = "120s",
          value_name = "TIME")]
    pub grace: Duration,
    #[cfg(feature = "k8s")]
    #[command(flatten)]
    pub kubernetes: Kubernetes,
    #[command(flatten)]
    pub tuning: Tuning,
}

/// What a pod of a StatefulSet knows of its surroundings.
#[cfg(feature = "k8s")]
#[derive(Debug, Clone, Args)]
pub struct Kubernetes {
    /// The StatefulSet that this pod is of: its replicas decide who is a member
    #[arg(long, env = "KVD_STATEFULSET", value_name = "NAME")]
    pub statefulset: Option<String>,
    /// Its namespace
    #[arg(long, env = "KVD_NAMESPACE", default_value = "default", value_name = "NAME")]
    pub namespace: String,
    /// This pod's uid, for its Events
    #[arg(long, env = "KVD_POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
    /// The ConfigMap that says who founded the cluster
    #[arg(long, env = "KVD_CLAIM", default_value = "kv-cluster", value_name = "NAME")]
    pub claim: String,
    /// Keeps the leader's name in this Lease
    #[arg(long, env = "KVD_LEASE_MIRROR", value_name = "NAME", num_args = 0..=1,
          default_missing_value = "kv-leader")]
    pub lease_mirror: Option<String>,
    /// Lets this Service select the leader's pod
    #[arg(long, env = "KVD_LEADER_SERVICE", value_name = "NAME")]
    pub leader_service: Option<String>,
}

/// `kvd dev`: a whole cluster in one process.
#[derive(Debug, Clone, Args)]
pub struct Dev {
    /// How many members
    #[arg(long, default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=9))]
    pub members: u16,
    /// Member i: clients at base+2i, peers at base+2i+1, admin at base+100+i
    #[arg(long, default_value_t = 2379, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: u16,
    /// Where the members keep their data, one directory each; it stays from run to run
    #[arg(long, default_value = "./ordinal-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub tuning: Tuning,
}

const TIME_UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
const BYTE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: say 500ms, 1s or 2m");
    let (number, unit) = split_unit(text).ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let (_, seconds) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

fn interval(text: &str) -> Result<Duration, String> {
    let shortest = Duration::from_millis(100);
    let interval = duration(text)?;
    if interval < shortest { Err("at least 100ms".into()) } else { Ok(interval) }
}

fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: say 64MiB, 8GiB or a number of bytes");
    let (number, unit) = split_unit(text).unwrap_or((text, "B"));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, factor) =
        BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

fn request_bytes(text: &str) -> Result<u64, String> {
    let number = bytes(text)?;
    if number > MAX_REQUEST_BYTES_MAX as u64 {
        return Err(format!("at most {}MiB", MAX_REQUEST_BYTES_MAX >> 20));
    }
    Ok(number)
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    Some(text.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(bytes("1536KiB"), Ok(1_572_864));
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("2gib"), Ok(2 << 30));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        assert!(bytes("lots").unwrap_err().contains("64MiB"));
        assert!(bytes("99999999999GiB").is_err());
        assert!(duration("5").unwrap_err().contains("500ms"));
        assert!(duration("-1s").is_err());
    }
}
