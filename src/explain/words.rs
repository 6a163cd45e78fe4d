//! Numbers and names in words.

/// A span of time, as exact as is of use: `17 s`, `4 min 20 s`, `3 h 5 min`, `2 days`.
pub(super) fn span(seconds: u64) -> String {
    let parts = |large: u64, unit: &str, small: u64, of: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {of}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => parts(seconds / 60, "min", seconds % 60, "s"),
        3600..172_800 => parts(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number of things: `1 packet`, `2 packets`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// How often: `once`, `twice`, `3 times`.
pub(super) fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

/// A username, which is the client's word.
pub(super) fn name(username: &[u8]) -> String {
    const SHOWN: usize = 128;
    let shown = &username[..username.len().min(SHOWN)];
    shown.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_exact_as_is_of_use() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (260, "4 min 20 s"),
            (3600, "1 h"),
            (11_100, "3 h 5 min"),
            (172_799, "47 h 59 min"),
            (200_000, "2 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(
            [counted(1, "packet"), counted(0, "packet")],
            ["1 packet", "0 packets"]
        );
        assert_eq!([times(1), times(2), times(3)], ["once", "twice", "3 times"]);
        assert_eq!(name(b"a\x07\xff"), "a\\x07\\xff");
    }
}
