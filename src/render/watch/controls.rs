//! What the keys do.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::model::Flow;

/// The times between two looks that `+` and `-` go through.
const PACES: [u64; 8] = [500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000];

/// By what the flows are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// The worst first, as `verdict` has them.
    #[default]
    Worst,
    /// Those with most ports.
    Ports,
    /// The fastest.
    Pace,
    /// Those that run out first.
    Left,
    /// By the server.
    Toward,
}

impl Sort {
    /// As the last line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Ports => "ports",
            Self::Pace => "pace",
            Self::Left => "time left",
            Self::Toward => "server",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Worst => Self::Ports,
            Self::Ports => Self::Pace,
            Self::Pace => Self::Left,
            Self::Left => Self::Toward,
            Self::Toward => Self::Worst,
        }
    }
}

/// What the screen is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// All flows, and the selected one below them.
    Flows,
    /// The selected flow alone, from this line on.
    Flow(usize),
    /// The keys.
    Help,
}

/// What the user has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controls {
    /// The order of the flows.
    pub sort: Sort,
    /// Only flows whose addresses or processes have this in them.
    pub filter: String,
    /// Whether the filter is being typed.
    pub is_typing: bool,
    /// The flow that is told about; `None` for the first.
    pub selected: Option<Flow>,
    /// What is shown.
    pub page: Page,
    /// Whether nothing is looked at.
    pub is_paused: bool,
    /// The time between two looks.
    pub every: Duration,
}

/// What is to be done about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Show what has changed.
    Draw,
    /// Draw all of it anew.
    Redraw,
    /// Stop, as Ctrl-Z does.
    Suspend,
    /// End.
    Quit,
}

impl Controls {
    /// What is asked for before any key.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self {
            sort: Sort::default(),
            filter: String::new(),
            is_typing: false,
            selected: None,
            page: Page::Flows,
            is_paused: false,
            every,
        }
    }

    /// Where the selected flow is among `rows`: the first where it is gone.
    #[must_use]
    pub fn place(&self, rows: &[Flow]) -> usize {
        let place = rows.iter().position(|flow| Some(*flow) == self.selected);
        place.unwrap_or(0)
    }

    /// Takes a key; `rows` tells the flows as they are shown, to a key that needs them: a paste is
    /// thousands of letters at once.
    pub fn update(&mut self, key: KeyEvent, rows: impl FnOnce(&Self) -> Vec<Flow>) -> Deed {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Deed::Quit,
                KeyCode::Char('z') => Deed::Suspend,
                KeyCode::Char('l') => Deed::Redraw,
                _ => Deed::Draw,
            };
        }
        if self.is_typing {
            self.take_letter(key.code);
        } else {
            match key.code {
                KeyCode::Char('q') => return Deed::Quit,
                KeyCode::Esc => self.back(),
                KeyCode::Char('s') => self.sort = self.sort.next(),
                KeyCode::Char('/') => (self.is_typing, self.page) = (true, Page::Flows),
                KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
                KeyCode::Char('+' | '=') => self.every = slower(self.every),
                KeyCode::Char('-') => self.every = faster(self.every),
                KeyCode::Char('?' | 'h') => {
                    self.page = match self.page {
                        Page::Help => Page::Flows,
                        _ => Page::Help,
                    }
                }
                KeyCode::Enter => {
                    self.page = match self.page {
                        Page::Flows if !rows(self).is_empty() => Page::Flow(0),
                        _ => Page::Flows,
                    }
                }
                code => self.go(code, rows),
            }
        }
        Deed::Draw
    }

    fn take_letter(&mut self, code: KeyCode) {
        /// No address and no name that is worth typing is longer.
        const LONGEST: usize = 60;
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.chars().count() < LONGEST => {
                self.filter.push(letter);
            }
            _ => {}
        }
    }

    fn back(&mut self) {
        if self.page == Page::Flows {
            self.filter.clear();
        }
        self.page = Page::Flows;
    }

    fn go(&mut self, code: KeyCode, rows: impl FnOnce(&Self) -> Vec<Flow>) {
        const FAR: usize = 10;
        let to = |from: usize| match code {
            KeyCode::Up | KeyCode::Char('k') => Some(from.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => Some(from.saturating_add(1)),
            KeyCode::PageUp => Some(from.saturating_sub(FAR)),
            KeyCode::PageDown => Some(from.saturating_add(FAR)),
            KeyCode::Home => Some(0),
            KeyCode::End => Some(usize::MAX),
            _ => None,
        };
        match self.page {
            Page::Flows if to(0).is_some() => {
                let rows = rows(self);
                let place = to(self.place(&rows)).unwrap_or(0);
                self.selected = rows.get(place).or(rows.last()).copied();
            }
            Page::Flow(line) => self.page = Page::Flow(to(line).unwrap_or(line)),
            Page::Flows | Page::Help => {}
        }
    }
}

fn slower(every: Duration) -> Duration {
    let mut paces = PACES.into_iter().map(Duration::from_millis);
    paces.find(|pace| *pace > every).unwrap_or(every)
}

