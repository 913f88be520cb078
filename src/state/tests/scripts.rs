//! Runs the scripts of `tests/scripts/state`: one behaviour a file.
//!
//! Each command is an entry of its own and is published at once, except between `hold` and `publish`.
//! See [`grammar`] for `put`, `del`, `get` and `txn`. Further commands:
//!
//! | | |
//! |---|---|
//! | `define NAME [if=] [then=] [else=]` | a transaction to be nested, or read with `read-txn NAME` |
//! | `batch "put a 1" "del b" ...` | one entry of several commands |
//! | `compact N`, `prune [keys=N]` | compaction, and one step of pruning |
//! | `begin KEY ...`, `finish` | a read that stays open while other commands run |
//! | `grant id=N ttl=N`, `revoke id=N` | leases, as requested by clients |
//! | `expire N@EPOCH ... [term=N]`, `renew N ... [term=N]` | as proposed by a leader; the default term is that of the entry |
//! | `checkpoint N@EPOCH=LEFT ... [term=N]` | the same |
//! | `term N` | the term of the entries from now on |
//! | `leases` | the leases that readers see |
//! | `recover`, `evict` | restarts from the storage; evicts all values from memory |
//! | `status`, `records` | the published state; the records in the storage |

use std::{collections::BTreeMap, error::Error, fmt::Write as _, path::Path, sync::Arc};

use goldenscript::{Command as Line, Context};

use super::grammar::{self, Parsed, Words};
use crate::{
    state::{MemoryStorage, RangeRead, ReadError, ReadProgress, StateMachine},
    types::*,
};

#[test]
fn scripts_answer_as_recorded() {
    let dir = Path::new("tests/scripts/state");
    #[expect(clippy::disallowed_methods, reason = "test scripts are not data of the store")]
    let files = std::fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "scripts are missing from {}", dir.display());
    for path in paths {
        if let Err(error) = goldenscript::run(&mut Script::default(), &path) {
            panic!("{}: {error}", path.display());
        }
    }
}

struct Script {
    storage: Arc<MemoryStorage>,
    machine: StateMachine,
    next: LogPosition,
    held: bool,
    named: BTreeMap<String, Txn>,
    read: Option<RangeRead>,
}

impl Default for Script {
    fn default() -> Self {
        let storage = Arc::new(MemoryStorage::default());
        let machine = StateMachine::recover(storage.clone(), None, [], []).unwrap();
        let next = LogPosition { term: Term(1), index: 0 };
        Script { storage, machine, next, held: false, named: BTreeMap::new(), read: None }
    }
}

impl goldenscript::Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut words = Words::of(&line.args);
        if let Some(command) = self.command(&line.name, Words::of(&line.args))? {
            return self.apply(vec![command]);
        }
        match line.name.as_str() {
            "batch" => {
                let mut commands = Vec::new();
                while let Ok(text) = words.next() {
                    let (name, rest) = text.split_once(' ').ok_or("a command has arguments")?;
                    let words = Words::of(&parse(rest));
                    commands.push(self.command(name, words)?.ok_or("no such command")?);
                }
                words.end()?;
                return self.apply(commands);
            }
            "define" => {
                let name = words.next()?;
                let txn = self.txn(words)?;
                self.named.insert(name, txn);
                return Ok(String::new());
            }
            _ => {}
        }
        let answer = match line.name.as_str() {
            "get" => self.get(grammar::range(words)?),
            "read-txn" => self.read_txn(&words.next()?),
            "begin" => self.begin(grammar::range(words)?),
            "finish" => self.finish(),
            "prune" => Ok(self.prune(words.number("keys")?)),
            "hold" => self.hold(true),
            "publish" => self.hold(false),
            "membership" => Ok(self.membership(words.next()?)),
            "recover" => self.recover(),
            "evict" => {
                self.storage.evict_cache();
                Ok(String::new())
            }
            "term" => {
                self.next.term = Term(words.next()?.parse()?);
                Ok(String::new())
            }
            "leases" => Ok(self.leases()),
            "status" => Ok(self.status()),
            "records" => Ok(self.records()),
            name => return Err(format!("no such command: {name}").into()),
        };
        match answer {
            Err(ReadError::Refused(refusal)) => Ok(format!("refused: {refusal}")),
            answer => Ok(answer?),
        }
    }
}

/// Words of a command inside quotes.
fn parse(text: &str) -> Vec<goldenscript::Argument> {
    let argument = |word: &str| match word.split_once('=') {
        Some((key, value)) => goldenscript::Argument::KeyValue(key.into(), value.into()),
        None => goldenscript::Argument::Positional(word.into()),
    };
    text.split_whitespace().map(argument).collect()
}

