//! Runs the scripts of `tests/scripts/membership`: one row of `docs/pains.md`, or one rule, a file.
//!
//! A member is named by its ordinal, or, where an ordinal has several incarnations, by `ORDINAL@ID`
//! with a hexadecimal id. The first incarnation at ordinal n has the id n + 1; `join` assigns 64, 65
//! and so on.
//!
//! | | |
//! |---|---|
//! | `voters N...` | a new cluster; the first member leads; no change is uncommitted; at most five voters |
//! | `learners N...`, `join N...` | caught-up learners; new incarnations that are behind |
//! | `want REPLICAS [start=N]`, `want all`, `max N` | the desired replicas, and the limit on voters |
//! | `lead N` | makes this member the leader |
//! | `down N...`, `behind N...`, `up N...` | out of contact; in contact and behind; caught up (the initial state) |
//! | `late N...`, `stalled N...` | caught up, but the newest entries are overdue; the disk hangs |
//! | `incoming N...`, `outgoing N...` | members that vote in only that set |
//! | `remove N...` | members that an operator removes |
//! | `committed`, `uncommitted` | the state of the last membership entry |
//! | `plan` | prints the plan without executing it |
//! | `run` | executes plans until no step is due, then prints the voters and learners |
//! | `losses`, `stop N` | the tolerated losses; whether this member may stop |

use std::{error::Error, fmt::Write as _, path::Path};

use goldenscript::{Command as Line, Context};

use super::{
    super::{Member, Observed, Plan, Step, may_stop, plan, tolerates},
    apply,
};
use crate::types::{DesiredReplicas, MemberId, MemberRef, Ordinal};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[test]
fn scripts_answer_as_recorded() {
    let dir = Path::new("tests/scripts/membership");
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
    now: Observed,
    newest: u64,
}

impl Default for Script {
    fn default() -> Self {
        let now = Observed {
            me: MemberId(0),
            members: Vec::new(),
            committed: true,
            desired: None,
            max_voters: 5,
        };
        Script { now, newest: 0x63 }
    }
}

impl goldenscript::Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Outcome<String> {
        let mut args = line.consume_args();
        let start = args.take_key("start").map_or(Ok(0), str::parse)?;
        let names: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
        args.reject_next()?;
        let first = || names.first().copied().ok_or("an argument is missing");
        match line.name.as_str() {
            "voters" => {
                *self = Script::default();
                names.iter().try_for_each(|name| self.add(name, true))?;
                self.now.me = self.find(first()?)?.id();
            }
            "learners" => names.iter().try_for_each(|name| self.add(name, false))?,
            "join" => names.iter().try_for_each(|name| self.join(name))?,
            "want" if first()? == "all" => self.now.desired = None,
            "want" => {
                let replicas = first()?.parse()?;
                let set = "kv".into();
                self.now.desired = Some(DesiredReplicas { set, generation: 1, start, replicas });
            }
            "max" => self.now.max_voters = first()?.parse()?,
            "lead" => self.now.me = self.find(first()?)?.id(),
            "down" => self.each(&names, |m| *m = Member { in_contact: false, ..behind(*m) })?,
            "behind" => self.each(&names, |m| *m = behind(*m))?,
            "late" => self.each(&names, |m| *m = Member { caught_up: true, ..behind(*m) })?,
            "stalled" => self.each(&names, |m| *m = Member { stalled: true, ..behind(*m) })?,
            "up" => self.each(&names, |m| *m = caught_up(*m))?,
            "remove" => self.each(&names, |m| m.removal_requested = true)?,
            "incoming" => self.each(&names, |m| (m.old_voter, m.new_voter) = (false, true))?,
            "outgoing" => self.each(&names, |m| (m.old_voter, m.new_voter) = (true, false))?,
            "committed" | "uncommitted" => self.now.committed = line.name == "committed",
            "plan" => return Ok(self.describe(&plan(&self.now)) + "\n"),
            "run" => return self.play(),
            "losses" => return Ok(format!("{:?}\n", tolerates(&self.now))),
            "stop" => {
                let member = self.find(first()?)?.id();
                return Ok(format!("{}\n", may_stop(&self.now, member)));
            }
            name => return Err(format!("there is no command {name}").into()),
        }
        Ok(String::new())
    }
}

