use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use textwrap::core::display_width;

use crate::judge::level::Level;
use crate::render::Screen;
use crate::words::percent;

/// Writes as the screen can show it, in lines of its width.
#[derive(Debug, Clone, Copy)]
pub struct Pen {
    screen: Screen,
    width: usize,
}

impl Pen {
    pub fn new(screen: Screen, width: u16) -> Self {
        let screen = Screen {
            width: Some(width),
            ..screen
        };
        Self {
            screen,
            width: width.into(),
        }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn span(&self, text: &str) -> Span<'static> {
        Span::raw(self.screen.spelled(text).into_owned())
    }

    pub fn plain(&self, text: &str) -> Line<'static> {
        Line::from(Span::raw(self.fitted(text, self.width)))
    }

    /// `text` in the colour of `level`, where colour is welcome.
    pub fn level(&self, level: Level, text: &str) -> Span<'static> {
        self.span(text).style(self.style(level))
    }

    pub fn style(&self, level: Level) -> Style {
        let colour = match level {
            Level::Ok => Color::Green,
            Level::Unknown => Color::Magenta,
            Level::Warning => Color::Yellow,
            Level::Critical => Color::Red,
        };
        self.coloured(Style::new().fg(colour).add_modifier(Modifier::BOLD))
    }

    pub fn spelled(&self, text: &str) -> String {
        self.screen.spelled(text).into_owned()
    }

    /// A heading.
    pub fn strong(&self, text: &str) -> Line<'static> {
        let style = Style::new().add_modifier(Modifier::BOLD);
        self.plain(text).style(self.coloured(style))
    }

    /// Where no colour is welcome nothing else is either.
    fn coloured(&self, style: Style) -> Style {
        if self.screen.colour {
            style
        } else {
            Style::new()
        }
    }

    /// `text` in at most `width` columns: of one that is longer the end is left out.
    pub fn fitted(&self, text: &str, width: usize) -> String {
        let text = self.screen.spelled(text);
        if display_width(&text) <= width {
            return text.into_owned();
        }
        self.broken_off(&text, width)
    }

    /// `text` and that there is more of it, in at most `width` columns.
    fn broken_off(&self, text: &str, width: usize) -> String {
        let more = self.screen.spelled("…");
        let mut fitted = String::new();
        for letter in text.chars() {
            fitted.push(letter);
            if display_width(&fitted) + display_width(&more) > width {
                fitted.pop();
                break;
            }
        }
        fitted.push_str(&more);
        fitted
    }

    /// The same with the beginning left out: of an address the end tells more.
    pub fn fitted_left(&self, text: &str, width: usize) -> String {
        let turned = |text: &str| text.chars().rev().collect::<String>();
        turned(&self.fitted(&turned(text), width))
    }

    /// `left` at the left and `right` at the right; `right` stays whole.
    pub fn both_ends(&self, left: &str, right: &str) -> Line<'static> {
        let right = self.fitted(right, self.width);
        let room = self.width - display_width(&right);
        let left = self.fitted(left, room.saturating_sub(2));
        let gap = " ".repeat(room.saturating_sub(display_width(&left)));
        Line::from(Span::raw(format!("{left}{gap}{right}")))
    }

    /// `text` wrapped, every line but the first after as many blanks as `first` is long.
    pub fn wrapped(&self, first: &str, text: &str) -> Vec<Line<'static>> {
        let indent = " ".repeat(first.len());
        let wrapped = self.screen.wrap(first, &indent, text);
        wrapped.lines().map(|line| self.plain(line)).collect()
    }

    /// `LEVEL: text`, on at most so many lines.
    pub fn sentence(&self, level: Level, text: &str, most: usize) -> Vec<Line<'static>> {
        let word = level.word();
        let mut lines = self.wrapped(&format!("{word}: "), text);
        if lines.len() > most {
            lines.truncate(most);
            let last = lines[most - 1].to_string();
            lines[most - 1] = Line::from(self.broken_off(&last, self.width));
        }
        if let Some(first) = lines.first_mut() {
            let rest = first.to_string().split_off(word.len());
            *first = Line::from(vec![self.level(level, word), Span::raw(rest)]);
        }
        lines
    }

    /// `lines`, or as many as there is room for and that there are more.
    pub fn cut(&self, mut lines: Vec<Line<'static>>, room: usize) -> Vec<Line<'static>> {
        if lines.len() > room {
            lines.truncate(room);
            if let Some(last) = lines.last_mut() {
                *last = Line::from(self.broken_off(&last.to_string(), self.width));
            }
        }
        lines
    }

    /// A bar of `taken` in `all`, with a mark at one number of them.
    pub fn gauge(
        &self,
        (taken, all): (u32, u32),
        mark: Option<u32>,
        room: usize,
        level: Level,
    ) -> Line<'static> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Of some hundred.
        let place = |number: u32| {
            #[expect(clippy::cast_precision_loss)]
            let columns = room as f64 * percent(number, all) / 100.0;
            columns.round() as usize
        };
        // One port is not none, and all but one are not all.
        let full = match (place(taken), taken) {
            (0, 1..) => 1,
            (columns, _) if taken < all => columns.min(room.saturating_sub(1)),
            (columns, _) => columns.min(room),
        };
        let mark = mark.map(place);
        let letter = |column| match column {
            _ if Some(column) == mark => '│',
            _ if column < full => '▇',
            _ => '─',
        };
        let part = |from, to| (from..to).map(letter).collect::<String>();
        Line::from(vec![
            self.level(level, &part(0, full)),
            self.span(&part(full, room)),
        ])
    }
}
