//! kvctl as people use it, against a small server: `tests/scripts/ctl/`. What is expected there was
//! compared with etcdctl 3.5's output for the same answers.

use std::{error::Error, ffi::OsString, fmt::Write as _, io, path::Path, time::Duration};

use goldenscript::{Argument, Command, Context, Runner};
use tokio::runtime::Runtime;

use super::{
    Environment,
    doctor::report::{Finding, HealthReport},
    endpoint::{EndpointHash, EndpointHealth, EndpointStatus},
    member::MemberChange,
    print::{Answer, Format, ValueStyle},
    run, txn_grammar,
};
use crate::{
    client::{
        fake::{Behavior, FakeServer},
        scripted::{self, LEASE, ScriptedServer, no_leader},
    },
    proto::{
        cluster_admin::{ClusterMember, ClusterReply, Desired, Leading},
        etcdserverpb::{
            DowngradeInfo, HashKvResponse, LeaseKeepAliveResponse, Member, MemberAddResponse,
            MemberListResponse, MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse,
            MoveLeaderResponse, ResponseHeader, StatusResponse, WatchResponse,
        },
    },
};

struct Kvctl {
    server: FakeServer,
    /// For watches and leases.
    scripted: ScriptedServer,
    stdin: String,
    env: Vec<(String, String)>,
    /// The servers run as long as this.
    runtime: Runtime,
}

impl Kvctl {
    fn new() -> Kvctl {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(FakeServer::start(Behavior::Serve));
        let scripted = runtime.block_on(ScriptedServer::watches(vec![]));
        Kvctl { server, scripted, stdin: String::new(), env: vec![], runtime }
    }

    /// Standard output as it is, each line of standard error after `! `, and the exit code.
    fn kvctl(&mut self, args: Vec<OsString>) -> String {
        let streams = args.first().is_some_and(|verb| verb == "watch" || verb == "lease");
        let address = if streams { self.scripted.address } else { self.server.address }.to_string();
        let set = std::mem::take(&mut self.env);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(
            [OsString::from("kvctl")].into_iter().chain(args),
            &mut Environment {
                stdin: Box::new(io::Cursor::new(std::mem::take(&mut self.stdin))),
                stdout: &mut out,
                stderr: &mut err,
                variable: &|name| match name {
                    "KVCTL_ENDPOINTS" => Some(address.clone()),
                    _ => set.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()),
                },
                interactive: false,
            },
        );
        let mut text = String::from_utf8_lossy(&out).into_owned();
        for line in String::from_utf8_lossy(&err).lines() {
            writeln!(text, "! {}", line.replace(&address, "SERVER")).unwrap();
        }
        if code != 0 {
            writeln!(text, "exit {code}").unwrap();
        }
        text
    }
}

impl Runner for Kvctl {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let args = command.args.iter().map(|argument| match argument {
            Argument::Positional(text) => text.clone(),
            argument => panic!("{} does not take {argument}", command.name),
        });
        let text = || match &command.args[..] {
            [Argument::Positional(text)] => text.as_str(),
            _ => panic!("{} takes one quoted text", command.name),
        };
        match command.name.as_str() {
            "kvctl" => Ok(self.kvctl(txn_grammar::words(text())?)),
            // Standard input of the next kvctl.
            "stdin" => {
                self.stdin = text().to_owned();
                Ok(String::new())
            }
            // A variable of the next kvctl.
            "env" => {
                let (name, value) = text().split_once('=').unwrap();
                self.env.push((name.into(), value.into()));
                Ok(String::new())
            }
            // The responses of the member on its next watch stream.
            "stream" => {
                let responses: Vec<_> = args.map(|words| response(&words)).collect();
                let script = scripted::script(responses, no_leader());
                self.runtime.block_on(self.scripted.watch(script));
                Ok(String::new())
            }
            // The TTLs of the member's responses on its next keep-alive stream.
            "renewals" => {
                let renewed = |ttl: String| LeaseKeepAliveResponse {
                    header: scripted::header(7),
                    id: LEASE,
                    ttl: ttl.parse().unwrap(),
                };
                let responses: Vec<_> = args.map(renewed).collect();
                self.runtime
                    .block_on(self.scripted.renew(scripted::script(responses, no_leader())));
                Ok(String::new())
            }
            // print FIXTURE FORMAT [hex]
            "print" => {
                let args: Vec<_> = args.collect();
                let style = ValueStyle { hex: args.len() > 2, value_only: false };
                let format = <Format as clap::ValueEnum>::from_str(&args[1], false)?;
                let rendered = fixture(&args[0])?.render(format, style)?;
                let stderr = String::from_utf8(rendered.stderr)?;
                Ok(String::from_utf8(rendered.stdout)?
                    + &stderr.lines().map(|line| format!("! {line}\n")).collect::<String>())
            }
            name => Err(format!("unknown command {name}").into()),
        }
    }
}

