//! A view as a frame. Pure: the same view gives the same frame.

use std::time::Duration;

use ratatui::{
    Frame, Terminal,
    backend::TestBackend,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::view::{self, COLUMNS, Health, View};
use crate::ctl::gotext;

/// Between two columns.
const GAP: u16 = 2;
/// What the member is called, where it is, and what is wrong: three lines and their heading.
const DETAILS_HEIGHT: u16 = 4;

/// What is on the screen.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) view: View,
    /// Whose details are shown; `None`: on paper.
    pub(super) selected: Option<usize>,
    pub(super) interval: Duration,
}

impl Shown {
    /// Moves on by so many members, and around the ends.
    pub(super) fn select(&mut self, by: isize) {
        let count = self.view.rows.len() as isize;
        if count > 0 {
            let at = self.selected.unwrap_or(0) as isize;
            self.selected = Some((at + by).rem_euclid(count) as usize);
        }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, shown: &Shown) {
    let view = &shown.view;
    let details = shown.selected.map_or(0, |_| DETAILS_HEIGHT);
    let [head, table, details, notes, keys] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(2),
        Constraint::Length(details),
        Constraint::Length(view.notes.len() as u16),
        Constraint::Length(shown.selected.map_or(0, |_| 1)),
    ])
    .areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let lines = vec![Line::styled(view.cluster.as_str(), bold), Line::raw(view.summary.as_str())];
    frame.render_widget(Paragraph::new(lines), head);
    frame.render_widget(members(shown, table.width), table);
    let row = shown.selected.and_then(|at| view.rows.get(at));
    if let Some(row) = row {
        let lines: Vec<_> = row.details.iter().map(|line| Line::raw(line.as_str())).collect();
        frame.render_widget(Paragraph::new(lines), details);
    }
    let dim = Style::new().add_modifier(Modifier::DIM);
    let lines: Vec<_> = view.notes.iter().map(|note| Line::styled(note.as_str(), dim)).collect();
    frame.render_widget(Paragraph::new(lines), notes);
    let help = format!(
        "q quit   arrows select   + - interval: every {}",
        gotext::duration(shown.interval)
    );
    frame.render_widget(Paragraph::new(Span::styled(help, dim)), keys);
}

/// The columns that there is room for.
fn members(shown: &Shown, room: u16) -> Table<'static> {
    let rows = &shown.view.rows;
    let widths = COLUMNS.map(|(heading, _)| heading.len());
    let widths: Vec<u16> = (0..COLUMNS.len())
        .map(|at| {
            let cells = rows.iter().map(|row| row.cells[at].chars().count());
            cells.chain([widths[at]]).max().unwrap_or(0) as u16
        })
        .collect();
    let columns = fitting(&widths, room);
    // Names to the left, numbers to the right.
    let line = |cells: Vec<String>| {
        Row::new(cells.into_iter().zip(&columns).map(|(text, &at)| {
            let width = usize::from(widths[at]);
            Cell::new(if at < 5 { format!("{text:<width$}") } else { format!("{text:>width$}") })
        }))
    };
    let heading = line(columns.iter().map(|&at| COLUMNS[at].0.into()).collect());
    let body = rows.iter().enumerate().map(|(n, row)| {
        let selected = shown.selected == Some(n);
        line(columns.iter().map(|&at| row.cells[at].clone()).collect()).style(look(row, selected))
    });
    Table::new(body, columns.iter().map(|&at| Constraint::Length(widths[at])))
        .header(heading.style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .column_spacing(GAP)
}

fn look(row: &view::Row, selected: bool) -> Style {
    let style = match row.health {
        Health::Good => Style::new(),
        Health::Leads => Style::new().fg(Color::Green),
        Health::Ailing => Style::new().fg(Color::Yellow),
        Health::Away => Style::new().fg(Color::Red),
    };
    if selected { style.add_modifier(Modifier::REVERSED) } else { style }
}

/// Which columns fit: those go first that can be missed most.
fn fitting(widths: &[u16], room: u16) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..widths.len()).collect();
    let width = |columns: &[usize]| columns.iter().map(|&at| widths[at] + GAP).sum::<u16>() - GAP;
    while width(&columns) > room {
        let most = columns.iter().copied().max_by_key(|&at| COLUMNS[at].1);
        match most.filter(|&at| COLUMNS[at].1 > 0) {
            Some(at) => columns.retain(|column| *column != at),
            None => break,
        }
    }
    columns
}

/// The frame as text.
pub(super) fn text(shown: &Shown, width: u16) -> String {
    let height = 3 + 1 + shown.view.rows.len().max(1) + shown.view.notes.len();
    let backend = TestBackend::new(width.max(20), height as u16);
    let Ok(mut terminal) = Terminal::new(backend);
    let Ok(_) = terminal.draw(|frame| draw(frame, shown));
    let buffer = terminal.backend().buffer();
    let line = |row: &[ratatui::buffer::Cell]| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    };
    buffer.content().chunks(usize::from(buffer.area().width)).map(line).collect()
}
