//! `kvd serve`: one member, until SIGTERM or SIGINT.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use tokio::sync::oneshot;

use super::{
    boot,
    member_config::MemberConfig,
    pod,
    servers::Ports,
    signals, sizing,
    stateful_pod::{StatefulPod, host_label, trailing_number},
};
use crate::{
    config::{Serve, Tuning, Wal},
    disk::{self, RealDisk},
    lane::Lanes,
    peer::PeerAddresses,
    raft::{Retention, Timing},
    types::Ordinal,
};

/// Runs a member until SIGTERM or SIGINT.
pub async fn serve(args: Serve) -> anyhow::Result<()> {
    let (shutdown, repeated_sigterm) = signals::termination()?;
    let host = host_name();
    let pod = StatefulPod::of(pod::flags(&args), args.ordinal.map(Ordinal), &host)?;
    let mut config = member_config(&args, pod.as_ref(), &host)?;
    config.repeated_sigterm = Some(repeated_sigterm);
    let kubernetes = pod::connect(&args, pod.as_ref()).await?;
    let kubernetes = kubernetes.map(|(pod, kubernetes)| {
        config.pod = Some(pod);
        kubernetes
    });
    sizing::check(&config, Arc::new(RealDisk), Lanes::Threads).await;
    let (ready, is_ready) = oneshot::channel();
    let listen = config.ports;
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            tracing::info!(client = %listen.client, admin = %listen.admin, "serving clients");
        }
    });
    let ended = boot::run(config, shutdown, ready).await;
    if let Some(kubernetes) = kubernetes {
        kubernetes.close().await;
    }
    ended
}

pub fn timing(tuning: &Tuning) -> Timing {
    let mut timing = Timing::with_election_timeout(tuning.election_timeout);
    if let Some(heartbeat) = tuning.heartbeat_interval {
        timing.heartbeat = heartbeat;
    }
    timing
}

pub fn retention(wal: &Wal) -> Retention {
    Retention {
        snapshot_log_bytes_min: wal.snapshot_log_bytes,
        keep_log_bytes: wal.keep_log_bytes,
        ..Retention::default()
    }
}

/// # Errors
/// If the length is not valid for a segment.
pub fn wal_segment_bytes(wal: &Wal) -> anyhow::Result<u64> {
    let bytes = wal.wal_segment_bytes;
    ensure!(
        bytes.is_multiple_of(4096) && bytes >= 8192,
        "--wal-segment-bytes {bytes} is not a multiple of 4KiB, 8KiB at least"
    );
    Ok(bytes)
}

fn member_config(
    args: &Serve,
    pod: Option<&StatefulPod>,
    host: &str,
) -> anyhow::Result<MemberConfig> {
    let ordinal = match pod.map(|pod| pod.ordinal).or(args.ordinal.map(Ordinal)) {
        Some(ordinal) => ordinal,
        None => trailing_number(host).map(Ordinal).with_context(|| {
            format!("host name {host:?} does not end with a number: set --ordinal N")
        })?,
    };
    let addresses = addresses(args, pod, ordinal)?;
    let founders = args.initial_replicas.unwrap_or(1).max(addresses.listed()).max(1);
    let name = match (pod, args.ordinal) {
        (Some(pod), _) => pod.name.clone(),
        (None, Some(_)) => format!("kv-{ordinal}"),
        (None, None) => host_label(host).to_string(),
    };
    let client_urls = match &args.listen.advertise_client[..] {
        [] => vec![default_client_url(args.listen.client, pod, host)],
        urls => urls.to_vec(),
    };
    let timing = timing(&args.tuning);
    timing.check()?;
    Ok(MemberConfig {
        name,
        data_dir: args.data_dir.clone(),
        ordinal,
        home: pod.map(StatefulPod::home).unwrap_or_default(),
        addresses,
        founders,
        ports: Ports {
            client: args.listen.client,
            peer: args.listen.peer,
            admin: args.listen.admin,
            flags: ["--listen-client-urls", "--listen-peer-urls", "--listen-admin"],
        },
        client_urls,
        pod_ip: pod::ip(args),
        timing,
        quota_bytes: args.tuning.quota_backend_bytes,
        cache_bytes: usize::try_from(args.tuning.cache_size)?,
        max_request_bytes: usize::try_from(args.tuning.max_request_bytes)?,
        watch_progress_interval: args.tuning.watch_progress_notify_interval,
        hands_over: true,
        max_voters: args.max_voters,
        pod: None,
        repeated_sigterm: None,
        wal_segment_bytes: wal_segment_bytes(&args.tuning.wal)?,
        retention: retention(&args.tuning.wal),
    })
}

