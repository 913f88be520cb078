//! `kvd dev`: a whole cluster on loopback, in one process, to try and to test with.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    boot,
    member_config::MemberConfig,
    serve::{retention, timing, wal_segment_bytes},
    servers::Ports,
    signals,
};
use crate::{config::Dev, peer::PeerAddresses, shutdown::Shutdown, types::Ordinal};

/// Runs the members until Ctrl-C.
pub async fn dev(args: Dev) -> anyhow::Result<()> {
    let (shutdown, _) = signals::termination()?;
    let stop = Shutdown::default();
    let mut members = JoinSet::new();
    let mut ready = Vec::new();
    for i in 0..args.members {
        let config = member_config(&args, i)?;
        let (tx, rx) = oneshot::channel();
        ready.push(rx);
        let mut stopping = stop.signal();
        let stopped = async move { stopping.wait().await };
        members.spawn(async move {
            boot::run(config, stopped, tx).await.with_context(|| format!("member {i}"))
        });
    }
    let announce = async {
        if futures_util::future::try_join_all(ready).await.is_ok() {
            print!("{}", welcome(&args));
        }
        std::future::pending::<()>().await;
    };
    let first = tokio::select! {
        () = shutdown => Ok(()),
        ended = members.join_next() => ended.context("no members")?.context("a member panicked")?,
        () = announce => Ok(()),
    };
    stop.trigger();
    while let Some(ended) = members.join_next().await {
        if let Err(e) = ended.context("a member panicked")? {
            tracing::error!("{e:#}");
        }
    }
    first
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn client_port(args: &Dev, member: u16) -> u16 {
    args.base_port + 2 * member
}

fn member_config(args: &Dev, i: u16) -> anyhow::Result<MemberConfig> {
    let peers = (0..args.members).map(|m| loopback(client_port(args, m) + 1).to_string());
    let timing = timing(&args.tuning);
    timing.check()?;
    Ok(MemberConfig {
        name: format!("kv-{i}"),
        data_dir: args.data_dir.join(format!("kv-{i}")),
        ordinal: Ordinal(u32::from(i)),
        home: String::new(),
        addresses: PeerAddresses::list(peers.collect())?,
        founders: u32::from(args.members),
        ports: Ports {
            client: loopback(client_port(args, i)),
            peer: loopback(client_port(args, i) + 1),
            admin: loopback(args.base_port + 100 + i),
            flags: ["--base-port"; 3],
        },
        client_urls: vec![format!("http://{}", loopback(client_port(args, i)))],
        pod_ip: None,
        timing,
        quota_bytes: args.tuning.quota_backend_bytes,
        cache_bytes: usize::try_from(args.tuning.cache_size)?,
        max_request_bytes: usize::try_from(args.tuning.max_request_bytes)?,
        watch_progress_interval: args.tuning.watch_progress_notify_interval,
        hands_over: false,
        max_voters: 5,
        pod: None,
        repeated_sigterm: None,
        wal_segment_bytes: wal_segment_bytes(&args.tuning.wal)?,
        retention: retention(&args.tuning.wal),
    })
}

fn welcome(args: &Dev) -> String {
    let all: Vec<String> =
        (0..args.members).map(|m| loopback(client_port(args, m)).to_string()).collect();
    let endpoints = all.join(",");
    format!(
        "\n  {} ready, data in {}\n\n  endpoints  {endpoints}\n  health     http://{}/readyz\n\n\
         \x20 Try, in another terminal:\n\
         \x20   export ETCDCTL_ENDPOINTS={endpoints}\n\
         \x20   kvctl put greeting hello      (of `cargo build --release`; etcdctl does the same)\n\
         \x20   kvctl get greeting\n\
         \x20   kvctl endpoint status -w table\n\n  Ctrl-C stops it.\n\n",
        if args.members == 1 {
            "One member is".into()
        } else {
            format!("{} members are", args.members)
        },
        args.data_dir.display(),
        loopback(args.base_port + 100),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        dev: Dev,
    }

    #[test]
    fn members_take_the_ports_that_the_help_promises() {
        let args = <Line as clap::Parser>::parse_from(["dev"]).dev;
        let ports = member_config(&args, 2).unwrap().ports;
        let all = [ports.client.port(), ports.peer.port(), ports.admin.port()];
        assert_eq!(all, [2383, 2384, 2481]);
        let text = welcome(&args);
        assert!(text.contains("127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383"), "{text}");
    }
}