impl Script {
    fn command(&self, name: &str, mut words: Words) -> Parsed<Option<Command>> {
        Ok(Some(match name {
            "put" => Command::Put(grammar::put(words)?),
            "del" => Command::DeleteRange(grammar::delete(words)?),
            "txn" => Command::Txn(self.txn(words)?),
            "grant" => {
                Command::LeaseGrant { id: LeaseId(words.number("id")?), ttl: words.number("ttl")? }
            }
            "revoke" => Command::LeaseRevoke(LeaseId(words.number("id")?)),
            "expire" => Command::LeaseExpire {
                term: self.term_of(&mut words)?,
                leases: words.rest().map(|word| grammar::lease_at(&word)).collect::<Parsed<_>>()?,
            },
            "checkpoint" => Command::LeaseCheckpoint {
                term: self.term_of(&mut words)?,
                checkpoints: words.pairs().map(grammar::checkpoint).collect::<Parsed<_>>()?,
            },
            "renew" => Command::LeaseRenew {
                term: self.term_of(&mut words)?,
                leases: words
                    .rest()
                    .map(|word| Ok(LeaseId(word.parse()?)))
                    .collect::<Parsed<_>>()?,
            },
            "compact" => Command::Compact(Revision(words.next()?.parse()?)),
            "assign" => Command::AssignMember {
                ordinal: Ordinal(words.number("ordinal")? as u32),
                nonce: words.number("nonce")? as u64,
            },
            "describe" => Command::SetMemberAttributes(MemberAttributes {
                member: MemberId(words.number("member")? as u64),
                ordinal: Ordinal(words.number("ordinal")? as u32),
                name: words.pair("name").unwrap_or_default(),
                peer_urls: words.pair("peer").into_iter().collect(),
                client_urls: words.pair("client").into_iter().collect(),
                boot: words.pair("boot").map_or(Ok(0), |boot| boot.parse())?,
            }),
            "admit" => Command::AdmitMember(MemberId(words.number("member")? as u64)),
            "desired" => Command::SetDesiredReplicas(DesiredReplicas {
                set: words.next()?,
                generation: words.number("generation")? as u64,
                start: words.number("start")? as u32,
                replicas: words.number("replicas")? as u32,
            }),
            _ => return Ok(None),
        }))
    }

    fn term_of(&self, words: &mut Words) -> Parsed<Term> {
        let named = words.pair("term").map(|term| term.parse().map(Term));
        Ok(named.unwrap_or(Ok(self.next.term))?)
    }

    fn leases(&self) -> String {
        let view = self.machine.view();
        let mut text = String::new();
        for lease in view.leases() {
            let Lease { id: LeaseId(id), ttl, remaining, epoch } = lease;
            let (_, keys) = view.lease_with_keys(lease.id).unwrap();
            write!(text, "{id}@{epoch}: {ttl} seconds").unwrap();
            if remaining > 0 {
                write!(text, ", {remaining} left").unwrap();
            }
            keys.iter().for_each(|key| write!(text, ", {}", key.escape_ascii()).unwrap());
            text.push('\n');
        }
        text
    }

    fn txn(&self, words: Words) -> Parsed<Txn> {
        grammar::txn(words, |name| self.named.get(name).cloned())
    }

    fn position(&mut self) -> LogPosition {
        let position = self.next;
        self.next.index += 1;
        position
    }

    fn apply(&mut self, commands: Vec<Command>) -> Parsed<String> {
        let position = self.position();
        let mut text = String::new();
        for reply in self.machine.apply(position, commands)? {
            match reply {
                Ok(reply) => write_reply(&mut text, &reply),
                Err(refusal) => writeln!(text, "refused: {refusal}")?,
            }
        }
        if !self.held {
            self.machine.publish();
        }
        Ok(text)
    }

    fn hold(&mut self, held: bool) -> Result<String, ReadError> {
        self.held = held;
        if !held {
            self.machine.publish();
        }
        Ok(String::new())
    }

    fn membership(&mut self, bytes: String) -> String {
        let position = self.position();
        self.machine.set_membership(position, bytes.into());
        self.machine.publish();
        String::new()
    }

    fn get(&self, range: Range) -> Result<String, ReadError> {
        let (at, reply) = match self.machine.view().range(range)?.in_memory()? {
            ReadProgress::Done(at, reply) => (at, reply),
            ReadProgress::Unfinished(read) => {
                let (at, reply) = read.finish()?;
                return Ok(format!("from disk\n{}", format_range(at, &reply)));
            }
        };
        Ok(format_range(at, &reply))
    }

    fn read_txn(&self, name: &str) -> Result<String, ReadError> {
        let view = self.machine.view();
        let (revision, reply) = match view.read_txn_in_memory(&self.named[name])? {
            Some(answer) => answer,
            None => view.read_txn(&self.named[name])?,
        };
        let mut text = String::new();
        write_reply(&mut text, &Reply::Txn { revision, reply });
        Ok(text)
    }

    fn begin(&mut self, range: Range) -> Result<String, ReadError> {
        let read = self.machine.view().range(range)?;
        let text = format!("at {}", read.revision());
        self.read = Some(read);
        Ok(text)
    }

    fn finish(&mut self) -> Result<String, ReadError> {
        let (at, reply) = self.read.take().expect("a read was begun").finish()?;
        Ok(format_range(at, &reply))
    }

