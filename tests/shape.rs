//! Prints the shape of the package, module by module: `just shape`, or for another checkout
//! `cargo run --example shape -- PATH`.
//!
//! ```text
//! code, tests  lines that are neither blank nor only a comment; tests are test files, and items under
//!              `#[cfg(test)]`
//! fn>70        functions of more than 70 lines
//! args>6       functions of more than 6 arguments
//! cycles       files in import cycles, as `sources::cycles` defines them
//! pub(..)      `pub(super)` and `pub(in ..)`
//! words        in comments of Rust files and in Markdown; and of 1,000 words, how many are
//!              who/whom/whoever/whose, what/whatever, nobody/somebody, tell/tells/told
//! ```

#![expect(clippy::disallowed_methods, reason = "reads sources")]

mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ops::AddAssign,
    path::Path,
};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    ImplItem, Item,
    spanned::Spanned,
    visit::{self, Visit},
};

use sources::{Source, cycles::cycles, functions::functions, visibility::narrow_visibilities};

const LINES_MAX: usize = 70;
const ARGUMENTS_MAX: usize = 6;

/// Words that the style avoids as subjects, in groups that are counted together.
const AVOIDED: [(&str, &[&str]); 4] = [
    ("who", &["who", "whom", "whoever", "whose"]),
    ("what", &["what", "whatever"]),
    ("nobody", &["nobody", "somebody"]),
    ("tell", &["tell", "tells", "told"]),
];

/// The numbers of a module.
#[derive(Clone, Copy, Default)]
struct Shape {
    code: usize,
    tests: usize,
    long_functions: usize,
    many_arguments: usize,
    in_cycles: usize,
    narrow_visibilities: usize,
    words: usize,
    avoided: [usize; AVOIDED.len()],
}

impl AddAssign for Shape {
    fn add_assign(&mut self, more: Shape) {
        self.code += more.code;
        self.tests += more.tests;
        self.long_functions += more.long_functions;
        self.many_arguments += more.many_arguments;
        self.in_cycles += more.in_cycles;
        self.narrow_visibilities += more.narrow_visibilities;
        self.words += more.words;
        for (sum, more) in self.avoided.iter_mut().zip(more.avoided) {
            *sum += more;
        }
    }
}

impl Shape {
    fn of_source(source: &Source) -> Shape {
        let functions = functions(source);
        let (code, tests) = lines(source);
        Shape {
            code,
            tests,
            long_functions: functions.iter().filter(|f| f.lines > LINES_MAX).count(),
            many_arguments: functions.iter().filter(|f| f.arguments > ARGUMENTS_MAX).count(),
            narrow_visibilities: narrow_visibilities(source),
            ..Shape::of_text(&comments(source))
        }
    }

    fn of_text(text: &str) -> Shape {
        let mut shape = Shape::default();
        for word in text.split(|c: char| !(c.is_ascii_alphabetic() || "'’-".contains(c))) {
            shape.words += usize::from(word.starts_with(|c: char| c.is_ascii_alphabetic()));
            for part in word.split(|c: char| !c.is_ascii_alphabetic()) {
                let part = part.to_ascii_lowercase();
                for (count, (_, group)) in shape.avoided.iter_mut().zip(AVOIDED) {
                    *count += usize::from(group.contains(&part.as_str()));
                }
            }
        }
        shape
    }

    fn row(&self, name: &str) -> String {
        let per = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let rates = self.avoided.map(|n| format!("{:7.1}", 1000.0 * per(n, self.words)));
        let ratio = match self.code {
            0 => "-".to_string(),
            code => format!("{:.2}", per(self.tests, code)),
        };
        format!(
            "{name:<19}{:7}{:7}{ratio:>7}{:7}{:7}{:8}{:8}{:8}{}",
            self.code,
            self.tests,
            self.long_functions,
            self.many_arguments,
            self.in_cycles,
            self.narrow_visibilities,
            self.words,
            rates.concat(),
        )
    }
}

fn head() -> String {
    let groups: String = AVOIDED.iter().map(|(name, _)| format!("{name:>7}")).collect();
    format!(
        "{:<19}{:>7}{:>7}{:>7}{:>7}{:>7}{:>8}{:>8}{:>8}{groups}",
        "module", "code", "tests", "ratio", "fn>70", "args>6", "cycles", "pub(..)", "words"
    )
}