/// created|events|progress|compacted|canceled REVISION…
fn response(words: &str) -> WatchResponse {
    let mut words = words.split(' ');
    let kind = words.next().unwrap();
    let revisions: Vec<i64> = words.map(|word| word.parse().unwrap()).collect();
    match kind {
        "created" => scripted::created(revisions[0]),
        "events" => scripted::events(&revisions),
        "progress" => scripted::progress(revisions[0]),
        "compacted" => scripted::compacted(revisions[0]),
        "canceled" => WatchResponse {
            canceled: true,
            cancel_reason: "etcdserver: permission denied".into(),
            ..scripted::progress(revisions[0])
        },
        kind => panic!("no response of kind {kind}"),
    }
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 0xc1, member_id: 0xa1, revision: 13, raft_term: 2 })
}

fn fixture(name: &str) -> Result<Box<dyn Answer>, String> {
    let fixture = endpoint_fixture(name).or_else(|| member_fixture(name));
    fixture.or_else(|| cluster_fixture(name)).ok_or_else(|| format!("no fixture {name}"))
}

fn endpoint_fixture(name: &str) -> Option<Box<dyn Answer>> {
    let (a, b) = ("127.0.0.1:2379".to_owned(), "kv-1:2379".to_owned());
    Some(match name {
        "status" => Box::new(vec![
            EndpointStatus {
                endpoint: a,
                status: StatusResponse {
                    header: header(),
                    version: "3.6.0".into(),
                    db_size: 28_672,
                    leader: 0xa1,
                    raft_index: 23,
                    raft_term: 2,
                    raft_applied_index: 23,
                    db_size_in_use: 16_384,
                    ..StatusResponse::default()
                },
            },
            EndpointStatus {
                endpoint: b,
                status: StatusResponse {
                    header: header().map(|h| ResponseHeader { member_id: 0xb2, ..h }),
                    leader: 0xa1,
                    errors: vec!["NOSPACE <full>".into(), "no leader".into()],
                    is_learner: true,
                    db_size_quota: 2_147_483_648,
                    downgrade_info: Some(DowngradeInfo::default()),
                    ..StatusResponse::default()
                },
            },
        ]),
        "health" => Box::new(vec![
            EndpointHealth { endpoint: a, took: Duration::from_nanos(7_990_801), error: None },
            EndpointHealth {
                endpoint: b,
                took: Duration::from_secs(5),
                error: Some("etcdserver: no leader".into()),
            },
        ]),
        "hash" => Box::new(vec![EndpointHash {
            endpoint: a,
            hash: HashKvResponse {
                header: header(),
                hash: 1_161_713_671,
                compact_revision: 5,
                hash_revision: 13,
            },
        }]),
        "nobody" => Box::new(Vec::<EndpointStatus>::new()),
        _ => return None,
    })
}

fn member_fixture(name: &str) -> Option<Box<dyn Answer>> {
    Some(match name {
        "members" => Box::new(MemberListResponse {
            header: header().map(|h| ResponseHeader { revision: 0, ..h }),
            members: vec![
                Member {
                    id: 0xa1,
                    name: "kv-0".into(),
                    peer_ur_ls: vec!["http://kv-0:2380".into()],
                    client_ur_ls: vec!["http://kv-0:2379".into(), "http://10.0.0.1:2379".into()],
                    is_learner: false,
                },
                Member { id: 0xb2, is_learner: true, ..Member::default() },
            ],
        }),
        "added" => Box::new(MemberChange::Added {
            name: "kv-1".into(),
            urls: vec!["http://kv-1:2380".into()],
            response: MemberAddResponse {
                header: header(),
                member: Some(listed(0xb2)),
                members: vec![Member { name: "kv-0".into(), ..listed(0xa1) }, listed(0xb2)],
            },
        }),
        "removed" => {
            let members = vec![listed(0xa1)];
            let response = MemberRemoveResponse { header: header(), members };
            Box::new(MemberChange::Removed(0xb2, response))
        }
        "updated" => {
            let members = vec![listed(0xa1)];
            let response = MemberUpdateResponse { header: header(), members };
            Box::new(MemberChange::Updated(0xa1, response))
        }
        "promoted" => {
            let members = vec![listed(0xa1)];
            let response = MemberPromoteResponse { header: header(), members };
            Box::new(MemberChange::Promoted(0xa1, response))
        }
        "moved" => Box::new(MemberChange::LeaderMoved {
            from: 0xa1,
            to: 0xb2,
            response: MoveLeaderResponse::default(),
        }),
        _ => return None,
    })
}

