//! How things look to people: sizes, times, and tables that fit.

use std::env;
use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;

/// No column that can be cut is cut to less.
const NARROWEST: usize = 8;

/// Standard output, as far as it matters to how things look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub(super) width: usize,
    pub(super) colours: bool,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let size = tcgetwinsize(io::stdout()).ok().filter(|_| is_terminal);
        Self {
            // What goes to another program is not cut.
            width: size.map_or(usize::MAX, |size| usize::from(size.ws_col).max(60)),
            colours: is_terminal && may_colour(),
        }
    }

    /// For headings.
    pub(super) fn dim(self, text: &str) -> String {
        self.painted(text, "2")
    }

    /// For what is well.
    pub(super) fn good(self, text: &str) -> String {
        self.painted(text, "32")
    }

    /// For what wants to be looked at.
    pub(super) fn odd(self, text: &str) -> String {
        self.painted(text, "33")
    }

    /// For what is not well.
    pub(super) fn bad(self, text: &str) -> String {
        self.painted(text, "31")
    }

    fn painted(self, text: &str, colour: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether colours are wanted where there is a terminal for them (<https://no-color.org>).
pub(super) fn may_colour() -> bool {
    let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let able = env::var_os("TERM").is_some_and(|term| term != "dumb");
    able && !unwanted
}

/// 0, 999, 1.2 k, 34 M: three digits at most.
fn scaled(number: u64) -> (String, &'static str) {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut scale = 0;
    let mut value = number as f64;
    // What would be rounded up to a thousand is one of the next unit.
    while value >= 999.5 && scale + 1 < UNITS.len() {
        value /= 1000.0;
        scale += 1;
    }
    let text = if scale > 0 && value < 9.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    };
    (text, UNITS[scale])
}

/// An amount of data.
pub(super) fn bytes(number: u64) -> String {
    let (text, unit) = scaled(number);
    format!("{text} {unit}B")
}

/// How fast data go, from bits per second.
pub(super) fn rate(bits: u64) -> String {
    let (text, unit) = scaled(bits);
    format!("{text} {unit}bit/s")
}

/// The same, in a column that says what it is.
pub(super) fn short_rate(bits: u64) -> String {
    let (text, unit) = scaled(bits);
    format!("{text}{unit}")
}

/// A number of things.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

/// A time, in its two largest units: 45s, 3m20s, 2h05m, 3d4h.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        (_, _, _) => format!("{days}d{}h", hours % 24),
    }
}

/// A text that no longer can steer a terminal, or end its line.
pub(super) fn plain(text: &str) -> String {
    let steers = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .map(|letter| if steers(letter) { '\u{fffd}' } else { letter })
        .collect()
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) side: Side,
    /// May it be cut to fit?
    pub(super) yields: bool,
}

/// To which side a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Column {
    pub(super) const fn left(name: &'static str) -> Self {
        Self {
            name,
            side: Side::Left,
            yields: false,
        }
    }

    pub(super) const fn right(name: &'static str) -> Self {
        Self {
            name,
            side: Side::Right,
            yields: false,
        }
    }

    /// One that is cut where the table would not fit.
    pub(super) const fn yielding(self) -> Self {
        Self {
            yields: true,
            ..self
        }
    }
}

/// A table that fits the screen.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], screen: Screen) -> String {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().map(|row| width(&row[index]));
            cells.max().unwrap_or(0).max(width(column.name))
        })
        .collect();
    fit(&mut widths, columns, screen.width);
    let mut text = String::new();
    let names: Vec<String> = columns
        .iter()
        .map(|column| column.name.to_owned())
        .collect();
    text.push_str(&screen.dim(&line(&names, columns, &widths)));
    text.push('\n');
    for row in rows {
        text.push_str(&line(row, columns, &widths));
        text.push('\n');
    }
    text
}

/// Takes from the widest of the columns that yield until the table fits.
fn fit(widths: &mut [usize], columns: &[Column], most: usize) {
    let gaps = 2 * columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > most {
        let yielding = (0..widths.len())
            .filter(|index| columns[*index].yields && widths[*index] > NARROWEST)
            .max_by_key(|index| widths[*index]);
        let Some(widest) = yielding else { return };
        widths[widest] -= 1;
    }
}

fn line(cells: &[String], columns: &[Column], widths: &[usize]) -> String {
    let cells = cells.iter().zip(columns).zip(widths);
    let cells: Vec<String> = cells
        .map(|((cell, column), most)| {
            let cell = cut(cell, *most);
            let space = " ".repeat(most.saturating_sub(width(&cell)));
            match column.side {
                Side::Left => cell + &space,
                Side::Right => space + &cell,
            }
        })
        .collect();
    cells.join("  ").trim_end().to_owned()
}

/// The beginning of a text, with a sign that it goes on.
pub(super) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_at_most() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(rate(4_200_000), "4.2 Mbit/s");
        assert_eq!(short_rate(4_200_000), "4.2M");
    }

    #[test]
    fn times_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (200, "3m20s"),
            (7500, "2h05m"),
            (100 * 3600, "4d4h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_table_fits_and_keeps_what_must_not_be_cut() {
        let columns = [
            Column::left("ID"),
            Column::left("USER").yielding(),
            Column::right("AGE"),
        ];
        let rows = [
            vec![
                "00ab000000000001".to_owned(),
                "x".repeat(200),
                "5s".to_owned(),
            ],
            vec![
                "00ab000000000002".to_owned(),
                "bob".to_owned(),
                "2h05m".to_owned(),
            ],
        ];
        let screen = Screen {
            width: 60,
            colours: false,
        };
        let text = table(&columns, &rows, screen);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        for line in &lines {
            assert_eq!(line.chars().count(), 60, "{line}");
        }
        assert!(lines[1].starts_with("00ab000000000001  xxxx") && lines[1].ends_with("x…     5s"));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn what_clients_call_themselves_steers_no_terminal() {
        assert_eq!(
            plain("eve\x1b[2J\n\u{202e}"),
            "eve\u{fffd}[2J\u{fffd}\u{fffd}"
        );
    }
}