/// `src/wal` of `src/wal/log.rs`, `docs/adr` of its files, and of a file at the root its name.
fn module(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        [top @ ("src" | "tests"), below, ..] => {
            format!("{top}/{}", below.strip_suffix(".rs").unwrap_or(below))
        }
        ["docs", "adr", ..] => "docs/adr".to_string(),
        [top, ..] => top.to_string(),
        [] => String::new(),
    }
}

/// The text between the tokens and that of doc comments, so not the text in literals.
fn comments(source: &Source) -> String {
    let mut spans = Vec::new();
    leaves(source.tokens.clone(), &mut spans);
    let mut text = String::new();
    let mut end = 0;
    for range in spans.iter().map(Span::byte_range) {
        let token = source.text.get(range.clone()).unwrap_or_default();
        if token.starts_with("//") || token.starts_with("/*") {
            continue; // the tokens that stand for a doc comment: it stays in the gap
        }
        text.push_str(source.text.get(end..range.start).unwrap_or_default());
        text.push('\n');
        end = range.end;
    }
    text.push_str(source.text.get(end..).unwrap_or_default());
    text
}

fn leaves(tokens: TokenStream, spans: &mut Vec<Span>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                spans.push(group.span_open());
                leaves(group.stream(), spans);
                spans.push(group.span_close());
            }
            leaf => spans.push(leaf.span()),
        }
    }
}

/// Lines of code, and of tests.
fn lines(source: &Source) -> (usize, usize) {
    let mut tests = TestLines::default();
    tests.visit_file(&source.syntax);
    let (mut code, mut test) = (0, 0);
    for (at, line) in source.text.lines().enumerate() {
        if !line.trim().is_empty() && !line.trim().starts_with("//") {
            let is_test = source.is_test() || tests.0.contains(&(at + 1));
            *(if is_test { &mut test } else { &mut code }) += 1;
        }
    }
    (code, test)
}

#[derive(Default)]
struct TestLines(BTreeSet<usize>);

impl<'ast> Visit<'ast> for TestLines {
    fn visit_item(&mut self, item: &'ast Item) {
        if sources::is_test_item(item) {
            self.0.extend(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if sources::is_test_impl_item(item) {
            self.0.extend(item.span().start().line..=item.span().end().line);
        }
        visit::visit_impl_item(self, item);
    }
}

fn main() {
    let root = env::args().nth(1).unwrap_or_else(|| ".".to_string());
    let root = Path::new(&root);
    let sources = sources::read_all(root);
    let cycles = cycles(&sources);
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    for source in &sources {
        *shapes.entry(module(&source.path)).or_default() += Shape::of_source(source);
    }
    for path in sources::files(root).iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = sources::read(&root.join(path));
        *shapes.entry(module(path)).or_default() += Shape::of_text(&text);
    }
    for file in cycles.iter().flat_map(|cycle| &cycle.files) {
        shapes.entry(module(Path::new(file))).or_default().in_cycles += 1;
    }

    println!("{}", head());
    let mut total = Shape::default();
    for (name, shape) in &shapes {
        println!("{}", shape.row(name));
        total += *shape;
    }
    println!("{}", total.row("total"));

    println!("\nfunctions of more than {LINES_MAX} lines, or more than {ARGUMENTS_MAX} arguments:");
    for source in &sources {
        for function in functions(source) {
            if function.lines > LINES_MAX || function.arguments > ARGUMENTS_MAX {
                let (path, line, name) = (source.path.display(), function.line, &function.name);
                let (lines, arguments) = (function.lines, function.arguments);
                println!("  {path}:{line} {name}: {lines} lines, {arguments} arguments");
            }
        }
    }

    println!("\ncycles: {} ({} files)", cycles.len(), total.in_cycles);
    for cycle in &cycles {
        println!("  {}", cycle.files.join(" "));
        for import in &cycle.imports {
            println!("    {}:{} -> {} ({})", import.from, import.line, import.to, import.path);
        }
    }
}
