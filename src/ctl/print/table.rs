//! `-w table`: boxes. `-w simple` prints the same cells, separated by commas.

/// A header and rows of as many cells.
#[derive(Debug)]
pub struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The width of each column, in characters.
    pub fn widths(&self) -> Vec<usize> {
        let width = |text: &str| text.chars().count();
        let widest = |column: usize| {
            let cells = self.rows.iter().map(|row| width(&row[column]));
            cells.chain([width(self.header[column])]).max().unwrap_or(0)
        };
        (0..self.header.len()).map(widest).collect()
    }

    /// Headers centred, cells to the right; a cell is never broken into lines.
    pub fn render(&self) -> String {
        let widths = self.widths();
        let rule = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
        let rule = format!("+{rule}+\n");

        let mut out = rule.clone();
        let header = self.header.iter().zip(&widths).map(|(cell, width)| format!("{cell:^width$}"));
        out += &line(header);
        out += &rule;
        for row in &self.rows {
            out += &line(row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")));
        }
        out + &rule
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}
