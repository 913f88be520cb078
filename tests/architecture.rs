//! Holds the sources to their layers: who may import whom, which layer alone knows which
//! dependency, what the deterministic layers must not touch, and how a file opens.
//!
//! `ARCHITECTURE.md` shows the same layers to people; the last test compares the two.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What each top-level module imports, no more and no less. A module imports only what stands
/// below it, so there are no circles.
const LAYERS: &[(&str, &[&str])] = &[
    ("bin", &["server", "config", "ctl"]),
    // The composition root: the one place that knows how the parts are put together.
    (
        "server",
        &[
            "api",
            "peer",
            "membership",
            "k8s",
            "metrics",
            "node",
            "raft",
            "watch",
            "storage",
            "wal",
            "state",
            "proto",
            "config",
            "disk",
            "clock",
            "fault",
            "lane",
            "rng",
            "stop",
            "types",
        ],
    ),
    ("ctl", &["client", "proto", "lane"]),
    ("client", &["proto"]),
    ("api", &["node", "watch", "proto", "stop", "types"]),
    // `config` for the bound on a request, which a message between members must hold.
    (
        "peer",
        &["membership", "node", "raft", "proto", "config", "lane", "metrics", "stop", "types"],
    ),
    ("k8s", &["membership", "clock", "metrics", "stop", "types"]),
    ("membership", &["node", "raft", "proto", "disk", "clock", "lane", "rng", "stop", "types"]),
    ("node", &["raft", "state", "proto", "fault", "lane", "metrics", "rng", "stop", "types"]),
    ("raft", &["state", "wal", "proto", "fault", "lane", "metrics", "stop", "types"]),
    ("watch", &["state", "proto", "fault", "lane", "types"]),
    ("storage", &["state", "disk", "fault", "lane", "metrics", "types"]),
    ("wal", &["disk", "fault", "lane", "metrics", "types"]),
    ("state", &["types"]),
    ("proto", &["types"]),
    ("config", &[]),
    ("disk", &[]),
    ("clock", &[]),
    ("fault", &[]),
    ("lane", &[]),
    ("metrics", &[]),
    ("rng", &[]),
    ("stop", &[]),
    ("types", &[]),
];

/// Dependencies that only some layers may know, so that they can be replaced there.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("sled", &["storage"]),
    // `ctl` knows gRPC's codes, for its messages.
    ("tonic", &["server", "peer", "api", "client", "ctl", "proto"]),
    // `server` in a test of its own, which parses a command line.
    ("clap", &["bin", "config", "ctl", "server"]),
    ("clap_mangen", &["ctl"]),
    ("indicatif", &["ctl"]),
    ("ratatui", &["ctl"]),
    // `k8s` in its tests, for an API server.
    ("axum", &["server", "api", "k8s"]),
    ("kube", &["k8s"]),
    ("k8s_openapi", &["k8s"]),
    ("getrandom", &["rng"]),
    ("opentelemetry", &["server"]),
];

/// Layers whose answers depend on nothing but their input, on every member, for ever.
const DETERMINISTIC: &[&str] = &["state", "types"];
/// What they must not touch: other threads' timing, the time, chance, unordered maps, the world.
const UNCERTAIN: &[&str] = &[
    "async",
    "await",
    "tokio",
    "SystemTime",
    "Instant",
    "HashMap",
    "HashSet",
    "rand",
    "getrandom",
    "thread",
    "fs",
    "net",
    "env",
];

/// Names that say nothing of what is in a file.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

// ---------------------------------------------------------------- reading sources

/// One source file of the package.
struct Source {
    /// Below `src`, as `wal/log.rs`.
    path: PathBuf,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    /// The top-level module that the file belongs to.
    fn layer(&self) -> String {
        let first = self.path.components().next().unwrap().as_os_str();
        Path::new(first).file_stem().unwrap().to_string_lossy().into_owned()
    }

    fn stem(&self) -> &str {
        self.path.file_stem().unwrap().to_str().unwrap()
    }

    /// How many modules lead from the crate's root to this file's.
    fn depth(&self) -> usize {
        self.path.components().count() - usize::from(self.stem() == "mod")
    }

    /// Tests may use threads and files where the code must not, and need no head.
    fn is_test(&self) -> bool {
        self.stem().ends_with("tests")
            || self.stem().ends_with("_test")
            || self.path.iter().any(|dir| dir == "tests")
    }

    fn words(&self) -> BTreeSet<String> {
        tokens(&self.text).into_iter().filter(|t| is_word(t)).collect()
    }

