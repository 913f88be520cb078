//! Holds the documents to the program: what they name exists, and the help they show is the help
//! that the program prints.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Everything that people read, below the root.
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

/// The paths into this repository that a text names, links apart: `src/lane.rs` and the like.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || "`()[],;:<>\"'".contains(c));
    let words = words.map(|word| word.trim_end_matches(['.', '/']));
    words.filter(|word| {
        ["src/", "proto/", "tests/", ".ci/"].iter().any(|top| word.starts_with(top))
            && Path::new(word).extension().is_some()
    })
}

/// The files that a text links to.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

fn broken(document: &Path, text: &str) -> Vec<String> {
    let folder = document.parent().unwrap();
    let named = named_paths(text).map(PathBuf::from);
    let linked = links(text).map(|target| folder.join(target));
    let missing = named.chain(linked).filter(|path| !path.exists());
    missing.map(|path| format!("{}: no {}", document.display(), path.display())).collect()
}

#[test]
fn documents_name_and_link_only_what_is_there() {
    let wrong: Vec<_> = documents().iter().flat_map(|(path, text)| broken(path, text)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_path_or_a_link_to_nothing_is_seen() {
    let text =
        "See `src/lane.rs`, `src/gone.rs`, [a](README.md), [b](gone.md#part), [c](https://x.y).";
    let wrong = broken(Path::new("made-up.md"), text);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].ends_with("src/gone.rs") && wrong[1].ends_with("gone.md"), "{wrong:?}");
}

#[test]
#[cfg_attr(feature = "otlp", ignore = "the help has one flag more")]
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
