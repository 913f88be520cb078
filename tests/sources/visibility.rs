//! Items that are visible in a part of the crate only.

use syn::{
    VisRestricted,
    visit::{self, Visit},
};

use super::Source;

/// How many times a file says `pub(super)` or `pub(in ...)`.
pub fn narrow_visibilities(source: &Source) -> usize {
    let mut counter = Counter(0);
    counter.visit_file(&source.syntax);
    counter.0
}

struct Counter(usize);

impl<'ast> Visit<'ast> for Counter {
    fn visit_vis_restricted(&mut self, visibility: &'ast VisRestricted) {
        self.0 += usize::from(!visibility.path.is_ident("crate"));
        visit::visit_vis_restricted(self, visibility);
    }
}