fn faster(every: Duration) -> Duration {
    let mut paces = PACES.into_iter().rev().map(Duration::from_millis);
    paces.find(|pace| *pace < every).unwrap_or(every)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::socket;
    use crate::model::TcpState;

    fn flows(ports: &[u16]) -> Vec<Flow> {
        let flow = |&port: &u16| Flow::of(&socket(TcpState::Established, 1, ([10, 0, 0, 2], port)));
        ports.iter().map(flow).collect()
    }

    fn controls() -> Controls {
        Controls::new(Duration::from_secs(2))
    }

    /// After these keys, one a letter; `^` and a letter for one with Ctrl.
    fn after(keys: &[KeyCode], rows: &[Flow]) -> Controls {
        let mut controls = controls();
        for &code in keys {
            assert_eq!(controls.update(code.into(), |_| rows.to_vec()), Deed::Draw);
        }
        controls
    }

    use KeyCode::{Backspace, Char, Down, End, Enter, Esc, Home, PageDown, PageUp, Up};

    #[test]
    fn it_ends_stops_and_draws_anew_as_every_program_does() {
        let mut controls = controls();
        let ctrl = |letter| KeyEvent::new(Char(letter), KeyModifiers::CONTROL);
        assert_eq!(controls.update(Char('q').into(), |_| vec![]), Deed::Quit);
        assert_eq!(controls.update(ctrl('c'), |_| vec![]), Deed::Quit);
        assert_eq!(controls.update(ctrl('z'), |_| vec![]), Deed::Suspend);
        assert_eq!(controls.update(ctrl('l'), |_| vec![]), Deed::Redraw);
        controls.is_typing = true;
        assert_eq!(controls.update(ctrl('c'), |_| vec![]), Deed::Quit);
        assert_eq!(controls.update(Char('q').into(), |_| vec![]), Deed::Draw);
        assert_eq!(controls.filter, "q");
    }

    #[test]
    fn a_flow_is_selected_and_stays_so_where_the_order_changes() {
        let rows = flows(&[80, 81, 82, 83]);
        for (keys, place) in [
            (&[][..], 0),
            (&[Down][..], 1),
            (&[Down, Char('j'), Up], 1),
            (&[Up], 0),
            (&[End], 3),
            (&[End, Down], 3),
            (&[PageDown, Char('k')], 2),
            (&[End, PageUp], 0),
            (&[End, Home], 0),
        ] {
            assert_eq!(after(keys, &rows).place(&rows), place, "{keys:?}");
        }
        let controls = after(&[Down], &rows);
        assert_eq!(controls.place(&flows(&[82, 83, 81])), 2);
        assert_eq!(controls.place(&flows(&[82, 83])), 0, "it is gone");
        assert_eq!(after(&[Down, Down], &[]).selected, None);
    }

    #[test]
    fn a_filter_is_typed_kept_and_taken_back() {
        let typed = [Char('/'), Char('d'), Char('b'), Char('q'), Backspace];
        let typing = after(&typed, &[]);
        assert_eq!((&*typing.filter, typing.is_typing), ("db", true));
        let kept = after(&[&typed[..], &[Enter]].concat(), &[]);
        assert_eq!((&*kept.filter, kept.is_typing), ("db", false));
        let cleared = after(&[&typed[..], &[Esc]].concat(), &[]);
        assert_eq!((&*cleared.filter, cleared.is_typing), ("", false));
        assert_eq!(after(&[&typed[..], &[Enter, Esc]].concat(), &[]).filter, "");
    }

    #[test]
    fn a_letter_that_is_typed_needs_no_flows() {
        let mut controls = after(&[Char('/')], &[]);
        for letter in "mysqld ".chars().cycle().take(10_000) {
            let deed = controls.update(Char(letter).into(), |_| panic!("flows are asked for"));
            assert_eq!(deed, Deed::Draw);
        }
        assert_eq!(controls.filter.len(), 60);
    }

    #[test]
    fn pages_are_opened_and_left() {
        let rows = flows(&[80]);
        for (keys, page) in [
            (&[Enter][..], Page::Flow(0)),
            (&[Enter, Down, Down, Up], Page::Flow(1)),
            (&[Enter, Esc], Page::Flows),
            (&[Enter, Enter], Page::Flows),
            (&[Char('?')], Page::Help),
            (&[Char('?'), Char('?')], Page::Flows),
            (&[Char('h'), Esc], Page::Flows),
            (&[Enter, Char('/')], Page::Flows),
        ] {
            assert_eq!(after(keys, &rows).page, page, "{keys:?}");
        }
        assert_eq!(after(&[Enter], &[]).page, Page::Flows);
    }

    #[test]
    fn order_pause_and_pace_go_round() {
        let sorts = |times| after(&vec![Char('s'); times], &[]).sort;
        assert_eq!(
            (sorts(0), sorts(1), sorts(5)),
            (Sort::Worst, Sort::Ports, Sort::Worst)
        );
        assert!(after(&[Char('p')], &[]).is_paused);
        assert!(!after(&[Char(' '), Char('p')], &[]).is_paused);
        for (keys, pace) in [
            (&[Char('+')][..], 5000),
            (&[Char('-')], 1000),
            (&[Char('-'); 9], 500),
            (&[Char('+'); 9], 60_000),
        ] {
            assert_eq!(after(keys, &[]).every, Duration::from_millis(pace));
        }
        assert_eq!(slower(Duration::from_secs(3)), Duration::from_secs(5));
        assert_eq!(faster(Duration::from_secs(3)), Duration::from_secs(2));
    }
}
