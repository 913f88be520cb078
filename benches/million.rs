//! A million keys: the time until a killed cluster answers again, and the memory and disk that the
//! keys take.
//!
//! `cargo bench --profile dist --bench million` starts three members as processes, loads the keys
//! through the API, kills all members with SIGKILL, starts them again, and prints the results next to
//! the targets. Env: `KEYS` (1000000), `BASE_PORT` (28000). The run takes a minute or two and about
//! 3 GB of disk.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a benchmark, not the store")]

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use ordinal::{
    client::{Client, Timeouts},
    proto::etcdserverpb::{
        PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request as Op,
    },
};

const MEMBERS: u16 = 3;
const VALUE_BYTES: usize = 256;
const KEYS_A_TXN: usize = 100;
const TXNS_IN_FLIGHT: usize = 32;
/// Results of etcd 3.5.30 on two cores (docs/benchmarks.md), and our targets.
const TARGETS: [(&str, &str); 3] = [
    ("restart to the first linearizable read", "etcd 9.7 s, target <= 2 s"),
    ("resident memory of a member", "etcd 559-592 MB, target <= 0.6x: 340 MB"),
    ("disk of a member", "etcd 773 MB, target <= 0.8x: 618 MB"),
];

struct Cluster {
    dir: PathBuf,
    base: u16,
    members: Vec<Child>,
}

impl Cluster {
    fn start(dir: &Path, base: u16) -> Cluster {
        let peers: Vec<String> =
            (0..MEMBERS).map(|i| format!("127.0.0.1:{}", base + 2 * i + 1)).collect();
        let member = |i: u16| {
            let log = fs::File::options()
                .create(true)
                .append(true)
                .open(dir.join(format!("kv-{i}.log")))
                .unwrap();
            Command::new(env!("CARGO_BIN_EXE_kvd"))
                .args(["serve", "--ordinal", &i.to_string(), "--peers", &peers.join(",")])
                .args(["--listen-client-urls", &format!("127.0.0.1:{}", base + 2 * i)])
                .args(["--listen-peer-urls", &peers[usize::from(i)]])
                .args(["--listen-admin", &format!("127.0.0.1:{}", base + 100 + i)])
                .arg("--data-dir")
                .arg(dir.join(format!("kv-{i}")))
                .stdin(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap()
        };
        Cluster { dir: dir.into(), base, members: (0..MEMBERS).map(member).collect() }
    }

    fn kill(&mut self) {
        for member in &mut self.members {
            member.kill().unwrap();
            member.wait().unwrap();
        }
    }

    fn client(&self, member: u16) -> Client {
        let endpoint = format!("127.0.0.1:{}", self.base + 2 * member).parse().unwrap();
        let timeouts =
            Timeouts { dial: Duration::from_millis(200), command: Duration::from_secs(30) };
        Client::new(vec![endpoint], timeouts)
    }

    /// Waits until this member answers a linearizable read.
    async fn answers(&self, member: u16) {
        let client = self.client(member);
        let read = RangeRequest { key: "ready".into(), ..Default::default() };
        while client.range(read.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // The process may have been killed before.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

fn key(i: usize) -> String {
    format!("/registry/million/{i:012}")
}

async fn load(cluster: &Cluster, keys: usize) {
    let clients: Vec<Client> = (0..MEMBERS).map(|m| cluster.client(m)).collect();
    let txn = |first: usize| {
        let client = &clients[first / KEYS_A_TXN % clients.len()];
        async move {
            let put = |i: usize| {
                let value: Vec<u8> = (0..VALUE_BYTES).map(|b| (i * 31 + b * 7) as u8).collect();
                let put =
                    PutRequest { key: key(i).into(), value: value.into(), ..Default::default() };
                RequestOp { request: Some(Op::RequestPut(put)) }
            };
            let success = (first..(first + KEYS_A_TXN).min(keys)).map(put).collect();
            client.txn(TxnRequest { success, ..Default::default() }).await.unwrap();
        }
    };
    stream::iter((0..keys).step_by(KEYS_A_TXN))
        .map(txn)
        .buffer_unordered(TXNS_IN_FLIGHT)
        .collect::<Vec<()>>()
        .await;
}

fn tree_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => tree_bytes(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// `VmRSS` and `RssAnon` of a process, in MB.
fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (kib("VmRSS:") / 1024, kib("RssAnon:") / 1024)
}

fn print_sizes(cluster: &Cluster, when: &str) {
    for (i, member) in cluster.members.iter().enumerate() {
        let (rss, anon) = memory(member.id());
        let disk = tree_bytes(&cluster.dir.join(format!("kv-{i}"))) >> 20;
        println!("  {when}: member {i}: {rss} MB resident ({anon} anonymous), {disk} MB on disk");
    }
}

#[tokio::main]
async fn main() {
    let number =
        |name: &str, default: usize| env::var(name).ok().map_or(default, |v| v.parse().unwrap());
    let keys = number("KEYS", 1_000_000);
    let base = u16::try_from(number("BASE_PORT", 28_000)).unwrap();
    drop(TcpListener::bind(("127.0.0.1", base)).expect("BASE_PORT is free"));
    let dir = env::temp_dir().join(format!("ordinal-million-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();

    let mut cluster = Cluster::start(&dir, base);
    cluster.answers(0).await;
    let begun = Instant::now();
    load(&cluster, keys).await;
    println!("{keys} keys of {VALUE_BYTES} B loaded in {:.1} s", begun.elapsed().as_secs_f64());
    print_sizes(&cluster, "loaded");

    cluster.kill();
    let begun = Instant::now();
    cluster = Cluster::start(&dir, base);
    let (a, b, c) = (cluster.answers(0), cluster.answers(1), cluster.answers(2));
    let first = tokio::select! {
        () = a => 0, () = b => 1, () = c => 2,
    };
    println!(
        "restart after kill -9: first linearizable read after {:.2} s, on member {first}",
        begun.elapsed().as_secs_f64()
    );
    for member in 0..MEMBERS {
        cluster.answers(member).await;
    }
    println!("on every member after {:.2} s", begun.elapsed().as_secs_f64());
    let all = RangeRequest {
        key: key(0).into(),
        range_end: "/registry/million0".into(),
        count_only: true,
        ..Default::default()
    };
    for member in 0..MEMBERS {
        let count = cluster.client(member).range(all.clone()).await.unwrap().count;
        assert_eq!(count, i64::try_from(keys).unwrap(), "member {member} has them all");
    }
    print_sizes(&cluster, "restarted");
    println!("targets:");
    for (what, target) in TARGETS {
        println!("  {what}: {target}");
    }
    drop(cluster);
    fs::remove_dir_all(&dir).unwrap();
}