    fn prune(&mut self, keys: i64) -> String {
        let keys_max = if keys == 0 { usize::MAX } else { keys as usize };
        let before = self.storage.discarded_count();
        let pruning = self.machine.compact_step(keys_max);
        self.machine.publish();
        let discarded = self.storage.discarded_count() - before;
        format!("{pruning:?}, {discarded} records discarded")
    }

    fn recover(&mut self) -> Result<String, ReadError> {
        self.read = None;
        let from = self.storage.contents();
        let storage = self.storage.clone();
        self.machine =
            StateMachine::recover(storage, from.position, from.tables, from.records).unwrap();
        Ok(String::new())
    }

    fn status(&self) -> String {
        let view = self.machine.view();
        let mut text = format!(
            "revision {}, compacted {}, pruned {}",
            view.revision(),
            view.compacted(),
            view.pruned()
        );
        match view.applied() {
            Some(applied) => write!(text, ", applied {}", applied.index).unwrap(),
            None => text.push_str(", nothing applied"),
        }
        if let Some(membership) = view.membership() {
            write!(text, "\nmembership {membership:?}").unwrap();
        }
        for (id, member) in view.roster().members.iter() {
            let MemberAttributes { ordinal, name, peer_urls, client_urls, boot, .. } = member;
            write!(text, "\nmember {id}: {ordinal} {name} {peer_urls:?} {client_urls:?}").unwrap();
            if *boot > 0 {
                write!(text, " boot {boot}").unwrap();
            }
        }
        let roster = view.roster();
        if roster.last_admitted != MemberId::default() {
            write!(text, "\nadmitted up to {}", roster.last_admitted).unwrap();
        }
        if let Some(DesiredReplicas { set, generation, start, replicas }) = &roster.desired {
            write!(text, "\ndesired by {set} at {generation}: {replicas} from {start}").unwrap();
        }
        text
    }

    fn records(&self) -> String {
        let mut text = String::new();
        for meta in self.storage.contents().records {
            let what = if meta.tombstone { " deleted" } else { "" };
            writeln!(text, "{} {}{what}", meta.id, meta.key.escape_ascii()).unwrap();
        }
        text
    }
}

fn write_reply(text: &mut String, reply: &Reply) {
    match reply {
        Reply::Put { revision, reply } => {
            writeln!(text, "at {revision}").unwrap();
            write_op(text, &OpReply::Put(reply.clone()), "");
        }
        Reply::DeleteRange { revision, reply } => {
            writeln!(text, "at {revision}").unwrap();
            write_op(text, &OpReply::DeleteRange(reply.clone()), "");
        }
        Reply::Txn { revision, reply } => {
            writeln!(text, "at {revision}").unwrap();
            write_op(text, &OpReply::Txn(reply.clone()), "");
        }
        Reply::Compact { revision } => writeln!(text, "at {revision}").unwrap(),
        Reply::MembersUpdated => writeln!(text, "described").unwrap(),
        Reply::Assigned(member) => writeln!(text, "member {}", member.0).unwrap(),
        Reply::LeaseGrant { revision, ttl } => {
            writeln!(text, "at {revision}: {ttl} seconds").unwrap();
        }
        Reply::LeaseRevoke { revision } => writeln!(text, "at {revision}").unwrap(),
        Reply::LeasesUpdated => {}
    }
}

fn write_op(text: &mut String, reply: &OpReply, indent: &str) {
    match reply {
        OpReply::Put(reply) => {
            if let Some(kv) = &reply.prev_kv {
                writeln!(text, "{indent}was {}", format_kv(kv)).unwrap();
            }
            if !indent.is_empty() {
                writeln!(text, "{indent}put").unwrap();
            }
        }
        OpReply::DeleteRange(reply) => {
            for kv in &reply.prev_kvs {
                writeln!(text, "{indent}was {}", format_kv(kv)).unwrap();
            }
            writeln!(text, "{indent}{} deleted", reply.deleted).unwrap();
        }
        OpReply::Range(reply) => write_range_reply(text, reply, indent),
        OpReply::Txn(reply) => {
            let branch = if reply.succeeded { "then" } else { "else" };
            writeln!(text, "{indent}{branch}").unwrap();
            for response in &reply.responses {
                write_op(text, response, &format!("{indent}  "));
            }
        }
    }
}

fn format_range(at: Revision, reply: &RangeReply) -> String {
    let mut text = format!("at {at}\n");
    write_range_reply(&mut text, reply, "");
    text
}

fn write_range_reply(text: &mut String, reply: &RangeReply, indent: &str) {
    for kv in &reply.kvs {
        writeln!(text, "{indent}{}", format_kv(kv)).unwrap();
    }
    let more = if reply.more { ", more" } else { "" };
    writeln!(text, "{indent}count {}{more}", reply.count).unwrap();
}

fn format_kv(kv: &KeyValue) -> String {
    let KeyValue { key, value, create_revision, mod_revision, version, .. } = kv;
    let (key, value) = (key.escape_ascii(), value.escape_ascii());
    format!("{key} = \"{value}\" (create {create_revision}, mod {mod_revision}, version {version})")
}