    /// The top-level modules that the file names: after `crate::`, after enough `super::` to reach
    /// the root, or in a binary after the library's name.
    fn imports(&self) -> BTreeSet<String> {
        let tokens = tokens(&self.text);
        let mut found = BTreeSet::new();
        let mut blocks: Vec<bool> = Vec::new(); // for each open brace: does it open a module?
        for at in 0..tokens.len() {
            match tokens[at].as_str() {
                "{" => blocks.push(at >= 2 && tokens[at - 2] == "mod"),
                "}" => drop(blocks.pop()),
                "ordinal" if self.layer() != "bin" => {}
                "crate" | "ordinal" => heads(&tokens[at + 1..], &mut found),
                "super" if at < 2 || tokens[at - 2] != "super" => {
                    let rest = &tokens[at..];
                    let up = rest
                        .chunks(2)
                        .take_while(|pair| pair.first().is_some_and(|t| t == "super"))
                        .count();
                    let inline = blocks.iter().filter(|is_module| **is_module).count();
                    if up >= self.depth() + inline {
                        heads(&rest[2 * up - 1..], &mut found);
                    }
                }
                _ => {}
            }
        }
        found.remove(&self.layer());
        found
    }
}

/// All files below `src`.
#[expect(clippy::disallowed_methods, reason = "a test reads its own sources")]
fn sources() -> Vec<Source> {
    let (mut folders, mut all) = (vec![PathBuf::from("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push(Source { path: path.strip_prefix("src").unwrap().into(), text });
            }
        }
    }
    all.retain(|source| source.path != Path::new("lib.rs"));
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Words, `::`, and single other characters; without comments, texts and characters.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let raw = rest.trim_start_matches('b').strip_prefix('r');
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw.map(|r| r.len() - r.trim_start_matches('#').len())
            && raw.is_some_and(|r| r[hashes..].starts_with('"'))
        {
            let open = rest.find('"').unwrap() + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            open + rest[open..].find(&close).unwrap() + close.len()
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && !is_lifetime(rest) {
            quoted(rest, '\'')
        } else if is_word(rest) {
            let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            tokens.push(rest[..len].to_string());
            len
        } else if rest.starts_with("::") {
            tokens.push("::".to_string());
            2
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[len..];
    }
    tokens
}

/// The length of a text that begins and ends with `quote`.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    panic!("a text does not end")
}

/// `'a` and `'static`, but not `'a'`.
fn is_lifetime(rest: &str) -> bool {
    let mut after = rest.chars().skip(1);
    after.next().is_some_and(|c| c.is_alphabetic() || c == '_') && after.next() != Some('\'')
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// What a path goes on with: `::a::b` with `a`, and `::{a::b, c::{d, e}}` with `a` and `c`.
fn heads(after: &[String], found: &mut BTreeSet<String>) {
    match after {
        [colons, open, group @ ..] if colons == "::" && open == "{" => {
            let (mut depth, mut first) = (0, true);
            for token in group {
                match token.as_str() {
                    "}" if depth == 0 => return,
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    "," if depth == 0 => first = true,
                    head if first => {
                        found.insert(head.to_string());
                        first = false;
                    }
                    _ => {}
                }
            }
        }
        [colons, head, ..] if colons == "::" => drop(found.insert(head.clone())),
        _ => {}
    }
}

// ---------------------------------------------------------------- judging them

/// Imports that the table does not allow.
fn forbidden_imports(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let layer = source.layer();
        let Some(at) = LAYERS.iter().position(|(name, _)| *name == layer) else {
            wrong.push(format!("{}: `{layer}` is no layer of the table", source.path.display()));
            continue;
        };
        let (allowed, below) = (LAYERS[at].1, &LAYERS[at + 1..]);
        for import in source.imports() {
            // A test puts real parts together where the code sees a port: anything that stands below.
            let tests = source.is_test() && below.iter().any(|(name, _)| *name == import);
            if !tests && !allowed.contains(&import.as_str()) {
                let path = source.path.display();
                wrong.push(format!("{path}: `{layer}` must not import `{import}`"));
            }
        }
    }
    wrong
}

/// Dependencies that are named outside the layers that may know them.
fn stray_dependencies(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let words = source.words();
        for (dependency, layers) in KEPT_IN {
            let layer = source.layer();
            if words.iter().any(|word| is_of(word, dependency)) && !layers.contains(&layer.as_str())
            {
                let path = source.path.display();
                wrong.push(format!("{path}: `{layer}` must not know `{dependency}`"));
            }
        }
    }
    wrong
}

/// `tonic` and its companions, `tonic_health` and the like.
fn is_of(word: &str, dependency: &str) -> bool {
    word.strip_prefix(dependency).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

fn uncertainties(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        if DETERMINISTIC.contains(&source.layer().as_str()) && !source.is_test() {
            for word in source.words().iter().filter(|word| UNCERTAIN.contains(&word.as_str())) {
                wrong.push(format!("{}: `{word}` in a deterministic layer", source.path.display()));
            }
        }
    }
    wrong
}

