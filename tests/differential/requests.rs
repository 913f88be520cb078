//! Random requests, as lines of a script. Keys, values, leases and watches are few, so that they
//! interact.

use std::{collections::BTreeSet, fmt::Write as _};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
    strategy::Union,
};

/// One request, or several that belong together.
#[derive(Debug, Clone)]
pub enum Step {
    /// The answer does not depend on the progress of watches.
    Line(String),
    /// Must follow a catch-up of all watches: it may remove events that they still need.
    Settled(String),
    /// On a watch stream of this name.
    Watch(&'static str, String),
    /// The same, after a catch-up of its watches.
    SettledWatch(&'static str, String),
}

/// The weight of a step, and its strategy.
type Weighted = Vec<(u32, BoxedStrategy<Step>)>;

/// A sequence as a script without answers.
pub fn script(steps: &[Step]) -> String {
    let mut text = String::from("del '\\0' from\nrevoke 1\nrevoke 2\nrevoke 3\n");
    let mut streams = BTreeSet::new();
    for step in steps {
        if matches!(step, Step::Settled(_) | Step::SettledWatch(..)) {
            settle(&mut text, &streams);
        }
        match step {
            Step::Line(line) | Step::Settled(line) => writeln!(text, "{line}").unwrap(),
            Step::Watch(stream, line) | Step::SettledWatch(stream, line) => {
                streams.insert(*stream);
                writeln!(text, "{stream}: {line}").unwrap();
            }
        }
    }
    settle(&mut text, &streams);
    text + "get '\\0' from\nttl 1 keys\nttl 2 keys\nttl 3 keys\n---\n"
}

fn settle(text: &mut String, streams: &BTreeSet<&str>) {
    for stream in streams {
        writeln!(text, "{stream}: events").unwrap();
    }
}

// ---------------------------------------------------------------- keys

/// Puts, reads, deletions, transactions, compactions.
pub fn keys() -> Weighted {
    vec![
        (30, put(true).prop_map(Step::Line).boxed()),
        (30, range().prop_map(Step::Line).boxed()),
        (15, delete().prop_map(Step::Line).boxed()),
        (30, txn().prop_map(Step::Line).boxed()),
        (4, compact().prop_map(Step::Settled).boxed()),
        (1, Just(Step::Line("hashkv 0".into())).boxed()),
    ]
}

/// An option of a request, mostly absent.
fn optional(part: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    prop_oneof![4 => Just(String::new()), 1 => part.prop_map(|part| format!(" {part}"))].boxed()
}

fn flag(name: &'static str) -> BoxedStrategy<String> {
    optional(Just(name.to_owned()))
}

fn joined(parts: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
    parts.prop_map(|parts| parts.concat()).boxed()
}

fn key() -> BoxedStrategy<String> {
    let some = select(vec!["a", "aa", "ab", "b", "c"]).prop_map(String::from);
    prop_oneof![60 => some, 1 => Just("''".to_owned())].boxed()
}

fn key_range() -> BoxedStrategy<String> {
    let ends = select(vec!["ab", "b", "c", "d", "a", "'\\0'", "''"]);
    let end = prop_oneof![
        4 => Just(String::new()),
        3 => ends.prop_map(|end| format!(" end={end}")),
        1 => Just(" from".to_owned()),
    ];
    let start = prop_oneof![6 => key(), 1 => Just("'\\0'".to_owned())];
    joined(vec![start.boxed(), end.boxed()])
}

fn value() -> BoxedStrategy<String> {
    select(vec!["1", "2", "3", "x", "''"]).prop_map(String::from).boxed()
}

/// Revisions mostly near the present.
fn revision() -> BoxedStrategy<String> {
    prop_oneof![
        8 => (0..8).prop_map(|back| format!("'now-{back}'")),
        1 => (1..3).prop_map(|ahead| format!("'now+{ahead}'")),
        1 => select(vec!["0", "1", "'-1'", "9223372036854775807", "'-9223372036854775808'"])
            .prop_map(String::from),
    ]
    .boxed()
}

fn at(name: &'static str) -> BoxedStrategy<String> {
    optional(revision().prop_map(move |revision| format!("{name}={revision}")))
}

fn lease() -> BoxedStrategy<String> {
    (1..4).prop_map(|id| format!("lease={id}")).boxed()
}

/// In a transaction that deletes, a put with `ignore_value` or `ignore_lease` can make etcd panic:
/// etcd checks the key before the transaction and needs it within.
fn put(may_keep: bool) -> BoxedStrategy<String> {
    let usual = joined(vec![
        Just("put ".to_owned()).boxed(),
        key(),
        Just(" ".to_owned()).boxed(),
        value(),
        optional(lease()),
        flag("prev_kv"),
    ]);
    if !may_keep {
        return usual;
    }
    let keeping = joined(vec![
        Just("put ".to_owned()).boxed(),
        key(),
        prop_oneof![4 => Just(" ''".to_owned()), 1 => value().prop_map(|v| format!(" {v}"))]
            .boxed(),
        select(vec![" ignore_value", " ignore_lease", " ignore_value ignore_lease"])
            .prop_map(String::from)
            .boxed(),
        optional(lease()),
        flag("prev_kv"),
    ]);
    prop_oneof![6 => usual, 1 => keeping].boxed()
}

fn delete() -> BoxedStrategy<String> {
    joined(vec![Just("del ".to_owned()).boxed(), key_range(), flag("prev_kv")])
}

fn range() -> BoxedStrategy<String> {
    let sort = select(vec!["key", "version", "create", "mod", "value", "key", "5"]);
    let order = select(vec!["asc", "desc", "asc", "desc", "asc", "desc", "order=3"]);
    let limit = select(vec!["0", "1", "2", "3", "5", "'-1'", "9223372036854775807"]);
    joined(vec![
        Just("get ".to_owned()).boxed(),
        key_range(),
        at("rev"),
        optional(limit.prop_map(|limit| format!("limit={limit}"))),
        optional(sort.prop_map(|sort| format!("sort={sort}"))),
        optional(order.prop_map(String::from)),
        flag("keys_only"),
        flag("count_only"),
        flag("serializable"),
        at("min_mod"),
        at("max_mod"),
        at("min_create"),
        at("max_create"),
    ])
}

fn compact() -> BoxedStrategy<String> {
    joined(vec![Just("compact ".to_owned()).boxed(), revision(), flag("physical")])
}

// ---------------------------------------------------------------- transactions

#[derive(Debug, Clone)]
struct Txn {
    compares: Vec<String>,
    then: Vec<Op>,
    otherwise: Vec<Op>,
}

#[derive(Debug, Clone)]
enum Op {
    Line(String),
    Nested(Txn),
}

fn txn() -> BoxedStrategy<String> {
    const DEPTH: usize = 2;
    let tree = prop_oneof![2 => nested(DEPTH, true), 1 => nested(DEPTH, false)];
    tree.prop_map(|txn| {
        let mut text = String::new();
        let args = txn.arguments(&mut text, &mut 0);
        text + "txn" + &args
    })
    .boxed()
}

fn nested(depth: usize, deletes: bool) -> BoxedStrategy<Txn> {
    let ops = vec(op(depth, deletes), 0..4).boxed();
    (vec(comparison(), 0..3), ops.clone(), ops)
        .prop_map(|(compares, then, otherwise)| Txn { compares, then, otherwise })
        .boxed()
}

fn op(depth: usize, deletes: bool) -> BoxedStrategy<Op> {
    let mut kinds = vec![
        (40, put(!deletes).prop_map(Op::Line).boxed()),
        (40, range().prop_map(Op::Line).boxed()),
        (1, Just(Op::Line("nothing".into())).boxed()),
    ];
    if deletes {
        kinds.push((20, delete().prop_map(Op::Line).boxed()));
    }
    if depth > 0 {
        kinds.push((15, nested(depth - 1, deletes).prop_map(Op::Nested).boxed()));
    }
    Union::new_weighted(kinds).boxed()
}

fn comparison() -> BoxedStrategy<String> {
    let keys = prop_oneof![
        6 => select(vec!["a", "aa", "ab", "b", "c", "x"]),
        3 => select(vec!["a..b", "a..", "b..d", "c..a", "x.."]),
        1 => Just(""),
    ];
    let number = prop_oneof![
        3 => (-1..5_i64).prop_map(|n| n.to_string()),
        1 => (0..6).prop_map(|back| format!("now-{back}")),
    ];
    let number = (select(vec!["version", "create", "mod", "lease"]), number.boxed());
    let value = (Just("value"), select(vec!["1", "2", "x", ""]).prop_map(String::from).boxed());
    let odd = select(vec!["value/none", "version/none", "create/mod", "lease/value"]);
    let what = prop_oneof![6 => number, 3 => value, 1 => (odd, Just("1".to_owned()).boxed())];
    (what, keys, select(vec!["=", "!=", ">", "<"]))
        .prop_map(|((target, than), keys, sign)| format!("{target}({keys}){sign}{than}"))
        .boxed()
}

impl Txn {
    /// The arguments. Nested transactions are defined first.
    fn arguments(&self, defined: &mut String, names: &mut usize) -> String {
        let mut text = String::new();
        for compare in &self.compares {
            write!(text, " if=\"{compare}\"").unwrap();
        }
        for (branch, ops) in [("then", &self.then), ("else", &self.otherwise)] {
            for op in ops {
                let op = match op {
                    Op::Line(line) => line.clone(),
                    Op::Nested(txn) => {
                        let args = txn.arguments(defined, names);
                        *names += 1;
                        writeln!(defined, "define t{names}{args}").unwrap();
                        format!("txn t{names}")
                    }
                };
                write!(text, " {branch}=\"{op}\"").unwrap();
            }
        }
        text
    }
}

// ---------------------------------------------------------------- leases

pub fn leases() -> Weighted {
    let grant = (select(vec![100, 200, 300]), 1..4);
    let leased = (key(), value(), lease());
    vec![
        (20, grant.prop_map(|(ttl, id)| Step::Line(format!("grant {ttl} id={id}"))).boxed()),
        (10, (1..4).prop_map(|id| Step::Line(format!("revoke {id}"))).boxed()),
        (10, (1..4).prop_map(|id| Step::Line(format!("ttl {id} keys"))).boxed()),
        (4, (1..4).prop_map(|id| Step::Line(format!("ttl {id}"))).boxed()),
        (4, (1..4, 1..4).prop_map(|(a, b)| Step::Line(format!("keepalive {a} {b}"))).boxed()),
        (4, Just(Step::Line("leases".into())).boxed()),
        (30, leased.prop_map(|(k, v, l)| Step::Line(format!("put {k} {v} {l}"))).boxed()),
    ]
}

// ---------------------------------------------------------------- watches

const STREAMS: [&str; 2] = ["s1", "s2"];

pub fn watches() -> Weighted {
    let on = |line: BoxedStrategy<String>| (select(STREAMS.to_vec()), line);
    let events = Just("events".to_owned()).boxed();
    let cancel = select(vec![0, 1, 2, 5]).prop_map(|id| format!("cancel {id}")).boxed();
    let progress = Just("progress".to_owned()).boxed();
    vec![
        (40, on(watch()).prop_map(|(stream, line)| Step::Watch(stream, line)).boxed()),
        (10, on(events).prop_map(|(stream, line)| Step::Watch(stream, line)).boxed()),
        (8, on(cancel).prop_map(|(stream, line)| Step::SettledWatch(stream, line)).boxed()),
        (3, on(progress).prop_map(|(stream, line)| Step::SettledWatch(stream, line)).boxed()),
    ]
}

fn watch() -> BoxedStrategy<String> {
    let options = vec!["prev_kv", "noput", "nodelete", "fragment"];
    let options = subsequence(options, 0..3)
        .prop_map(|some| some.iter().map(|option| format!(" {option}")).collect::<String>());
    joined(vec![
        Just("watch ".to_owned()).boxed(),
        key_range(),
        at("rev"),
        optional(select(vec!["id=0", "id=1", "id=2", "id=5"]).prop_map(String::from)),
        options.boxed(),
    ])
}
