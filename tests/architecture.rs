//! Rules about the sources: the imports of each layer, the layers that may know a dependency, the
//! identifiers that deterministic layers avoid, and the head of each file.
//!
//! `ARCHITECTURE.md` shows the same layers; a test compares the two.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its own sources")]
#![allow(dead_code, reason = "`shape` uses the rest of `sources`")]

mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};

use sources::{
    Source,
    cycles::{Import, cycles},
    functions::{Function, functions},
    paths::names,
    visibility::narrow_visibilities,
};

/// The imports of each top-level module, no more and no less. A module imports only modules below
/// it, so there are no cycles.
const LAYERS: &[(&str, &[&str])] = &[
    ("bin", &["server", "config", "ctl"]),
    // The composition root: only it knows how the parts are put together.
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
            "shutdown",
            "types",
        ],
    ),
    ("ctl", &["client", "proto", "lane"]),
    ("client", &["proto"]),
    ("api", &["node", "watch", "proto", "shutdown", "types"]),
    // `config` for the bound on a request, which a message between members must hold, and for the form of
    // an address.
    (
        "peer",
        &["membership", "node", "raft", "proto", "config", "lane", "metrics", "shutdown", "types"],
    ),
    ("k8s", &["membership", "clock", "metrics", "shutdown", "types"]),
    ("membership", &["node", "raft", "proto", "disk", "clock", "lane", "rng", "shutdown", "types"]),
    ("node", &["raft", "state", "proto", "fault", "lane", "metrics", "rng", "shutdown", "types"]),
    ("raft", &["state", "wal", "proto", "fault", "lane", "metrics", "shutdown", "types"]),
    ("watch", &["state", "proto", "fault", "lane", "metrics", "types"]),
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
    ("shutdown", &[]),
    ("types", &[]),
];

/// Dependencies that only some layers may know, so that they can be replaced there.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("rustix", &["disk"]),
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
    // Connections are accepted and owned in one place. `peer` dials its own, and hands them to tonic.
    ("hyper", &["server", "peer"]),
    ("hyper_util", &["server", "peer"]),
    ("socket2", &["server"]),
    ("tokio_util", &["server"]),
    ("kube", &["k8s"]),
    ("k8s_openapi", &["k8s"]),
    ("getrandom", &["rng"]),
    ("opentelemetry", &["server"]),
];

