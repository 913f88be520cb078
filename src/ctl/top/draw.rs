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

use super::view::{COLUMNS, ClusterView, Health, MemberRow};
use crate::ctl::gotext;

/// Between two columns.
const GAP: u16 = 2;
/// A heading and the three lines of details of a member.
const DETAILS_HEIGHT: u16 = 4;

/// The state of the screen.
#[derive(Debug, Clone)]
pub struct TopState {
    pub view: ClusterView,
    /// The member with details. `None`: text output, without details.
    pub selected: Option<usize>,
    pub interval: Duration,
}

impl TopState {
    /// Moves the selection, and wraps around the ends.
    pub fn select(&mut self, by: isize) {
        let count = self.view.rows.len() as isize;
        if count > 0 {
            let at = self.selected.unwrap_or(0) as isize;
            self.selected = Some((at + by).rem_euclid(count) as usize);
        }
    }
}

pub fn draw(frame: &mut Frame<'_>, state: &TopState) {
    let view = &state.view;
    let details = state.selected.map_or(0, |_| DETAILS_HEIGHT);
    let [head, table, details, notes, keys] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(2),
        Constraint::Length(details),
        Constraint::Length(view.notes.len() as u16),
        Constraint::Length(state.selected.map_or(0, |_| 1)),
    ])
    .areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let lines = vec![Line::styled(view.cluster.as_str(), bold), Line::raw(view.summary.as_str())];
    frame.render_widget(Paragraph::new(lines), head);
    frame.render_widget(members(state, table.width), table);
    let row = state.selected.and_then(|at| view.rows.get(at));
    if let Some(row) = row {
        let lines: Vec<_> = row.details.iter().map(|line| Line::raw(line.as_str())).collect();
        frame.render_widget(Paragraph::new(lines), details);
    }
    let dim = Style::new().add_modifier(Modifier::DIM);
    let lines: Vec<_> = view.notes.iter().map(|note| Line::styled(note.as_str(), dim)).collect();
    frame.render_widget(Paragraph::new(lines), notes);
    let help = format!(
        "q quit   arrows select   + - interval: every {}",
        gotext::duration(state.interval)
    );
    frame.render_widget(Paragraph::new(Span::styled(help, dim)), keys);
}

/// The members, with the columns that fit.
fn members(state: &TopState, room: u16) -> Table<'static> {
    let rows = &state.view.rows;
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
        let selected = state.selected == Some(n);
        line(columns.iter().map(|&at| row.cells[at].clone()).collect())
            .style(row_style(row, selected))
    });
    Table::new(body, columns.iter().map(|&at| Constraint::Length(widths[at])))
        .header(heading.style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .column_spacing(GAP)
}

fn row_style(row: &MemberRow, selected: bool) -> Style {
    let style = match row.health {
        Health::Healthy => Style::new(),
        Health::Leader => Style::new().fg(Color::Green),
        Health::Unhealthy => Style::new().fg(Color::Yellow),
        Health::Unreachable => Style::new().fg(Color::Red),
    };
    if selected { style.add_modifier(Modifier::REVERSED) } else { style }
}

/// The columns that fit; the least important ones are dropped first.
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
pub fn text(state: &TopState, width: u16) -> String {
    let height = 3 + 1 + state.view.rows.len().max(1) + state.view.notes.len();
    let backend = TestBackend::new(width.max(20), height as u16);
    let Ok(mut terminal) = Terminal::new(backend);
    let Ok(_) = terminal.draw(|frame| draw(frame, state));
    let buffer = terminal.backend().buffer();
    let line = |row: &[ratatui::buffer::Cell]| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    };
    buffer.content().chunks(usize::from(buffer.area().width)).map(line).collect()
}
