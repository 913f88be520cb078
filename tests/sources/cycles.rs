//! Import cycles: groups of files in `src` in which each file reaches each other along imports.
//!
//! File A imports file B if code of A, except tests, names an item that B defines: in a `use` item,
//! in a path, or in the tokens of a macro. A name is followed through `use` items to the file that
//! defines the item, so an import through a module's root does not count as an import of the root.
//!
//! A module's root (`mod.rs`) may import the files of its module although they use its definitions: it
//! composes them.
//!
//! Not counted: the declaration of a module, the import of a module by itself (the paths through it
//! count), a re-export, a path to another crate, and a method call, which names no file.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Source,
    paths::{NamedPath, PathKind, names},
};

/// Files that may import their importers: the enum of all verbs knows each verb.
const MAY_TIE: &[&str] = &["src/ctl/cli.rs"];

/// One file names an item of another.
#[derive(Debug)]
pub struct Import {
    pub from: String,
    pub to: String,
    /// Where and how the first file names the second, the first time.
    pub line: usize,
    pub path: String,
    /// From the root of a module to a file of that module.
    pub composes: bool,
}

/// Files that reach each other, and the imports between them.
#[derive(Debug)]
pub struct Cycle {
    pub files: Vec<String>,
    pub imports: Vec<Import>,
}

pub fn cycles(sources: &[Source]) -> Vec<Cycle> {
    let mut imports = Crates::new(sources).imports();
    imports.retain(|import| !import.composes && !MAY_TIE.contains(&import.from.as_str()));
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in &imports {
        next.entry(&import.from).or_default().insert(&import.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        next.keys().map(|file| (*file, reachable(file, &next))).collect();
    let mut groups: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, there) in &reached {
        let and_back = |other: &&&str| reached.get(**other).is_some_and(|far| far.contains(file));
        let group: Vec<String> = there.iter().filter(and_back).map(ToString::to_string).collect();
        if !group.is_empty() {
            groups.insert(group);
        }
    }
    let mut cycles: Vec<Cycle> =
        groups.into_iter().map(|files| Cycle { files, imports: Vec::new() }).collect();
    for import in imports {
        let around = |cycle: &&mut Cycle| {
            cycle.files.contains(&import.from) && cycle.files.contains(&import.to)
        };
        if let Some(cycle) = cycles.iter_mut().find(around) {
            cycle.imports.push(import);
        }
    }
    cycles
}

fn reachable<'a>(from: &str, next: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = next.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(next.get(file).into_iter().flatten().copied());
        }
    }
    reached
}

type ModulePath = Vec<String>;

/// The target of a path.
#[derive(Debug, Clone, PartialEq)]
enum Target {
    Module(ModulePath),
    /// An item of the file with this number.
    Item(usize),
    /// Another crate, a variable, a type parameter.
    Outside,
}

enum Definition {
    Here,
    Import { path: Vec<String>, reexport: bool },
}

/// The modules of the library and the binaries, and the names in each.
struct Crates<'a> {
    files: Vec<&'a Source>,
    /// The file of each module.
    modules: BTreeMap<ModulePath, usize>,
    names: BTreeMap<(ModulePath, String), Definition>,
    globs: BTreeMap<ModulePath, Vec<Vec<String>>>,
    /// Paths in code that is not only for tests, by file.
    paths: Vec<Vec<NamedPath>>,
}