/// Layers whose results depend only on their input, on every member, for ever.
const DETERMINISTIC: &[&str] = &["state", "types"];
/// Identifiers of nondeterminism: thread timing, time, randomness, unordered maps, I/O.
const NONDETERMINISTIC: &[&str] = &[
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

/// Names that do not describe the contents of a file.
const VAGUE_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

/// A function of more lines is split by meaning.
const FUNCTION_LINES_MAX: usize = 70;

/// Inside of private modules, plain `pub` is enough, and leaves `dead_code` able to see unused items.
const NARROW_VISIBILITIES_MAX: usize = 200;

// ---------------------------------------------------------------- reading sources

/// All files below `src`.
fn library_sources() -> Vec<Source> {
    let mut all = sources::read_all(Path::new("."));
    all.retain(|source| source.path.starts_with("src") && source.path != Path::new("src/lib.rs"));
    all
}

/// The top-level module that a file belongs to.
fn layer(source: &Source) -> String {
    let below_src = source.path.iter().nth(1).unwrap();
    Path::new(below_src).file_stem().unwrap().to_string_lossy().into_owned()
}

/// The top-level modules that a file names: after `crate::`, after enough `super::` to reach the
/// root, or in a binary after the library's name.
fn imports(source: &Source) -> BTreeSet<String> {
    let layer = layer(source);
    let depth = source.module().len() - 1;
    let mut found = BTreeSet::new();
    for path in names(source).paths {
        let supers = path.segments.iter().take_while(|segment| *segment == "super").count();
        let top = match path.segments.first().map(String::as_str) {
            Some("crate") => path.segments.get(1),
            Some("ordinal") if layer == "bin" => path.segments.get(1),
            Some("super") if supers >= depth + path.scope.len() => path.segments.get(supers),
            _ => None,
        };
        found.extend(top.cloned());
    }
    found.remove(&layer);
    found
}

/// All identifiers and keywords of a file, those in macros and attributes too.
fn words(tokens: &TokenStream) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for token in tokens.clone() {
        match token {
            TokenTree::Ident(word) => drop(found.insert(word.to_string())),
            TokenTree::Group(group) => found.extend(words(&group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

// ---------------------------------------------------------------- judging them

/// Imports that the table does not allow.
fn forbidden_imports(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let layer = layer(source);
        let Some(at) = LAYERS.iter().position(|(name, _)| *name == layer) else {
            wrong.push(format!("{}: `{layer}` is no layer of the table", source.path.display()));
            continue;
        };
        let (allowed, below) = (LAYERS[at].1, &LAYERS[at + 1..]);
        for import in imports(source) {
            // A test may compose real parts where the code knows a port: any module below.
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
        let words = words(&source.tokens);
        for (dependency, layers) in KEPT_IN {
            let layer = layer(source);
            if words.iter().any(|word| is_of(word, dependency)) && !layers.contains(&layer.as_str())
            {
                let path = source.path.display();
                wrong.push(format!("{path}: `{layer}` must not know `{dependency}`"));
            }
        }
    }
    wrong
}

/// `tonic` and its companions, `tonic_prost` and the like.
fn is_of(word: &str, dependency: &str) -> bool {
    word.strip_prefix(dependency).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

fn nondeterminism(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        if DETERMINISTIC.contains(&layer(source).as_str()) && !source.is_test() {
            for word in words(&source.tokens)
                .iter()
                .filter(|word| NONDETERMINISTIC.contains(&word.as_str()))
            {
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
        if VAGUE_NAMES.contains(&source.stem()) {
            wrong.push(format!("{path}: the name does not describe its contents"));
        }
        if !source.is_test() && !source.text.starts_with("//!") {
            wrong.push(format!("{path}: does not open with `//!` and its purpose"));
        }
    }
    wrong
}

/// Functions that are too long to read at once.
fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        for Function { name, line, lines, .. } in functions(source) {
            if lines > FUNCTION_LINES_MAX {
                let path = source.path.display();
                wrong.push(format!("{path}:{line}: `{name}` has {lines} lines"));
            }
        }
    }
    wrong
}

/// Files that import each other.
fn import_cycles(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for cycle in cycles(sources) {
        wrong.push(format!("import cycle: {}", cycle.files.join(" ")));
        let import = |i: &Import| format!("  {}:{} -> {} ({})", i.from, i.line, i.to, i.path);
        wrong.extend(cycle.imports.iter().map(import));
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
    assert_none(&forbidden_imports(&library_sources()));
}

#[test]
fn the_table_has_no_cycles_and_no_unused_arrow() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in library_sources() {
        used.entry(layer(&source)).or_default().extend(imports(&source));
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
    assert_none(&stray_dependencies(&library_sources()));
}

#[test]
fn deterministic_layers_avoid_nondeterminism() {
    assert_none(&nondeterminism(&library_sources()));
}

#[test]
fn every_file_has_a_descriptive_name_and_a_head() {
    assert_none(&unnamed_or_headless(&library_sources()));
}

#[test]
fn functions_are_short() {
    assert_none(&long_functions(&sources::read_all(Path::new("."))));
}

#[test]
fn files_do_not_import_each_other() {
    assert_none(&import_cycles(&library_sources()));
}

#[test]
fn few_items_have_a_narrow_visibility() {
    let count: usize = library_sources().iter().map(narrow_visibilities).sum();
    assert!(count < NARROW_VISIBILITIES_MAX, "{count} times `pub(super)` or `pub(in ...)`");
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
        "src/wal/deep/log.rs",
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
    assert_eq!(imports(&source).into_iter().collect::<Vec<_>>(), expected);

    let binary = Source::new("src/bin/kvd.rs", "use ordinal::{config::Dev, server};");
    assert_eq!(imports(&binary).into_iter().collect::<Vec<_>>(), ["config", "server"]);
}

#[test]
fn the_checker_refuses_what_the_rules_forbid() {
    let upward =
        [Source::new("src/state/mod.rs", "//! S.\nuse crate::{node, types};\nuse super::wal;")];
    assert_eq!(
        forbidden_imports(&upward),
        [
            "src/state/mod.rs: `state` must not import `node`",
            "src/state/mod.rs: `state` must not import `wal`"
        ]
    );
    let unknown = [Source::new("src/extra.rs", "//! E.\n")];
    assert_eq!(forbidden_imports(&unknown), ["src/extra.rs: `extra` is no layer of the table"]);

    let stray =
        [Source::new("src/node/mod.rs", "//! openraft\nuse openraft::Raft; use tonic_prost::x;")];
    assert_eq!(
        stray_dependencies(&stray),
        [
            "src/node/mod.rs: `node` must not know `openraft`",
            "src/node/mod.rs: `node` must not know `tonic`"
        ]
    );

    let clocked =
        "//! T.\nuse std::collections::HashMap; // not Instant\nfn now() { Instant::now() }";
    assert_eq!(
        nondeterminism(&[
            Source::new("src/types/kv.rs", clocked),
            Source::new("src/types/tests.rs", clocked)
        ]),
        [
            "src/types/kv.rs: `HashMap` in a deterministic layer",
            "src/types/kv.rs: `Instant` in a deterministic layer"
        ]
    );

    assert_eq!(
        unnamed_or_headless(&[Source::new("src/node/util.rs", "use crate::types;")]),
        [
            "src/node/util.rs: the name does not describe its contents",
            "src/node/util.rs: does not open with `//!` and its purpose"
        ]
    );
}

#[test]
fn the_checker_sees_a_long_function() {
    let lines = "\n".repeat(FUNCTION_LINES_MAX);
    let long = Source::new("src/node/mod.rs", format!("struct A; impl A {{ fn f() {{{lines}}} }}"));
    assert_eq!(long_functions(&[long]), ["src/node/mod.rs:1: `A::f` has 71 lines"]);
}

#[test]
fn the_checker_sees_a_cycle_through_a_reexport() {
    let cycle = [
        Source::new("src/a/mod.rs", "mod x; mod y; pub use x::X; fn f() { y::g() }"),
        Source::new("src/a/x.rs", "use super::y::Y; pub struct X(Y);"),
        Source::new("src/a/y.rs", "pub struct Y; pub fn g() { h(crate::a::X::default()) }"),
    ];
    assert_eq!(
        import_cycles(&cycle),
        [
            "import cycle: src/a/x.rs src/a/y.rs",
            "  src/a/x.rs:1 -> src/a/y.rs (super::y::Y)",
            "  src/a/y.rs:1 -> src/a/x.rs (crate::a::X::default)"
        ]
    );
    // A module's root composes its files, tests import anything, and the import of a module is none.
    let none = [
        Source::new("src/a/mod.rs", "mod x; mod y; pub struct A(x::X);"),
        Source::new("src/a/x.rs", "use super::{A, y}; pub struct X(y::Y);"),
        Source::new(
            "src/a/y.rs",
            "pub struct Y; #[cfg(test)] mod tests { use super::super::x::X; }",
        ),
    ];
    assert_eq!(import_cycles(&none), [""; 0]);
}
