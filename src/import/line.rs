//! One line of `turnserver.conf`, taken apart as coturn does it.

/// A key and what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Counted from one.
    pub(super) number: usize,
    pub(super) key: &'a str,
    /// Without the quotes around it; empty if there is none.
    pub(super) value: &'a str,
}

/// The lines that say anything.
pub(super) fn read(text: &str) -> Vec<Line<'_>> {
    text.split('\n')
        .enumerate()
        .filter_map(|(index, line)| Line::read(index + 1, line))
        .collect()
}

impl<'a> Line<'a> {
    /// Comments have a line of their own: `#` further on is part of the value.
    fn read(number: usize, line: &'a str) -> Option<Self> {
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (key, value) = match line.find(is_separator) {
            Some(end) => (&line[..end], line[end..].trim_start_matches(is_separator)),
            None => (line, ""),
        };
        Some(Self {
            number,
            key,
            value: unquoted(value),
        })
    }

    /// On or off; nothing for words that coturn does not know, at which it ends.
    pub(super) fn switch(&self) -> Option<bool> {
        let first = self
            .value
            .bytes()
            .next()
            .map(|byte| byte.to_ascii_lowercase());
        match (self.value.to_ascii_lowercase().as_str(), first) {
            ("" | "on", _) => Some(true),
            ("off", _) => Some(false),
            (_, Some(b'0' | b'n' | b'f')) => Some(false),
            (_, Some(b'1'..=b'9' | b'y' | b't')) => Some(true),
            (_, _) => None,
        }
    }

    /// The number that the value begins with; what follows it counts for nothing.
    pub(super) fn leading_number(&self) -> Option<u64> {
        let end = self
            .value
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(self.value.len());
        self.value[..end].parse().ok()
    }

    /// Whether the value was not text.
    pub(super) fn is_broken(&self) -> bool {
        self.value.contains(char::REPLACEMENT_CHARACTER)
    }
}

/// The white space of the C library.
fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n' | '\x0b' | '\x0c')
}

fn is_separator(letter: char) -> bool {
    matches!(letter, ' ' | '=' | '\t')
}

/// A quote in front is taken off, and one at the end if there was one in front.
fn unquoted(value: &str) -> &str {
    match value.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_as_coturn_does_it() {
        let text = "# a comment\n\n  realm = example.org \r\nfingerprint\nuser\t=ann:\"b c\"\n\
                    cipher-list=\"HIGH:!aNULL\"\nuser-quota=12 # twelve\nx=\"open\n=odd";
        let lines: Vec<_> = read(text)
            .iter()
            .map(|line| (line.number, line.key, line.value))
            .collect();
        assert_eq!(
            lines,
            [
                (3, "realm", "example.org"),
                (4, "fingerprint", ""),
                (5, "user", "ann:\"b c\""),
                (6, "cipher-list", "HIGH:!aNULL"),
                (7, "user-quota", "12 # twelve"),
                (8, "x", "open"),
                (9, "", "odd"),
            ]
        );
        assert_eq!(read(text)[4].leading_number(), Some(12));
    }

    #[test]
    fn switches_have_many_words() {
        let switch = |value| {
            let line = Line {
                number: 1,
                key: "no-tcp",
                value,
            };
            line.switch()
        };
        for on in ["", "1", "on", "ON", "yes", "true", "t", "7"] {
            assert_eq!(switch(on), Some(true), "{on}");
        }
        for off in ["0", "off", "Off", "no", "false", "F"] {
            assert_eq!(switch(off), Some(false), "{off}");
        }
        assert_eq!(switch("maybe"), None);
    }
}