impl Script {
    fn add(&mut self, name: &str, votes: bool) -> Outcome<()> {
        let ordinal: u32 = name.parse()?;
        let member_ref =
            MemberRef { member: MemberId(u64::from(ordinal) + 1), ordinal: Ordinal(ordinal) };
        self.now.members.push(member(member_ref, votes));
        Ok(())
    }

    /// The pod has a new volume; its earlier incarnations are out of contact.
    fn join(&mut self, name: &str) -> Outcome<()> {
        let ordinal = Ordinal(name.parse()?);
        for old in self.now.members.iter_mut().filter(|m| m.ordinal() == ordinal) {
            *old = Member { in_contact: false, ..behind(*old) };
        }
        self.newest += 1;
        let new = member(MemberRef { member: MemberId(self.newest), ordinal }, false);
        self.now.members.push(behind(new));
        Ok(())
    }

    fn find(&mut self, name: &str) -> Outcome<&mut Member> {
        let (ordinal, id) = name.split_once('@').map_or((name, None), |(o, id)| (o, Some(id)));
        let ordinal = Ordinal(ordinal.parse()?);
        let id = id.map(|id| u64::from_str_radix(id, 16).map(MemberId)).transpose()?;
        let incarnations = self.now.members.iter_mut().filter(|m| m.ordinal() == ordinal);
        let found = incarnations.filter(|m| id.is_none_or(|id| id == m.id()));
        Ok(found.max_by_key(|m| m.id()).ok_or("there is no such member")?)
    }

    fn each(&mut self, names: &[&str], change: impl Fn(&mut Member)) -> Outcome<()> {
        names.iter().try_for_each(|name| self.find(name).map(&change))
    }

    fn play(&mut self) -> Outcome<String> {
        let mut output = String::new();
        for _ in 0..10 {
            let next = plan(&self.now);
            writeln!(output, "{}", self.describe(&next))?;
            let Plan::Do(step) = next else {
                let of = |votes| self.now.members.iter().filter(move |m| m.new_voter == votes);
                let (voters, learners) = (self.ordinals(of(true)), self.ordinals(of(false)));
                writeln!(output, "voters{voters}, learners{learners}")?;
                return Ok(output);
            };
            self.now = apply(&self.now, &step);
        }
        Err(format!("the plan does not settle:\n{output}").into())
    }

    fn describe(&self, plan: &Plan) -> String {
        let members = |ids: &std::collections::BTreeSet<MemberId>| {
            self.ordinals(self.now.members.iter().filter(|m| ids.contains(&m.id())))
        };
        match plan {
            Plan::Settled => "settled".into(),
            Plan::Wait(blocked) => format!("wait: {blocked}"),
            Plan::Do(Step::FinishJoint) => "finish joint".into(),
            Plan::Do(Step::Remove(removed)) => format!("remove{}", members(removed)),
            Plan::Do(Step::HandOver { to }) => format!("hand over to{}", members(&[*to].into())),
            Plan::Do(Step::ChangeVoters { add, remove }) => {
                format!("change voters: add{}, remove{}", members(add), members(remove))
            }
        }
    }

    /// With the id, unless it is the first incarnation at its ordinal.
    fn ordinals<'a>(&self, members: impl Iterator<Item = &'a Member>) -> String {
        let mut refs: Vec<MemberRef> = members.map(|m| m.member_ref).collect();
        refs.sort_by_key(|p| (p.ordinal, p.member));
        let name = |p: &MemberRef| match p.member.0 {
            id if id == u64::from(p.ordinal.0) + 1 => format!(" {}", p.ordinal),
            _ => format!(" {}@{}", p.ordinal, p.member),
        };
        if refs.is_empty() { " none".into() } else { refs.iter().map(name).collect() }
    }
}

fn caught_up(member: Member) -> Member {
    Member { in_contact: true, caught_up: true, acks: true, stalled: false, ..member }
}

/// In contact, and not caught up.
fn behind(member: Member) -> Member {
    Member { in_contact: true, caught_up: false, acks: false, stalled: false, ..member }
}

fn member(member_ref: MemberRef, votes: bool) -> Member {
    Member {
        member_ref,
        old_voter: votes,
        new_voter: votes,
        in_contact: true,
        caught_up: true,
        acks: true,
        stalled: false,
        removal_requested: false,
    }
}