impl<'a> Crates<'a> {
    fn new(sources: &'a [Source]) -> Crates<'a> {
        let files: Vec<&Source> =
            sources.iter().filter(|s| s.path.starts_with("src") && !s.is_test()).collect();
        let mut this = Crates {
            files: Vec::new(),
            modules: BTreeMap::new(),
            names: BTreeMap::new(),
            globs: BTreeMap::new(),
            paths: Vec::new(),
        };
        let mut named: Vec<_> = files.into_iter().map(|file| (file, names(file))).collect();
        let tests: Vec<ModulePath> = named
            .iter()
            .flat_map(|(file, names)| names.test_modules.iter().map(|m| join(&file.module(), m)))
            .collect();
        named.retain(|(file, _)| !tests.iter().any(|test| file.module().starts_with(test)));
        for (number, (file, names)) in named.into_iter().enumerate() {
            let module = file.module();
            this.modules.insert(module.clone(), number);
            for inline in &names.inline_modules {
                this.modules.insert(join(&module, inline), number);
            }
            for (scope, name) in names.items {
                this.names.insert((join(&module, &scope), name), Definition::Here);
            }
            for path in &names.paths {
                let scope = join(&module, &path.scope);
                match &path.kind {
                    PathKind::Import { name, reexport } => {
                        let import =
                            Definition::Import { path: path.segments.clone(), reexport: *reexport };
                        this.names.entry((scope, name.clone())).or_insert(import);
                    }
                    PathKind::Glob { .. } => {
                        this.globs.entry(scope).or_default().push(path.segments.clone());
                    }
                    PathKind::Code => {}
                }
            }
            this.files.push(file);
            this.paths.push(names.paths.into_iter().filter(|path| !path.test).collect());
        }
        this
    }

    fn imports(&self) -> Vec<Import> {
        let mut found: BTreeMap<(usize, usize), Import> = BTreeMap::new();
        for (from, paths) in self.paths.iter().enumerate() {
            let module = self.files[from].module();
            for path in paths {
                let Some(to) = self.imported_file(&join(&module, &path.scope), path) else {
                    continue;
                };
                if to != from {
                    found.entry((from, to)).or_insert_with(|| Import {
                        from: self.files[from].path.display().to_string(),
                        to: self.files[to].path.display().to_string(),
                        line: path.line,
                        path: path.segments.join("::"),
                        composes: self.files[to].module().starts_with(&module),
                    });
                }
            }
        }
        found.into_values().collect()
    }

    fn imported_file(&self, scope: &[String], path: &NamedPath) -> Option<usize> {
        match &path.kind {
            PathKind::Import { reexport: true, .. } | PathKind::Glob { reexport: true } => None,
            PathKind::Glob { reexport: false } => match self.resolve(scope, &path.segments, 0) {
                Target::Module(module) => self.modules.get(&module).copied(),
                Target::Item(file) => Some(file),
                Target::Outside => None,
            },
            PathKind::Code if path.segments.len() == 1 => {
                // A plain name was imported by a `use` item, which counts unless it is a re-export.
                let name = (scope.to_vec(), path.segments[0].clone());
                match self.names.get(&name)? {
                    Definition::Import { path, reexport: true } => self.item(scope, path),
                    _ => None,
                }
            }
            PathKind::Import { .. } | PathKind::Code => self.item(scope, &path.segments),
        }
    }

    fn item(&self, scope: &[String], path: &[String]) -> Option<usize> {
        match self.resolve(scope, path, 0) {
            Target::Item(file) => Some(file),
            Target::Module(_) | Target::Outside => None,
        }
    }

    fn resolve(&self, scope: &[String], path: &[String], depth: usize) -> Target {
        let mut at = scope.to_vec();
        let mut rest = path;
        while let [first, after @ ..] = rest {
            match first.as_str() {
                "crate" => at.truncate(1),
                "self" => {}
                "super" => drop(at.pop()),
                "ordinal" if at.first().is_some_and(|root| root != "crate") => {
                    at = vec!["crate".to_string()];
                }
                _ => break,
            }
            rest = after;
        }
        let absolute = rest.len() < path.len();
        if at.is_empty() {
            return Target::Outside;
        }
        for (place, name) in rest.iter().enumerate() {
            match self.member(&at, name, place + 1 == rest.len(), depth + 1) {
                Some(Target::Module(module)) => at = module,
                Some(found) => return found,
                None if place == 0 && !absolute => return Target::Outside,
                // Made by a macro.
                None => return self.modules.get(&at).map_or(Target::Outside, |f| Target::Item(*f)),
            }
        }
        Target::Module(at)
    }

    /// Resolves `name` in the module `at`. A module and an item may share a name: the last segment
    /// of a path means the item.
    fn member(&self, at: &[String], name: &str, last: bool, depth: usize) -> Option<Target> {
        const DEPTH_MAX: usize = 16;
        if depth > DEPTH_MAX {
            return None;
        }
        let child = join(at, &[name.to_string()]);
        let module = self.modules.contains_key(&child).then_some(Target::Module(child));
        let item = match self.names.get(&(at.to_vec(), name.to_string())) {
            Some(Definition::Here) => self.modules.get(at).map(|file| Target::Item(*file)),
            Some(Definition::Import { path, .. }) => Some(self.resolve(at, path, depth)),
            None => None,
        };
        let found = if last { item.or(module) } else { module.or(item) };
        found.or_else(|| {
            let globs = self.globs.get(at).into_iter().flatten();
            let modules = globs.filter_map(|glob| match self.resolve(at, glob, depth) {
                Target::Module(module) if module != at => Some(module),
                _ => None,
            });
            let mut members = modules.filter_map(|m| self.member(&m, name, last, depth + 1));
            members.next()
        })
    }
}

fn join(module: &[String], rest: &[String]) -> ModulePath {
    [module, rest].concat()
}