fn unnamed_or_headless(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let path = source.path.display();
        if EMPTY_NAMES.contains(&source.stem()) {
            wrong.push(format!("{path}: the name does not say what is in it"));
        }
        if !source.is_test() && !source.text.starts_with("//!") {
            wrong.push(format!("{path}: does not open with `//!` and what it is for"));
        }
    }
    wrong
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

// ---------------------------------------------------------------- the tests

#[test]
fn imports_point_downward() {
    assert_none(&forbidden_imports(&sources()));
}

#[test]
fn the_table_has_no_circles_and_no_arrow_too_many() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        used.entry(source.layer()).or_default().extend(source.imports());
    }
    let mut wrong = Vec::new();
    for (at, (layer, imports)) in LAYERS.iter().enumerate() {
        let Some(used) = used.get(*layer) else {
            wrong.push(format!("`{layer}` is in the table and not in src"));
            continue;
        };
        for import in *imports {
            if !LAYERS[at + 1..].iter().any(|(below, _)| below == import) {
                wrong.push(format!("`{import}` does not stand below `{layer}`"));
            }
            if !used.contains(*import) {
                wrong.push(format!("`{layer}` may import `{import}` and does not: take it out"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn each_dependency_stays_in_its_layers() {
    assert_none(&stray_dependencies(&sources()));
}

#[test]
fn deterministic_layers_touch_nothing_uncertain() {
    assert_none(&uncertainties(&sources()));
}

#[test]
fn every_file_has_a_telling_name_and_head() {
    assert_none(&unnamed_or_headless(&sources()));
}

#[test]
fn the_map_shows_the_layers_of_the_table() {
    let map = std::fs::read_to_string("ARCHITECTURE.md").unwrap();
    let mut wrong = Vec::new();
    for (layer, imports) in LAYERS {
        let quoted: Vec<_> = imports.iter().map(|import| format!("`{import}`")).collect();
        let shown = if quoted.is_empty() { "–".to_string() } else { quoted.join(" ") };
        let row = format!("| `{layer}` | {shown} |");
        if !map.lines().any(|line| line.starts_with(&row)) {
            wrong.push(format!("ARCHITECTURE.md has no row that begins with: {row}"));
        }
    }
    assert_none(&wrong);
}

// ---------------------------------------------------------------- the checks can fail

#[test]
fn the_checker_sees_every_way_to_name_a_module() {
    let source = Source::new(
        "wal/deep/log.rs",
        r##"//! Mentions crate::api here, to no effect.
        use crate::{disk::{Disk, File}, types::Revision, lane};
        use super::super::super::node::Node;
        use super::{segment, super::frames};
        fn f<'a>(x: &'a str) -> char {
            let _ = crate::fault::Fault::default();
            let _ = "crate::ctl"; let _ = r#"crate::client " "#; let _ = b"crate::raft";
            '"'
        }
        mod tests { use super::super::super::super::rng::Rng; use super::super::super::near; }
        "##,
    );
    let expected = ["disk", "fault", "lane", "node", "rng", "types"];
    assert_eq!(source.imports().into_iter().collect::<Vec<_>>(), expected);

    let binary = Source::new("bin/kvd.rs", "use ordinal::{config::Dev, server};");
    assert_eq!(binary.imports().into_iter().collect::<Vec<_>>(), ["config", "server"]);
}

#[test]
fn the_checker_refuses_what_the_rules_forbid() {
    let upward =
        [Source::new("state/mod.rs", "//! S.\nuse crate::{node, types};\nuse super::wal;")];
    assert_eq!(
        forbidden_imports(&upward),
        [
            "state/mod.rs: `state` must not import `node`",
            "state/mod.rs: `state` must not import `wal`"
        ]
    );
    let unknown = [Source::new("extra.rs", "//! E.\n")];
    assert_eq!(forbidden_imports(&unknown), ["extra.rs: `extra` is no layer of the table"]);

    let stray =
        [Source::new("node/mod.rs", "//! openraft\nuse openraft::Raft; use tonic_health::x;")];
    assert_eq!(
        stray_dependencies(&stray),
        [
            "node/mod.rs: `node` must not know `openraft`",
            "node/mod.rs: `node` must not know `tonic`"
        ]
    );

    let clocked =
        "//! T.\nuse std::collections::HashMap; // not Instant\nfn now() { Instant::now() }";
    assert_eq!(
        uncertainties(&[
            Source::new("types/kv.rs", clocked),
            Source::new("types/tests.rs", clocked)
        ]),
        [
            "types/kv.rs: `HashMap` in a deterministic layer",
            "types/kv.rs: `Instant` in a deterministic layer"
        ]
    );

    assert_eq!(
        unnamed_or_headless(&[Source::new("node/util.rs", "use crate::types;")]),
        [
            "node/util.rs: the name does not say what is in it",
            "node/util.rs: does not open with `//!` and what it is for"
        ]
    );
}
