//! Every path that a file names: in `use` items, in code, and in the tokens of macros and
//! attributes, which `syn` does not parse.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::{
    ImplItem, Item, ItemMod, ItemUse, Macro, MetaList, UseTree, Visibility,
    visit::{self, Visit},
};

use super::{Source, is_test_impl_item, is_test_item};

/// One path, where a file names it.
#[derive(Debug)]
pub struct NamedPath {
    /// The inline modules around it, outermost first.
    pub scope: Vec<String>,
    /// As written: `["super", "segment", "Segment"]`.
    pub segments: Vec<String>,
    pub kind: PathKind,
    pub line: usize,
    /// In code that is compiled for tests only.
    pub test: bool,
}

#[derive(Debug, PartialEq)]
pub enum PathKind {
    /// A `use` item that binds `name`; a re-export if the item has a visibility.
    Import { name: String, reexport: bool },
    /// A `use` item that ends in `*`.
    Glob { reexport: bool },
    /// Code.
    Code,
}

/// The items that a file defines, and the paths that it names.
#[derive(Debug, Default)]
pub struct Names {
    pub paths: Vec<NamedPath>,
    /// Items, each with the inline modules around it.
    pub items: Vec<(Vec<String>, String)>,
    /// Inline modules, and those in other files that are declared `#[cfg(test)]`.
    pub inline_modules: Vec<Vec<String>>,
    pub test_modules: Vec<Vec<String>>,
}

pub fn names(source: &Source) -> Names {
    let mut collector = Collector::default();
    collector.visit_file(&source.syntax);
    collector.names
}

#[derive(Default)]
struct Collector {
    names: Names,
    scope: Vec<String>,
    test: bool,
}

impl Collector {
    fn add(&mut self, segments: Vec<String>, kind: PathKind, span: Span) {
        let (scope, line, test) = (self.scope.clone(), span.start().line, self.test);
        self.names.paths.push(NamedPath { scope, segments, kind, line, test });
    }

    fn add_tree(&mut self, mut prefix: Vec<String>, tree: &UseTree, reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(prefix, &path.tree, reexport);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(prefix.clone(), tree, reexport);
                }
            }
            UseTree::Name(name) => {
                if name.ident != "self" {
                    prefix.push(name.ident.to_string());
                }
                let name = prefix.last().cloned().unwrap_or_default();
                let span = tree_span(tree);
                self.add(prefix, PathKind::Import { name, reexport }, span);
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    prefix.push(rename.ident.to_string());
                }
                let name = rename.rename.to_string();
                self.add(prefix, PathKind::Import { name, reexport }, rename.ident.span());
            }
            UseTree::Glob(_) => {
                let span = tree_span(tree);
                self.add(prefix, PathKind::Glob { reexport }, span);
            }
        }
    }

    fn add_tokens(&mut self, tokens: &TokenStream) {
        let mut found = Vec::new();
        paths_of_tokens(tokens.clone(), &[], &mut found);
        for (segments, span) in found {
            self.add(segments, PathKind::Code, span);
        }
    }

    fn in_test(&mut self, test: bool, visit: impl FnOnce(&mut Self)) {
        let before = self.test;
        self.test |= test;
        visit(self);
        self.test = before;
    }
}

fn tree_span(tree: &UseTree) -> Span {
    match tree {
        UseTree::Name(name) => name.ident.span(),
        UseTree::Glob(glob) => glob.star_token.span,
        _ => Span::call_site(),
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        if let Some(name) = name {
            self.names.items.push((self.scope.clone(), name.to_string()));
        }
        self.in_test(is_test_item(item), |this| visit::visit_item(this, item));
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        self.in_test(is_test_impl_item(item), |this| visit::visit_impl_item(this, item));
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.scope.push(module.ident.to_string());
        if module.content.is_some() {
            self.names.inline_modules.push(self.scope.clone());
        } else if self.test {
            self.names.test_modules.push(self.scope.clone());
        }
        visit::visit_item_mod(self, module);
        self.scope.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let reexport = !matches!(item.vis, Visibility::Inherited);
        self.add_tree(Vec::new(), &item.tree, reexport);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let span = path.segments.first().map_or_else(Span::call_site, |s| s.ident.span());
        self.add(segments, PathKind::Code, span);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        visit::visit_macro(self, call);
        self.add_tokens(&call.tokens);
    }

    fn visit_meta_list(&mut self, list: &'ast MetaList) {
        visit::visit_meta_list(self, list);
        self.add_tokens(&list.tokens);
    }
}

/// Identifiers with `::` between them, and of `a::{b, c}` both `a::b` and `a::c`.
fn paths_of_tokens(tokens: TokenStream, prefix: &[String], found: &mut Vec<(Vec<String>, Span)>) {
    let mut path = prefix.to_vec();
    let (mut colons, mut start) = (2, Span::call_site());
    for token in tokens {
        let ends_path = match &token {
            TokenTree::Ident(_) => colons < 2,
            TokenTree::Punct(punct) => punct.as_char() != ':',
            TokenTree::Group(_) | TokenTree::Literal(_) => true,
        };
        let before = path.clone();
        if ends_path {
            if path.len() > prefix.len() {
                found.push((path, start));
            }
            path = prefix.to_vec();
        }
        match token {
            TokenTree::Ident(ident) => {
                if path.len() == prefix.len() {
                    start = ident.span();
                }
                path.push(ident.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Group(group) => {
                let joined = colons == 2 && group.delimiter() == Delimiter::Brace;
                let prefix: &[String] = if joined { &before } else { &[] };
                paths_of_tokens(group.stream(), prefix, found);
                colons = 2;
            }
            _ => colons = 2,
        }
    }
    if path.len() > prefix.len() {
        found.push((path, start));
    }
}
