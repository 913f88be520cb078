//! The package's Rust sources, parsed: shared by the rules in `tests/architecture.rs` and the
//! report in `tests/shape.rs`.
//!
//! ```text
//! mod         the files, and which of them are test code
//! paths       every path that a file names, in imports, code and macros
//! cycles     files that import each other
//! functions   functions, with their length
//! visibility  items that are visible in a part of the crate only
//! ```

pub mod cycles;
pub mod functions;
pub mod paths;
pub mod visibility;

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::TokenStream;
use syn::{Attribute, ImplItem, Item, Meta};

/// One source file of the package.
pub struct Source {
    /// Below the package's root, as `src/wal/log.rs`.
    pub path: PathBuf,
    pub text: String,
    pub tokens: TokenStream,
    pub syntax: syn::File,
}

impl Source {
    /// # Panics
    /// If the text is not Rust.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Source {
        let (path, text) = (path.into(), text.into());
        let tokens: TokenStream =
            text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let syntax =
            syn::parse2(tokens.clone()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Source { path, text, tokens, syntax }
    }

    pub fn stem(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// Tests, by the name of their file or folder.
    pub fn is_test(&self) -> bool {
        self.stem().ends_with("tests")
            || self.stem().ends_with("_test")
            || self.path.iter().any(|dir| dir == "tests")
    }

    /// The path of the file's module, as `crate::wal::log`; a binary is a crate of its own.
    pub fn module(&self) -> Vec<String> {
        let parts: Vec<&str> = self.path.iter().filter_map(|part| part.to_str()).collect();
        let folders = parts.get(1..parts.len() - 1).unwrap_or_default();
        if folders == ["bin"] {
            return vec![format!("bin/{}", self.stem())];
        }
        let mut module = vec!["crate".to_string()];
        module.extend(folders.iter().map(ToString::to_string));
        if !matches!(self.stem(), "mod" | "lib") {
            module.push(self.stem().to_string());
        }
        module
    }
}

/// All Rust files of the package at `root`, except those in hidden folders and `target`.
pub fn read_all(root: &Path) -> Vec<Source> {
    let files = files(root).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    files.map(|path| Source::new(&path, read(&root.join(&path)))).collect()
}

/// The paths, below `root`, of all files there, except those in hidden folders and `target`.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![root.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(root).expect("a path below the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Whether the item is compiled for tests only.
pub fn is_test_item(item: &Item) -> bool {
    has_cfg_test(match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    })
}

/// Whether the item of an `impl` block is compiled for tests only.
pub fn is_test_impl_item(item: &ImplItem) -> bool {
    has_cfg_test(match item {
        ImplItem::Const(item) => &item.attrs,
        ImplItem::Fn(item) => &item.attrs,
        ImplItem::Type(item) => &item.attrs,
        _ => &[],
    })
}

fn has_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}
