//! The terminal, and its key presses.

use std::{io, time::Duration};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::sync::mpsc;

use crate::lane::Lanes;

/// The delay after which the lane notices that its receiver is gone.
const KEY_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The terminal in raw mode, which ends when this is dropped.
#[derive(Debug)]
pub struct Terminal(DefaultTerminal);

impl Terminal {
    pub fn enter() -> io::Result<Terminal> {
        Ok(Terminal(ratatui::try_init()?))
    }

    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// The command of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    Quit,
    Next,
    Previous,
    Slower,
    Faster,
    /// The window was resized.
    Redraw,
}

/// Key presses. The queue is short: a full one blocks the lane that reads keys.
#[derive(Debug)]
pub struct KeyPresses(mpsc::Receiver<io::Result<Press>>);

impl KeyPresses {
    pub fn listen() -> KeyPresses {
        let (presses, pressed) = mpsc::channel(8);
        tokio::spawn(async move {
            let failed = presses.clone();
            let lane = Lanes::Threads.run("keys", move || read(&presses)).await;
            if let Err(error) = lane {
                // Without a receiver, the error has no reader.
                let _ = failed.send(Err(error)).await;
            }
        });
        KeyPresses(pressed)
    }

    pub async fn press(&mut self) -> io::Result<Press> {
        self.0.recv().await.unwrap_or(Ok(Press::Quit))
    }
}

fn read(presses: &mpsc::Sender<io::Result<Press>>) {
    while !presses.is_closed() {
        let read = match event::poll(KEY_POLL_INTERVAL) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if let Some(press) = read.map(|event| meaning(&event)).transpose()
            && (presses.blocking_send(press).is_err() || failed)
        {
            return;
        }
    }
}

fn meaning(event: &Event) -> Option<Press> {
    match event {
        Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => None,
        Event::Key(KeyEvent { code, modifiers, .. }) => match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Press::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Press::Quit),
            KeyCode::Down | KeyCode::Right | KeyCode::Tab | KeyCode::Char('j') => Some(Press::Next),
            KeyCode::Up | KeyCode::Left | KeyCode::BackTab | KeyCode::Char('k') => {
                Some(Press::Previous)
            }
            KeyCode::Char('+' | '=') => Some(Press::Slower),
            KeyCode::Char('-') => Some(Press::Faster),
            _ => None,
        },
        Event::Resize(..) => Some(Press::Redraw),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_footer_says() {
        let press = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::NONE), Some(Press::Quit));
        // In a raw terminal Ctrl-C is a key.
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Press::Quit));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(press(KeyCode::Down, KeyModifiers::NONE), Some(Press::Next));
        assert_eq!(press(KeyCode::BackTab, KeyModifiers::SHIFT), Some(Press::Previous));
        assert_eq!(press(KeyCode::Char('+'), KeyModifiers::NONE), Some(Press::Slower));
    }
}