fn cluster_fixture(name: &str) -> Option<Box<dyn Answer>> {
    Some(match name {
        "cluster" => Box::new(cluster()),
        "follower" => {
            let mut known = ClusterReply { member_id: 0xb2, leading: None, ..cluster() };
            for member in &mut known.members {
                (member.in_contact, member.lag) = (None, None);
            }
            Box::new(known)
        }
        "report" => Box::new(HealthReport {
            summary: "1 of 2 members answer; kv-0 leads; 1 problem".into(),
            findings: vec![
                Finding {
                    check: "member_silent",
                    problem: true,
                    message: "kv-1 does not answer".into(),
                    advice: "Does it run?".into(),
                },
                Finding {
                    check: "no_loss_tolerated",
                    problem: false,
                    message: "tolerates no loss".into(),
                    advice: String::new(),
                },
            ],
        }),
        _ => return None,
    })
}

fn listed(id: u64) -> Member {
    let number = if id == 0xa1 { 0 } else { 1 };
    let peer_ur_ls = vec![format!("http://kv-{number}:2380")];
    Member { id, peer_ur_ls, is_learner: number == 1, ..Member::default() }
}

/// While the second member is being promoted.
fn cluster() -> ClusterReply {
    let member = |ordinal: u32, member_id| ClusterMember {
        ordinal,
        member_id,
        name: format!("kv-{ordinal}"),
        votes: ordinal == 0,
        will_vote: ordinal < 2,
        boot: 3,
        client_urls: vec![format!("http://kv-{ordinal}:2379")],
        in_contact: Some(ordinal < 2),
        lag: Some(7 * u64::from(ordinal)),
        ..ClusterMember::default()
    };
    let never_started = ClusterMember { ordinal: 3, member_id: 0xd4, ..ClusterMember::default() };
    ClusterReply {
        cluster_id: 0xc1,
        member_id: 0xa1,
        leader: 0xa1,
        term: 2,
        desired: Some(Desired { start: 0, replicas: 4, generation: 9 }),
        follows_pods: true,
        members: vec![member(0, 0xa1), member(1, 0xb2), member(2, 0xc3), never_started],
        leading: Some(Leading {
            waits_for: "too few voters: waiting for ordinal 2 (member c3)".into(),
            tolerates: Some(0),
        }),
        answerer: None,
    }
}

fn script(name: &str) {
    let path = Path::new("tests/scripts/ctl").join(name);
    goldenscript::run(&mut Kvctl::new(), path).unwrap();
}

#[test]
fn keys_are_read_as_etcdctl_reads_them() {
    script("get");
}

#[test]
fn keys_are_written_and_deleted_as_etcdctl_does() {
    script("put_del");
}

#[test]
fn transactions_are_read_and_printed_as_etcdctl_does() {
    script("txn");
}

#[test]
fn leases_are_printed_as_etcdctl_prints_them() {
    script("lease");
}

#[test]
fn watches_are_read_and_printed_as_etcdctl_does_and_resume_by_themselves() {
    script("watch");
}

#[test]
fn members_and_endpoints_are_printed_as_etcdctl_prints_them() {
    script("print");
}

#[test]
fn clusters_and_changes_of_members_are_printed() {
    script("members");
}

#[test]
fn wrong_arguments_are_explained_and_exit_as_etcdctl() {
    script("arguments");
}

/// A pipe whose reader has closed it, as `head` does.
struct ClosedPipe;

impl io::Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_into_a_closed_pipe_ends_quietly() {
    let kvctl = Kvctl::new();
    for args in [["get", "--prefix", ""], ["put", "k", "v"], ["completion", "bash", "--hex"]] {
        let mut err = Vec::new();
        let mut environment = Environment {
            stdin: Box::new(io::empty()),
            stdout: &mut ClosedPipe,
            stderr: &mut err,
            variable: &|_| Some(kvctl.server.address.to_string()),
            interactive: false,
        };
        let args = ["kvctl"].into_iter().chain(args).map(OsString::from);
        assert_eq!(run(args, &mut environment), 0);
        assert_eq!(String::from_utf8_lossy(&err), "");
    }
}

#[test]
fn endpoints_come_from_the_flag_then_our_variable_then_etcdctls() {
    let endpoints = |line: &str, env: &dyn Fn(&str) -> Option<String>| {
        let cli = super::cli::parse(line.split(' ').map(OsString::from)).unwrap();
        let config = super::client_config(&cli.global, env).unwrap();
        config.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let both = |name: &str| Some(format!("{}:1", name.to_lowercase().replace('_', "-")));
    let theirs = |name: &str| both(name).filter(|_| name.starts_with("ETCD"));
    assert_eq!(endpoints("kvctl get k --endpoints a:1,b:2", &both), ["a:1", "b:2"]);
    assert_eq!(endpoints("kvctl --endpoints a:1 --endpoints b:2 get k", &both), ["a:1", "b:2"]);
    assert_eq!(endpoints("kvctl get k", &both), ["kvctl-endpoints:1"]);
    assert_eq!(endpoints("kvctl get k", &theirs), ["etcdctl-endpoints:1"]);
    assert_eq!(endpoints("kvctl get k", &|_| None), ["127.0.0.1:2379"]);
}
