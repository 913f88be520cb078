//! Checks the documents against the repository: the paths and links in them exist, the index of
//! ADRs is complete, and the help texts are those that the program prints.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// All Markdown documents.
#[expect(clippy::disallowed_methods, reason = "a test reads its own documents")]
fn documents() -> Vec<(PathBuf, String)> {
    let folders = [".", "docs", "docs/adr", "examples", "k8s"];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "md"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Folders whose paths the documents write from the root.
const FOLDERS: [&str; 9] =
    ["src/", "proto/", "tests/", ".ci/", "benches/", "docs/", "examples/", "k8s/", ".github/"];

/// The paths into this repository that a text names, links apart: `src/lane.rs`, `tests/wire`, and
/// those below `src` without it, as `node/node.rs`.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || "`()[],;:<>\"'".contains(c));
    let words = words.map(|word| word.trim_end_matches(['.', '/']));
    words.filter(|word| {
        FOLDERS.iter().any(|folder| word.starts_with(folder))
            || word.contains('/') && Path::new(word).extension().is_some_and(|e| e == "rs")
    })
}

fn is_there(named: &str) -> bool {
    Path::new(named).exists() || Path::new("src").join(named).exists()
}

/// The files that a text links to.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

fn broken(document: &Path, text: &str) -> Vec<String> {
    let folder = document.parent().unwrap();
    let named = named_paths(text).filter(|path| !is_there(path)).map(PathBuf::from);
    let linked = links(text).map(|target| folder.join(target)).filter(|path| !path.exists());
    let missing = named.chain(linked);
    missing.map(|path| format!("{}: no {}", document.display(), path.display())).collect()
}

#[test]
fn documents_name_and_link_only_what_is_there() {
    let wrong: Vec<_> = documents().iter().flat_map(|(path, text)| broken(path, text)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_path_or_a_link_to_nothing_is_seen() {
    let text = "See `src/lane.rs`, `src/gone.rs`, `tests/wire`, `tests/gone`, `node/node.rs`, \
                `node/gone.rs`, [a](README.md), [b](gone.md#part), [c](https://x.y).";
    let wrong = broken(Path::new("made-up.md"), text);
    let gone = ["src/gone.rs", "tests/gone", "node/gone.rs", "gone.md"];
    assert_eq!(wrong, gone.map(|path| format!("made-up.md: no {path}")));
}

#[test]
fn the_first_adr_lists_all_others() {
    let index = std::fs::read_to_string("docs/adr/0001-record-decisions.md").unwrap();
    let mut missing = Vec::new();
    for (path, _) in documents().iter().filter(|(path, _)| path.starts_with("docs/adr")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (number, _) = name.split_once('-').unwrap();
        let number: u32 = number.parse().unwrap();
        let row = format!("| [{number}]({name}) | ");
        if number > 1 && !index.lines().any(|line| line.starts_with(&row)) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "docs/adr/0001-record-decisions.md has no row {missing:?}");
}

#[test]
#[cfg_attr(any(feature = "otlp", not(feature = "k8s")), ignore = "the help has other flags")]
fn the_documented_flags_are_those_that_the_program_has() {
    let document = std::fs::read_to_string("docs/configuration.md").unwrap();
    for command in ["serve", "dev"] {
        let mut kvd = Command::new(env!("CARGO_BIN_EXE_kvd"));
        let help = kvd.args([command, "--help"]).env_clear().output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(
            document.contains(&format!("```\n{help}```\n")),
            "docs/configuration.md does not show what `kvd {command} --help` prints:\n\n{help}"
        );
    }
}
