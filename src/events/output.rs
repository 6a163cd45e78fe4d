//! Where lines go: standard output, or the end of a file.
//!
//! Whoever rotates logs may move the file away at any time: the next line begins another one in its place. A line that was
//! cut, by a full disk or a crash, stays on a line of its own: what follows can be read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::Sink;

/// An open one.
pub(super) struct Output {
    file: File,
    /// Nothing for standard output.
    path: Option<PathBuf>,
    /// Is there a line without an end?
    torn: bool,
}

impl Output {
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn open(sink: &Sink) -> io::Result<Self> {
        match sink {
            Sink::Stdout => Ok(Self {
                file: io::stdout().as_fd().try_clone_to_owned()?.into(),
                path: None,
                torn: false,
            }),
            Sink::File(path) => {
                let named = |error| io::Error::other(format!("{}: {error}", path.display()));
                Ok(Self {
                    torn: ends_amid_a_line(path),
                    file: append_to(path).map_err(named)?,
                    path: Some(path.clone()),
                })
            }
        }
    }

    /// In one piece, so that whoever reads along sees whole lines.
    ///
    /// # Errors
    /// If it cannot be written. What was written of it is not mixed with the next line.
    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        self.follow();
        let end = if self.torn { "\n" } else { "" };
        let whole = [end, text, "\n"].concat();
        let mut rest = whole.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty() && rest.len() != text.len() + 1;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Begins another file if this one is no more where it was.
    fn follow(&mut self) {
        let Some(path) = &self.path else { return };
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let own = self.file.metadata().map(identity).ok();
        if fs::metadata(path).map(identity).ok() == own {
            return;
        }
        match append_to(path) {
            Ok(file) => {
                self.file = file;
                self.torn = ends_amid_a_line(path);
            }
            Err(error) => {
                let path = path.display();
                warn!(%path, %error, "session events go on to the file that was moved away: there can be no new one");
            }
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640).open(path)
}

/// Whether somebody was interrupted who wrote it.
fn ends_amid_a_line(path: &Path) -> bool {
    // Only of a file: whoever opens a pipe waits for the other end.
    let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
    let last = || {
        let file = File::open(path).ok()?;
        let at = file.metadata().ok()?.len().checked_sub(1)?;
        let mut last = [0];
        file.read_exact_at(&mut last, at).ok()?;
        Some(last)
    };
    is_file && last().is_some_and(|last| last != *b"\n")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("turnd-output-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        fn output(&self) -> Output {
            Output::open(&Sink::File(self.0.join("events"))).unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_that_was_moved_away_gets_no_more_lines() {
        let place = Place::new("moved");
        let mut output = place.output();
        output.write("1").unwrap();
        fs::rename(place.0.join("events"), place.0.join("events.1")).unwrap();
        output.write("2").unwrap();
        output.write("3").unwrap();
        assert_eq!(place.read("events.1"), "1\n");
        assert_eq!(place.read("events"), "2\n3\n");
        // Somebody has made the new one already.
        fs::rename(place.0.join("events"), place.0.join("events.2")).unwrap();
        fs::write(place.0.join("events"), "").unwrap();
        output.write("4").unwrap();
        assert_eq!(place.read("events"), "4\n");
        // It was copied, and cut to nothing.
        let file = OpenOptions::new().write(true).open(place.0.join("events"));
        file.unwrap().set_len(0).unwrap();
        output.write("5").unwrap();
        assert_eq!(place.read("events"), "5\n");
    }

    #[test]
    fn where_no_new_file_can_be_made_nothing_is_lost() {
        let place = Place::new("gone");
        let mut output = place.output();
        let away = place.0.with_extension("away");
        fs::rename(&place.0, &away).unwrap();
        output.write("1").unwrap();
        let text = fs::read_to_string(away.join("events"));
        fs::rename(&away, &place.0).unwrap();
        assert_eq!(text.unwrap(), "1\n");
    }

    #[test]
    fn a_full_disk_spoils_one_line_and_not_the_next() {
        // A socket that nobody reads from is soon as full as a disk.
        let (mut reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let mut output = Output {
            file: OwnedFd::from(writer).into(),
            path: None,
            torn: false,
        };
        let long = "x".repeat(10 << 20);
        output.write(&long).unwrap_err();
        output.write(&long).unwrap_err();
        let mut read = vec![0; 10 << 20];
        let half = reader.read(&mut read).unwrap();
        output.write("whole").unwrap();
        output.write("again").unwrap();
        drop(output);
        read.truncate(half);
        reader.read_to_end(&mut read).unwrap();
        let text = String::from_utf8(read).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[lines.len() - 2..], ["whole", "again"]);
        assert!(lines.iter().all(|line| !line.is_empty()));
    }

    #[test]
    fn what_follows_a_line_that_was_cut_is_whole() {
        let place = Place::new("cut");
        fs::write(place.0.join("events"), "1\n{\"half").unwrap();
        let mut output = place.output();
        output.write("2").unwrap();
        output.write("3").unwrap();
        assert_eq!(place.read("events"), "1\n{\"half\n2\n3\n");
    }
}
