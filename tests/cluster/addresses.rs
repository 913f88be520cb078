//! Members whose addresses are of IPv6, or are others than DNS gives.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{
    WAIT_TIMEOUT, http,
    kvd::Kvd,
    ports::{Ports, free_ports},
    retry::with_retry,
};

/// A test of IPv6 needs it on this host.
fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("SKIPPED: this host has no IPv6 on loopback");
    }
    has
}

fn at(ip: impl Into<IpAddr>, ports: Ports) -> Ports {
    let ip = ip.into();
    let at = |address: SocketAddr| SocketAddr::new(ip, address.port());
    Ports { client: at(ports.client), peer: at(ports.peer), admin: at(ports.admin) }
}

/// Three members with free ports, at these addresses.
fn three(ips: [IpAddr; 3]) -> [Ports; 3] {
    ips.map(|ip| {
        let first = free_ports(3);
        let port = |offset| SocketAddr::new(ip, first.port() + offset);
        Ports { client: port(0), peer: port(1), admin: port(2) }
    })
}

fn peers(members: [Ports; 3]) -> String {
    members.map(|ports| ports.peer.to_string()).join(",")
}

fn serve(scratch: &Path, ordinal: usize, ports: Ports, peers: &str, more: &[&str]) -> Kvd {
    let data = scratch.join(format!("kv-{ordinal}"));
    let ordinal = ordinal.to_string();
    let listen = [ports.client, ports.peer, ports.admin].map(|address| format!("http://{address}"));
    let mut args = vec!["serve", "--ordinal", &ordinal, "--data-dir", data.to_str().unwrap()];
    args.extend(["--peers", peers, "--wal-segment-bytes", "1MiB"]);
    args.extend(["--listen-client-urls", &listen[0], "--listen-peer-urls", &listen[1]]);
    args.extend(["--listen-admin", &listen[2]]);
    args.extend(more);
    Kvd::start(scratch, ports, &args)
}

fn run_kvctl(endpoints: &str, args: &[&str]) -> Output {
    let mut kvctl = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    kvctl.args(["--endpoints", endpoints]).args(args).output().unwrap()
}

fn kvctl(endpoints: &str, args: &[&str]) -> String {
    let output = run_kvctl(endpoints, args);
    assert!(output.status.success(), "kvctl {args:?} at {endpoints}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_cluster_with_ipv6_alone_serves() {
    with_retry(async || {
        if !has_ipv6() {
            return;
        }
        let scratch = TempDir::new().unwrap();
        let members = three([Ipv6Addr::LOCALHOST.into(); 3]);
        let peers = peers(members);
        let start = |i| serve(scratch.path(), i, members[i], &peers, &[]);
        let mut running = [0, 1, 2].map(start);
        for kvd in &mut running {
            kvd.ready().await;
        }
        let endpoints = members.map(|ports| ports.client.to_string());
        assert_eq!(kvctl(&endpoints[0], &["put", "family", "six"]), "OK\n");
        let url = format!("http://{}", endpoints[1]);
        assert_eq!(kvctl(&url, &["get", "family", "--print-value-only"]), "six\n");
        // Through the addresses that the members advertise.
        let listed = kvctl(&endpoints[2], &["member", "list"]);
        assert!(members.iter().all(|m| listed.contains(&format!("http://{}", m.peer))), "{listed}");
        assert!(endpoints.iter().all(|e| listed.contains(&format!("http://{e}"))), "{listed}");
        kvctl(&endpoints.join(","), &["endpoint", "health", "--cluster"]);
        // Whatever it says of the disk.
        let doctor = run_kvctl(&endpoints[0], &["doctor"]);
        let doctor = String::from_utf8_lossy(&doctor.stdout);
        assert!(doctor.contains("3 of 3 members answer"), "{doctor}");
        // A member finds its peers again.
        let [first, second, third] = running;
        third.stop().await;
        let mut third = start(2);
        third.ready().await;
        assert_eq!(kvctl(&endpoints[2], &["get", "family", "--print-value-only"]), "six\n");
        for kvd in [first, second, third] {
            kvd.stop().await;
        }
    });
}

#[test]
fn a_member_that_listens_on_all_addresses_is_reached_over_ipv4_and_ipv6() {
    with_retry(async || {
        if !has_ipv6() {
            return;
        }
        let scratch = TempDir::new().unwrap();
        let ports = at(Ipv6Addr::UNSPECIFIED, Ports::free());
        let mut kvd = Kvd::serve(scratch.path(), &scratch.path().join("data"), ports);
        kvd.ports = at(Ipv4Addr::LOCALHOST, ports);
        kvd.ready().await;
        let families: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for ip in families {
            let at = at(ip, ports);
            for path in ["/livez", "/readyz", "/metrics"] {
                let answer = http::get(at.admin, path, WAIT_TIMEOUT).unwrap();
                assert_eq!(answer.status, 200, "{path} over {ip}");
            }
            kvctl(&at.client.to_string(), &["put", "over", &ip.to_string()]);
            assert!(std::net::TcpStream::connect(at.peer).is_ok(), "peer port over {ip}");
        }
        let newest = kvctl(&at(families[0], ports).client.to_string(), &["get", "over"]);
        assert_eq!(newest, "over\n::1\n");
        kvd.stop().await;
    });
}

/// A restarted pod has another address, and the DNS caches of its peers have the old one.
#[cfg(feature = "k8s")]
#[test]
fn a_restarted_member_is_reached_at_the_address_that_it_names() {
    with_retry(async || {
        let scratch = TempDir::new().unwrap();
        let loopback = |last| IpAddr::from([127, 0, 0, last]);
        let members = three([loopback(1), loopback(1), loopback(3)]);
        let right = peers(members);
        let start =
            |i, peers: &str, more: &[&str]| serve(scratch.path(), i, members[i], peers, more);
        let mut running = [0, 1, 2].map(|i| start(i, &right, &[]));
        for kvd in &mut running {
            kvd.ready().await;
        }
        for kvd in running {
            kvd.stop().await;
        }
        // Nothing listens there.
        let old = SocketAddr::new(loopback(2), members[2].peer.port());
        let stale = peers([members[0], members[1], Ports { peer: old, ..members[2] }]);
        let mut running = [0, 1].map(|i| start(i, &stale, &[]));
        for kvd in &mut running {
            kvd.ready().await;
        }
        let mut restarted = start(2, &right, &["--pod-ip", "127.0.0.3"]);
        restarted.ready().await;
        let endpoint = |i: usize| members[i].client.to_string();
        kvctl(&endpoint(0), &["put", "reached", "yes"]);
        let value = kvctl(&endpoint(2), &["get", "reached", "--print-value-only"]);
        assert_eq!(value, "yes\n");
        for kvd in running.into_iter().chain([restarted]) {
            kvd.stop().await;
        }
    });
}
