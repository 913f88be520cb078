//! `kvd serve`: one member, until it is told to stop.

use anyhow::{Context, bail, ensure};
use tokio::sync::oneshot;

use super::{
    member::{self, MemberConfig},
    pod,
    servers::Ports,
    signals,
};
use crate::{
    config::{Serve, Tuning, Wal},
    peer::PeerAddresses,
    raft::{Retention, Timing},
    types::Ordinal,
};

/// Runs a member until SIGTERM or SIGINT.
pub async fn serve(args: Serve) -> anyhow::Result<()> {
    let shutdown = signals::termination()?;
    let mut config = member_config(&args, &host_name())?;
    let ways = pod::connect(&args, &config.name).await?;
    let ways = ways.map(|(pod, ways)| {
        config.pod = Some(pod);
        ways
    });
    let (ready, is_ready) = oneshot::channel();
    let listen = config.ports;
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            tracing::info!(client = %listen.client, admin = %listen.admin, "serving clients");
        }
    });
    let ended = member::run(config, shutdown, ready).await;
    if let Some(ways) = ways {
        ways.end().await;
    }
    ended
}

pub(super) fn timing(tuning: &Tuning) -> Timing {
    let mut timing = Timing::detecting_in(tuning.election_timeout);
    if let Some(heartbeat) = tuning.heartbeat {
        timing.heartbeat = heartbeat;
    }
    timing
}

pub(super) fn retention(wal: &Wal) -> Retention {
    Retention {
        snapshot_log_bytes_min: wal.snapshot_log_bytes,
        keep_log_bytes: wal.keep_log_bytes,
        ..Retention::default()
    }
}

/// # Errors
/// When the log could not be cut into files of this length.
pub(super) fn wal_segment_bytes(wal: &Wal) -> anyhow::Result<u64> {
    let bytes = wal.wal_segment_bytes;
    ensure!(
        bytes.is_multiple_of(4096) && bytes >= 8192,
        "--wal-segment-bytes {bytes} is not a multiple of 4KiB, 8KiB at least"
    );
    Ok(bytes)
}

fn member_config(args: &Serve, host: &str) -> anyhow::Result<MemberConfig> {
    let ordinal = match args.ordinal {
        Some(ordinal) => ordinal,
        None => trailing_number(host).with_context(|| {
            format!("host name {host:?} does not end with a number: say --ordinal N")
        })?,
    };
    let home = pod::home(args);
    let addresses = match (args.peers.is_empty(), args.peer_template.clone()) {
        (_, Some(template)) => {
            let addresses = PeerAddresses::template(template)?;
            if args.initial_replicas.is_none() && home.is_empty() {
                bail!(
                    "--peer-template does not tell how many members there are: say \
                     --initial-replicas N, or in a pod --statefulset NAME"
                )
            }
            addresses
        }
        (false, None) => PeerAddresses::list(args.peers.clone())?,
        // Alone: its own port is all there is.
        (true, None) if ordinal == 0 => {
            PeerAddresses::list(vec![format!("127.0.0.1:{}", args.listen_peer.port())])?
        }
        (true, None) => bail!("ordinal {ordinal} needs --peers or --peer-template to find others"),
    };
    let founders = args.initial_replicas.unwrap_or(1).max(addresses.listed()).max(1);
    let name = match args.ordinal {
        Some(_) => format!("kv-{ordinal}"),
        None => host.to_string(),
    };
    let url = args.advertise_client.clone().unwrap_or_else(|| {
        let ip = args.listen_client.ip();
        let name = if ip.is_unspecified() { host.to_string() } else { ip.to_string() };
        format!("http://{name}:{}", args.listen_client.port())
    });
    let timing = timing(&args.tuning);
    timing.check()?;
    Ok(MemberConfig {
        name,
        data_dir: args.data_dir.clone(),
        ordinal: Ordinal(ordinal),
        home,
        addresses,
        founders,
        ports: Ports {
            client: args.listen_client,
            peer: args.listen_peer,
            admin: args.listen_admin,
            flags: ["--listen-client", "--listen-peer", "--listen-admin"],
        },
        client_urls: vec![url],
        timing,
        quota_bytes: args.tuning.quota_bytes,
        cache_bytes: usize::try_from(args.tuning.cache_size)?,
        max_request_bytes: usize::try_from(args.tuning.max_request_bytes)?,
        watch_progress_interval: args.tuning.watch_progress,
        hands_over: true,
        max_voters: args.max_voters,
        pod: None,
        wal_segment_bytes: wal_segment_bytes(&args.tuning.wal)?,
        retention: retention(&args.tuning.wal),
    })
}

/// What the kernel says; a pod's host name is its own name.
fn host_name() -> String {
    let disk = crate::disk::RealDisk;
    let name = crate::disk::read_to_end(&disk, "/proc/sys/kernel/hostname".as_ref());
    let name = name.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string());
    name.unwrap_or_else(|_| "localhost".into())
}

fn trailing_number(host: &str) -> Option<u32> {
    let digits = host.len() - host.bytes().rev().take_while(u8::is_ascii_digit).count();
    host[digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn config(line: &str, host: &str) -> anyhow::Result<MemberConfig> {
        let args = ["serve", "--data-dir", "d"].into_iter().chain(line.split_whitespace());
        member_config(&Line::try_parse_from(args)?.serve, host)
    }

    #[test]
    fn a_pod_knows_its_ordinal_from_its_name() {
        let line = "--peer-template kv-{ordinal}.kv-peers:2380 --initial-replicas 3";
        let config = config(line, "kv-10").unwrap();
        assert_eq!((config.ordinal, config.founders), (Ordinal(10), 3));
        assert_eq!(config.name, "kv-10");
    }

    #[test]
    fn all_listed_peers_are_founders() {
        let config = config("--ordinal 1 --peers a:1,b:1,c:1", "laptop").unwrap();
        assert_eq!(config.founders, 3);
    }

    #[test]
    fn a_host_without_a_number_must_say_its_ordinal() {
        let error = config("", "laptop").unwrap_err().to_string();
        assert!(error.contains("--ordinal"), "{error}");
    }

    #[test]
    fn one_member_needs_no_peers_but_a_second_one_does() {
        assert_eq!(config("--ordinal 0", "laptop").unwrap().founders, 1);
        assert!(config("--ordinal 1", "laptop").is_err());
    }
}
