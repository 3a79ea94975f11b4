use std::io::{self, Write};

use comfy_table::{
    CellAlignment, Column, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use textwrap::core::display_width;

use crate::render::Screen;
use crate::render::screen::parted;

/// Between two columns.
pub const GAP: u16 = 2;

/// A table without lines, as wide as it needs, at most as wide as the screen. No word in it is ever
/// broken: where not even the longest words have room side by side, each row is a paragraph.
pub struct Grid {
    screen: Screen,
    headings: Vec<String>,
    /// Which columns stand to the right.
    numbers: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table without rows.
    pub fn new(screen: Screen, headings: &[&str], numbers: &[usize]) -> Self {
        Self {
            screen,
            headings: headings.iter().map(ToString::to_string).collect(),
            numbers: numbers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// A row, a cell for each heading.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let spelled = |cell: T| self.screen.spelled(cell.as_ref()).into_owned();
        self.rows.push(cells.into_iter().map(spelled).collect());
    }

    /// Whether the screen is wide enough for the columns.
    pub fn fits(&self) -> bool {
        let columns = self.headings.len();
        let gaps = usize::from(GAP) * columns.saturating_sub(1);
        let needed = (0..columns).map(|column| self.least(column)).sum::<usize>() + gaps;
        let width = self.screen.width.map(usize::from);
        width.is_none_or(|width| needed <= width)
    }

    /// The table line by line, without blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        let table = if self.fits() {
            self.table()
        } else {
            self.paragraphs()
        };
        parted(&table.trim_fmt())
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Writes the table.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.lines()
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))
    }

    /// The width of the longest word of a column; numbers are never parted.
    fn least(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].as_str());
        let all = cells.chain([self.headings[column].as_str()]);
        if self.numbers.contains(&column) {
            return all.map(display_width).max().unwrap_or(0);
        }
        longest_word(all)
    }

    fn table(&self) -> Table {
        let mut table = empty(self.screen);
        table.set_header(&self.headings).add_rows(&self.rows);
        for (number, column) in table.column_iter_mut().enumerate() {
            let is_last = number + 1 == self.headings.len();
            column.set_padding((0, if is_last { 0 } else { GAP }));
            at_least(column, self.least(number));
            if self.numbers.contains(&number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// Each row as lines of heading and cell, with a blank line before it.
    fn paragraphs(&self) -> Table {
        let mut table = empty(self.screen);
        for row in &self.rows {
            // A row that begins with nothing goes on with the one before.
            if row.first().is_some_and(|cell| !cell.is_empty()) && table.row_count() > 0 {
                table.add_row(["", ""]);
            }
            let cells = self.headings.iter().zip(row);
            table.add_rows(
                cells
                    .filter(|(_, cell)| !cell.is_empty())
                    .map(|(heading, cell)| [heading, cell]),
            );
        }
        let words = [
            longest_word(self.headings.iter().map(String::as_str)),
            longest_word(self.rows.iter().flatten().map(String::as_str)),
        ];
        for ((column, word), gap) in table.column_iter_mut().zip(words).zip([GAP, 0]) {
            column.set_padding((0, gap));
            at_least(column, word);
        }
        table
    }
}

fn longest_word<'a>(cells: impl Iterator<Item = &'a str>) -> usize {
    let words = cells.flat_map(|cell| cell.split(' ').map(display_width));
    words.max().unwrap_or(0)
}

/// Keeps `width` for what stands in `column`.
fn at_least(column: &mut Column, width: usize) {
    let whole = width + usize::from(column.padding_width());
    let whole = Width::Fixed(u16::try_from(whole).unwrap_or(u16::MAX));
    column.set_constraint(ColumnConstraint::LowerBoundary(whole));
}

fn empty(screen: Screen) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = screen.width {
        table.set_width(width);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(width: Option<u16>, headings: &[&str], rows: &[&[&str]]) -> Vec<String> {
        let screen = Screen {
            width,
            height: None,
            colour: false,
            in_ascii: false,
        };
        let mut grid = Grid::new(screen, headings, &[1]);
        for row in rows {
            grid.row(row.iter());
        }
        grid.lines()
    }

    const HEADINGS: [&str; 3] = ["FROM", "SOCKETS", "STATES"];

    const FLOWS: [&[&str]; 2] = [
        &["2001:db8::12", "50", "50 TIME_WAIT"],
        &["::1", "8,000", "5 TIME_WAIT, 3 ESTABLISHED"],
    ];

    #[test]
    fn numbers_stand_to_the_right_and_no_line_ends_in_blanks() {
        assert_eq!(
            shown(None, &HEADINGS, &FLOWS),
            [
                "FROM          SOCKETS  STATES",
                "2001:db8::12       50  50 TIME_WAIT",
                "::1             8,000  5 TIME_WAIT, 3 ESTABLISHED",
            ]
        );
    }

    #[test]
    fn text_is_wrapped_between_words_down_to_the_longest() {
        assert_eq!(
            shown(Some(40), &HEADINGS, &FLOWS),
            [
                "FROM          SOCKETS  STATES",
                "2001:db8::12       50  50 TIME_WAIT",
                "::1             8,000  5 TIME_WAIT, 3",
                "                       ESTABLISHED",
            ]
        );
        assert_eq!(
            shown(Some(34), &HEADINGS, &FLOWS),
            [
                "FROM          SOCKETS  STATES",
                "2001:db8::12       50  50",
                "                       TIME_WAIT",
                "::1             8,000  5",
                "                       TIME_WAIT,",
                "                       3",
                "                       ESTABLISHED",
            ]
        );
    }

    #[test]
    fn where_no_word_has_room_a_row_is_a_paragraph_and_one_that_begins_empty_goes_on() {
        let goes_on: &[&str] = &["", "9", "9 CLOSE_WAIT, 1 SYN_SENT, 2 LAST_ACK"];
        assert_eq!(
            shown(Some(33), &HEADINGS, &[FLOWS[0], FLOWS[1], goes_on]),
            [
                "FROM     2001:db8::12",
                "SOCKETS  50",
                "STATES   50 TIME_WAIT",
                "",
                "FROM     ::1",
                "SOCKETS  8,000",
                "STATES   5 TIME_WAIT, 3",
                "         ESTABLISHED",
                "SOCKETS  9",
                "STATES   9 CLOSE_WAIT, 1",
                "         SYN_SENT, 2 LAST_ACK",
            ]
        );
    }

    #[test]
    fn columns_are_counted_as_a_terminal_shows_them() {
        let rows: [&[&str]; 2] = [&["名前", "1", "x"], &["abcd", "10", "≥1"]];
        assert_eq!(
            shown(None, &["NAME", "N", "IT"], &rows),
            ["NAME   N  IT", "名前   1  x", "abcd  10  ≥1"]
        );
    }

    /// Whatever stands in a table, and however wide the screen is: each word is there in one piece,
    /// and no line is wider unless one word is.
    #[test]
    fn no_table_breaks_a_word() {
        use proptest::prelude::*;
        let word = || "[a-z:.]{1,12}";
        let cell = proptest::collection::vec(word(), 1..5).prop_map(|words| words.join(" "));
        let row =
            (word(), "[0-9]{1,6}", cell).prop_map(|(from, number, text)| [from, number, text]);
        let rows = proptest::collection::vec(row, 1..6);
        proptest!(|(rows in rows, width in 40_u16..90)| {
            let cells: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
            let cells: Vec<&[&str]> = cells.iter().map(Vec::as_slice).collect();
            let lines = shown(Some(width), &HEADINGS, &cells);
            let mut there: Vec<_> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
            for word in rows.iter().flatten().flat_map(|cell| cell.split(' ')) {
                let at = there.iter().position(|shown| *shown == word);
                prop_assert!(at.is_some(), "{word}: {lines:?}");
                there.swap_remove(at.unwrap());
            }
            prop_assert!(lines.iter().all(|line| line.len() <= width.into()), "{lines:?}");
        });
    }
}
