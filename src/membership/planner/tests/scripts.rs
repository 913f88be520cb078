//! Runs the scripts of `tests/scripts/membership`: one row of pains, or one rule, a file.
//!
//! A member is named by its ordinal; where a place has had several lives, an older or newer one is
//! `ORDINAL@ID`, the id in hexadecimal. The first life of ordinal n has the id n + 1; the lives that
//! `join` begins are 64, 65 and so on.
//!
//! | | |
//! |---|---|
//! | `voters N...` | a cluster of these; the first leads; all is committed, and five may vote |
//! | `learners N...`, `join N...` | members that have caught up; new lives that have not |
//! | `want REPLICAS [start=N]`, `want all`, `max N` | what is desired |
//! | `lead N` | leads now |
//! | `gone N...`, `behind N...`, `well N...` | how members are; all are well at first |
//! | `incoming N...`, `outgoing N...` | have a vote in only that set |
//! | `remove N...` | somebody told them to leave |
//! | `committed`, `uncommitted` | the last membership entry |
//! | `plan` | the plan, without doing it |
//! | `run` | does what is planned until nothing is, and who votes and learns then |
//! | `losses`, `stop N` | what could be lost; whether this one may stop |

use std::{error::Error, fmt::Write as _, path::Path};

use goldenscript::{Command as Line, Context};

use super::{
    super::{Member, Plan, Situation, Step, may_stop, plan, tolerates},
    after,
};
use crate::types::{Desired, MemberId, Ordinal, PeerPlace};

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
    now: Situation,
    newest: u64,
}

impl Default for Script {
    fn default() -> Self {
        let now = Situation {
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
                self.now.me = self.find(first()?)?.place.member;
            }
            "learners" => names.iter().try_for_each(|name| self.add(name, false))?,
            "join" => names.iter().try_for_each(|name| self.join(name))?,
            "want" if first()? == "all" => self.now.desired = None,
            "want" => {
                let replicas = first()?.parse()?;
                let set = "kv".into();
                self.now.desired = Some(Desired { set, generation: 1, start, replicas });
            }
            "max" => self.now.max_voters = first()?.parse()?,
            "lead" => self.now.me = self.find(first()?)?.place.member,
            "gone" => self.each(&names, |m| (m.in_contact, m.caught_up) = (false, false))?,
            "behind" => self.each(&names, |m| (m.in_contact, m.caught_up) = (true, false))?,
            "well" => self.each(&names, |m| (m.in_contact, m.caught_up) = (true, true))?,
            "remove" => self.each(&names, |m| m.told_to_leave = true)?,
            "incoming" => self.each(&names, |m| (m.old_voter, m.new_voter) = (false, true))?,
            "outgoing" => self.each(&names, |m| (m.old_voter, m.new_voter) = (true, false))?,
            "committed" | "uncommitted" => self.now.committed = line.name == "committed",
            "plan" => return Ok(self.say(&plan(&self.now)) + "\n"),
            "run" => return self.play(),
            "losses" => return Ok(format!("{:?}\n", tolerates(&self.now))),
            "stop" => {
                let member = self.find(first()?)?.place.member;
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
        let place =
            PeerPlace { member: MemberId(u64::from(ordinal) + 1), ordinal: Ordinal(ordinal) };
        self.now.members.push(member(place, votes));
        Ok(())
    }

    /// The pod has a new volume. What lived there before is out of contact.
    fn join(&mut self, name: &str) -> Outcome<()> {
        let ordinal = Ordinal(name.parse()?);
        for old in self.now.members.iter_mut().filter(|m| m.place.ordinal == ordinal) {
            (old.in_contact, old.caught_up) = (false, false);
        }
        self.newest += 1;
        let new = member(PeerPlace { member: MemberId(self.newest), ordinal }, false);
        self.now.members.push(Member { caught_up: false, ..new });
        Ok(())
    }

    fn find(&mut self, name: &str) -> Outcome<&mut Member> {
        let (ordinal, id) = name.split_once('@').map_or((name, None), |(o, id)| (o, Some(id)));
        let ordinal = Ordinal(ordinal.parse()?);
        let id = id.map(|id| u64::from_str_radix(id, 16).map(MemberId)).transpose()?;
        let lives = self.now.members.iter_mut().filter(|m| m.place.ordinal == ordinal);
        let found = lives.filter(|m| id.is_none_or(|id| id == m.place.member));
        Ok(found.max_by_key(|m| m.place.member).ok_or("there is no such member")?)
    }

    fn each(&mut self, names: &[&str], change: impl Fn(&mut Member)) -> Outcome<()> {
        names.iter().try_for_each(|name| self.find(name).map(&change))
    }

    fn play(&mut self) -> Outcome<String> {
        let mut said = String::new();
        for _ in 0..10 {
            let next = plan(&self.now);
            writeln!(said, "{}", self.say(&next))?;
            let Plan::Do(step) = next else {
                let of = |votes| self.now.members.iter().filter(move |m| m.new_voter == votes);
                let (voters, learners) = (self.places(of(true)), self.places(of(false)));
                writeln!(said, "voters{voters}, learners{learners}")?;
                return Ok(said);
            };
            self.now = after(&self.now, &step);
        }
        Err(format!("it does not come to an end:\n{said}").into())
    }

    fn say(&self, plan: &Plan) -> String {
        let members = |ids: &std::collections::BTreeSet<MemberId>| {
            self.places(self.now.members.iter().filter(|m| ids.contains(&m.place.member)))
        };
        match plan {
            Plan::Settled => "settled".into(),
            Plan::Wait(waiting) => format!("wait: {waiting}"),
            Plan::Do(Step::FinishJoint) => "finish joint".into(),
            Plan::Do(Step::Remove(gone)) => format!("remove{}", members(gone)),
            Plan::Do(Step::HandOver { to }) => format!("hand over to{}", members(&[*to].into())),
            Plan::Do(Step::ChangeVoters { add, remove }) => {
                format!("change voters: add{}, remove{}", members(add), members(remove))
            }
        }
    }

    /// With the id where it is not the first life of its place.
    fn places<'a>(&self, members: impl Iterator<Item = &'a Member>) -> String {
        let mut places: Vec<PeerPlace> = members.map(|m| m.place).collect();
        places.sort_by_key(|p| (p.ordinal, p.member));
        let name = |p: &PeerPlace| match p.member.0 {
            id if id == u64::from(p.ordinal.0) + 1 => format!(" {}", p.ordinal),
            _ => format!(" {}@{}", p.ordinal, p.member),
        };
        if places.is_empty() { " none".into() } else { places.iter().map(name).collect() }
    }
}

fn member(place: PeerPlace, votes: bool) -> Member {
    Member {
        place,
        old_voter: votes,
        new_voter: votes,
        in_contact: true,
        caught_up: true,
        told_to_leave: false,
    }
}