/// The peer address of a single member, which no other member dials.
fn own_peer_address(listen: SocketAddr) -> SocketAddr {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port()));
    if listen.ip().is_unspecified() { loopback } else { listen }
}

fn addresses(
    args: &Serve,
    pod: Option<&StatefulPod>,
    ordinal: Ordinal,
) -> anyhow::Result<PeerAddresses> {
    let port = args.listen.peer.port();
    if !args.peers.is_empty() {
        return Ok(PeerAddresses::list(args.peers.clone())?);
    }
    let by_convention = || pod.map(|pod| pod.peer_template(port));
    match args.peer_template.clone().or_else(by_convention) {
        Some(template) => {
            let addresses = PeerAddresses::template(template)?;
            if args.initial_replicas.is_none() && pod.is_none() {
                bail!(
                    "--peer-template does not define the number of members: set --initial-replicas N, or \
                     in a pod --pod-name NAME"
                )
            }
            Ok(addresses)
        }
        // A single member needs no address but its own.
        None if ordinal == Ordinal(0) => {
            Ok(PeerAddresses::list(vec![own_peer_address(args.listen.peer).to_string()])?)
        }
        None => {
            bail!("ordinal {ordinal} needs --peers or --peer-template to find the other members")
        }
    }
}

fn default_client_url(listen: SocketAddr, pod: Option<&StatefulPod>, host: &str) -> String {
    match pod {
        // With the brackets of an IPv6 address.
        _ if !listen.ip().is_unspecified() => format!("http://{listen}"),
        Some(pod) => pod.client_url(listen.port()),
        None => format!("http://{host}:{}", listen.port()),
    }
}

