//! The terminal, taken and given back.

use std::io::{self, Stdout, stdout};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::{Scene, draw};
use crate::render::Screen;

/// The whole terminal; it is as it was once this is gone, whatever made it go.
#[derive(Debug)]
pub struct Stage {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    screen: Screen,
}

impl Stage {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn enter(screen: Screen) -> io::Result<Self> {
        let stage = Self {
            terminal: Terminal::new(CrosstermBackend::new(stdout()))?,
            screen,
        };
        take()?;
        Ok(stage)
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn show(&mut self, scene: &Scene<'_>) -> io::Result<()> {
        self.terminal
            .draw(|frame| draw(scene, self.screen, frame))?;
        Ok(())
    }

    /// Takes the terminal again, whoever had it meanwhile.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn renew(&mut self) -> io::Result<()> {
        self.leave_for(|| Ok(()))
    }

    /// Gives the terminal back for as long as `meanwhile` takes.
    ///
    /// # Errors
    /// When it cannot be had again, or `meanwhile` fails.
    pub fn leave_for(&mut self, meanwhile: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        give_back()?;
        meanwhile()?;
        take()?;
        self.terminal.clear()
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)
}

fn give_back() -> io::Result<()> {
    // The one first that needs no room on a terminal that is slow.
    disable_raw_mode()?;
    execute!(stdout(), LeaveAlternateScreen, Show)
}

impl Drop for Stage {
    fn drop(&mut self) {
        // One that has gone needs nothing.
        let _ = give_back();
    }
}
