//! Functions, and how long they are: from the line of `fn` to that of the closing brace.

use syn::{
    Block, ImplItemFn, ItemFn, ItemImpl, Signature, TraitItemFn, Type,
    visit::{self, Visit},
};

use super::Source;

#[derive(Debug)]
pub struct Function {
    /// With its type, as `Store::open`.
    pub name: String,
    pub line: usize,
    pub lines: usize,
    /// `self` counts.
    pub arguments: usize,
}

/// All functions with a body, those inside of others too.
pub fn functions(source: &Source) -> Vec<Function> {
    let mut collector = Collector::default();
    collector.visit_file(&source.syntax);
    collector.found
}

#[derive(Default)]
struct Collector {
    found: Vec<Function>,
    of: Option<String>,
}

impl Collector {
    fn add(&mut self, signature: &Signature, block: &Block) {
        let line = signature.fn_token.span.start().line;
        let lines = block.brace_token.span.close().end().line - line + 1;
        let name = match &self.of {
            Some(of) => format!("{of}::{}", signature.ident),
            None => signature.ident.to_string(),
        };
        self.found.push(Function { name, line, lines, arguments: signature.inputs.len() });
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let name = match &*item.self_ty {
            Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        let outer = std::mem::replace(&mut self.of, name);
        visit::visit_item_impl(self, item);
        self.of = outer;
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