/// The kernel's host name. In a pod, its first label is the name of the pod.
fn host_name() -> String {
    let name = disk::read_to_end(&RealDisk, "/proc/sys/kernel/hostname".as_ref());
    let name = name.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string());
    name.unwrap_or_else(|_| "localhost".into())
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
        let args = Line::try_parse_from(args)?.serve;
        let pod = StatefulPod::of(pod::flags(&args), args.ordinal.map(Ordinal), host)?;
        member_config(&args, pod.as_ref(), host)
    }

    #[test]
    fn a_pod_knows_its_ordinal_from_its_name() {
        let line = "--peer-template kv-{ordinal}.kv-peers:2380 --initial-replicas 3";
        let config = config(line, "kv-10").unwrap();
        assert_eq!((config.ordinal, config.founders), (Ordinal(10), 3));
        assert_eq!(config.name, "kv-10");
    }

    #[test]
    fn a_host_name_with_its_domain_says_the_ordinal_too() {
        let line = "--peer-template kv-{ordinal}.kv-peers:2380 --initial-replicas 3";
        let config = config(line, "kv-10.kv-peers.ns.svc.cluster.local").unwrap();
        assert_eq!((config.ordinal, config.name.as_str()), (Ordinal(10), "kv-10"));
    }

    #[test]
    #[cfg(feature = "k8s")]
    fn a_pod_needs_no_name_but_its_own() {
        let line = "--pod-name b-kv-4 --namespace ns --listen-peer-urls http://0.0.0.0:7000";
        for host in ["b-kv-4", "b-kv-4.b-kv-peers.ns.svc.cluster.local", "node-1"] {
            let config = config(line, host).unwrap();
            assert_eq!((config.ordinal, config.name.as_str()), (Ordinal(4), "b-kv-4"));
            assert_eq!(config.home, "ns/b-kv");
            assert_eq!(config.addresses.of(Ordinal(1)).unwrap(), "b-kv-1.b-kv-peers:7000");
            assert_eq!(config.client_urls, ["http://b-kv-4.b-kv-peers.ns.svc:2379"]);
        }
    }

    #[test]
    #[cfg(feature = "k8s")]
    fn a_pod_without_its_name_is_what_its_host_name_and_its_old_variables_say() {
        let line = "--statefulset kv --peer-template kv-{ordinal}.kv-peers:2380 \
                    --advertise-client-urls http://kv-1.kv-peers.ns.svc:2379";
        let old = config(line, "kv-1").unwrap();
        assert_eq!(
            (old.ordinal, old.name.as_str(), old.home.as_str()),
            (Ordinal(1), "kv-1", "default/kv")
        );
        assert_eq!(old.addresses.of(Ordinal(0)).unwrap(), "kv-0.kv-peers:2380");
        assert_eq!(old.client_urls, ["http://kv-1.kv-peers.ns.svc:2379"]);
        // The second instance of one namespace, whose variables a `namePrefix` left as they were.
        let error = config(line, "b-kv-1").unwrap_err().to_string();
        assert!(error.contains("StatefulSet b-kv"), "{error}");
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
    fn etcds_flags_take_etcds_values() {
        let line = "--ordinal 0 --listen-client-urls http://127.0.0.1:1 --heartbeat-interval 200 \
                    --advertise-client-urls http://a:1,http://b:1 --election-timeout 2000 \
                    --quota-backend-bytes 0 --watch-progress-notify-interval 0";
        let config = config(line, "laptop").unwrap();
        assert_eq!(config.ports.client, "127.0.0.1:1".parse().unwrap());
        assert_eq!(config.client_urls, ["http://a:1", "http://b:1"]);
        assert_eq!(config.timing.heartbeat.as_millis(), 200);
        assert_eq!(config.timing.election_timeout.as_millis(), 2000);
        assert_eq!(config.quota_bytes, 2 << 30);
        assert_eq!(config.watch_progress_interval.as_secs(), 600);
    }

    #[test]
    fn clients_get_the_listen_address_or_the_host_name() {
        let urls = |listen: &str| {
            let line = format!("--ordinal 0 --listen-client-urls http://{listen}");
            config(&line, "laptop").unwrap().client_urls
        };
        assert_eq!(urls("0.0.0.0:1"), ["http://laptop:1"]);
        assert_eq!(urls("[::]:1"), ["http://laptop:1"]);
        assert_eq!(urls("127.0.0.1:1"), ["http://127.0.0.1:1"]);
        assert_eq!(urls("[::1]:1"), ["http://[::1]:1"]);
    }

    #[test]
    fn a_single_member_lists_the_peer_address_that_it_listens_on() {
        let peer = |line: &str| {
            let config = config(&format!("--ordinal 0 {line}"), "laptop").unwrap();
            config.addresses.of(Ordinal(0)).unwrap()
        };
        assert_eq!(peer(""), "127.0.0.1:2380");
        assert_eq!(peer("--listen-peer-urls http://[::1]:1"), "[::1]:1");
    }

    #[test]
    fn flags_keep_their_old_names() {
        let line = "--ordinal 0 --listen-client 127.0.0.1:1 --listen-peer 127.0.0.1:2 \
                    --advertise-client http://a:1 --heartbeat 50ms --quota-bytes 1MiB \
                    --watch-progress 1s --grace 5s";
        let config = config(line, "laptop").unwrap();
        assert_eq!((config.ports.client.port(), config.ports.peer.port()), (1, 2));
        assert_eq!(config.client_urls, ["http://a:1"]);
        assert_eq!(config.quota_bytes, 1 << 20);
        assert_eq!(config.watch_progress_interval.as_secs(), 1);
    }

    #[test]
    fn one_member_needs_no_peers_but_a_second_one_does() {
        assert_eq!(config("--ordinal 0", "laptop").unwrap().founders, 1);
        assert!(config("--ordinal 1", "laptop").is_err());
    }
}
