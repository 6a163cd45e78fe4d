//! Secrets on their way from the old file into files of their own.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A secret that the configuration names a file for.
#[derive(Clone)]
pub struct Secret {
    /// The line it stands on in the old file.
    pub line: usize,
    /// The file it has to be put into; an absolute path.
    pub file: PathBuf,
    /// What has to stand in it.
    pub value: Zeroizing<String>,
    /// Is it behind a name and a colon?
    pub(super) is_named: bool,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "secret of line {} for {}",
            self.line,
            self.file.display()
        )
    }
}

impl Secret {
    /// The command for a shell that takes the secret out of the old file and puts it into its own, without showing it
    /// and without overwriting anything.
    pub fn command(&self, old: &Path) -> String {
        let named = if self.is_named { "s/^[^:]*://;" } else { "" };
        // The key, what separates it from the value, the space at the end, the quotes.
        let script = format!(
            "{}{{s/^[[:space:]]*[^[:blank:]=]*[[:blank:]=]*//;s/[[:space:]]*$//;/^\"/{{s/^\"//;s/\"$//;}};{named}p;}}",
            self.line
        );
        format!(
            "(umask 077; set -C; sed -n {} {} > {})",
            quoted(&script),
            quoted(&old.to_string_lossy()),
            quoted(&self.file.to_string_lossy())
        )
    }
}

/// A word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:@%".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
