//! Events that wait for a receiver: on disk, so that a restart loses none, and bounded, so that a receiver that is gone
//! fills no disk.
//!
//! A spool is a directory of numbered files with one event a line. New lines go to the last file; whoever delivers takes
//! the first one as a whole, and removes it when all of it is delivered. What was delivered of a file before a crash is
//! delivered again: at least once, not exactly once. What the receiver refuses is kept in a file beside them.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file that has become so long gets no more lines.
const LONGEST_FILE: u64 = 256 * 1024;
const SUFFIX: &str = "jsonl";
/// What the receiver refuses. It is not read again.
const ASIDE: &str = "refused.jsonl";

/// What waits, in order.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    /// How many bytes may wait.
    limit: u64,
    bytes: u64,
    /// And how many have been set aside.
    aside: u64,
    files: VecDeque<Part>,
    /// The last of the files, if it gets more lines.
    open: Option<File>,
    next: u64,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    number: u64,
    bytes: u64,
}

impl Spool {
    /// Opens a spool, with what a process before this one has left in it.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub(super) fn open(directory: &Path, limit: u64) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            if let (Some(number), Some(SUFFIX)) = (
                number,
                path.extension().and_then(|extension| extension.to_str()),
            ) {
                let bytes = entry.metadata()?.len();
                files.push(Part { number, bytes });
            }
        }
        files.sort_unstable_by_key(|part| part.number);
        Ok(Self {
            directory: directory.to_owned(),
            limit,
            bytes: files.iter().map(|part| part.bytes).sum(),
            aside: fs::metadata(directory.join(ASIDE)).map_or(0, |found| found.len()),
            next: files.last().map_or(0, |part| part.number + 1),
            files: files.into(),
            open: None,
        })
    }

    /// Adds a line. False if there is no room for it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn push(&mut self, line: &str) -> io::Result<bool> {
        let bytes = line.len() as u64 + 1;
        if self.bytes + self.aside + bytes > self.limit {
            return Ok(false);
        }
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        // In one piece: a crash leaves whole lines, or one that is cut at the end of its file.
        let whole = [line.as_bytes(), b"\n"].concat();
        if let Some(file) = &mut self.open
            && let Err(error) = file.write_all(&whole)
        {
            self.recover();
            return Err(error);
        }
        self.bytes += bytes;
        if let Some(last) = self.files.back_mut() {
            last.bytes += bytes;
            if last.bytes >= LONGEST_FILE {
                self.open = None;
            }
        }
        Ok(true)
    }

    /// Begins another file. A number that another process has taken meanwhile is passed over.
    fn begin(&mut self) -> io::Result<File> {
        loop {
            let number = self.next;
            self.next += 1;
            let mut options = OpenOptions::new();
            let options = options.create_new(true).append(true).mode(0o600);
            match options.open(self.path(number)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => {
                    let file = opened?;
                    self.files.push_back(Part { number, bytes: 0 });
                    return Ok(file);
                }
            }
        }
    }

    /// Takes back what was written of a line on a full disk: what follows must not be glued to it, and a file for each
    /// line that fails would soon be too many.
    fn recover(&mut self) {
        let open = self.open.take();
        let Some(last) = self.files.back() else {
            return;
        };
        if last.bytes == 0 {
            let _ = fs::remove_file(self.path(last.number));
            self.files.pop_back();
        } else {
            self.open = open.filter(|file| file.set_len(last.bytes).is_ok());
        }
    }

    /// The lines of the first file. It gets no more from here on, and stays until [`Spool::done`].
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn first(&mut self) -> io::Result<Option<Vec<String>>> {
        let Some(part) = self.files.front() else {
            return Ok(None);
        };
        let path = self.path(part.number);
        if self.files.len() == 1 {
            self.open = None;
        }
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        // A line without an end was cut by a crash.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().filter(|line| !line.is_empty());
        Ok(Some(lines.map(str::to_owned).collect()))
    }

    /// Puts a line aside for whoever wants to know what was refused. False if there is no room for it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn set_aside(&mut self, line: &str) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true).mode(0o600);
        let mut file = options.open(self.directory.join(ASIDE))?;
        // Somebody may have taken it away.
        self.aside = file.metadata()?.len();
        let bytes = line.len() as u64 + 1;
        if self.bytes + self.aside + bytes > self.limit {
            return Ok(false);
        }
        let whole = [line.as_bytes(), b"\n"].concat();
        if let Err(error) = file.write_all(&whole) {
            let _ = file.set_len(self.aside);
            return Err(error);
        }
        self.aside += bytes;
        Ok(true)
    }

    /// Removes the first file: all of it is delivered, set aside, or cannot be read.
    ///
    /// # Errors
    /// If it cannot be removed; it is delivered no more all the same, until the next start.
    pub(super) fn done(&mut self) -> io::Result<()> {
        let Some(part) = self.files.pop_front() else {
            return Ok(());
        };
        if self.files.is_empty() {
            self.open = None;
        }
        self.bytes = self.bytes.saturating_sub(part.bytes);
        fs::remove_file(self.path(part.number))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:016}.{SUFFIX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("turnd-spool-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn drain(spool: &mut Spool) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(lines) = spool.first().unwrap() {
            all.extend(lines);
            spool.done().unwrap();
        }
        all
    }

    #[test]
    fn lines_come_out_in_order_whatever_happens_in_between() {
        let directory = Directory::new("order");
        let mut spool = Spool::open(&directory.0, 1 << 30).unwrap();
        let line = |number: usize| format!("{number} {}", "x".repeat(1000));
        let mut expected = Vec::new();
        for number in 0..1000 {
            assert!(spool.push(&line(number)).unwrap());
            expected.push(line(number));
            if number == 300 {
                // Taken, and not delivered before the end of the process.
                assert!(!spool.first().unwrap().unwrap().is_empty());
                spool = Spool::open(&directory.0, 1 << 30).unwrap();
            }
        }
        assert!(spool.files.len() > 3);
        assert_eq!(drain(&mut spool), expected);
        assert_eq!(
            (spool.bytes, fs::read_dir(&directory.0).unwrap().count()),
            (0, 0)
        );
        assert!(spool.push("more").unwrap());
        assert_eq!(drain(&mut spool), ["more"]);
    }

    #[test]
    fn there_is_a_limit_and_what_is_delivered_makes_room() {
        let directory = Directory::new("limit");
        let mut spool = Spool::open(&directory.0, 100).unwrap();
        let taken = (0..100)
            .filter(|_| spool.push("123456789").unwrap())
            .count();
        assert_eq!(taken, 10);
        let mut again = Spool::open(&directory.0, 100).unwrap();
        assert!(!again.push("").unwrap(), "what is left counts");
        assert_eq!(drain(&mut again).len(), 10);
        assert!(again.push("123456789").unwrap());
    }

    #[test]
    fn a_number_that_another_process_has_taken_is_passed_over() {
        let directory = Directory::new("taken");
        let mut spool = Spool::open(&directory.0, 1000).unwrap();
        fs::write(spool.path(0), "theirs\n").unwrap();
        fs::write(spool.path(1), "theirs\n").unwrap();
        assert!(spool.push("ours").unwrap());
        assert_eq!(drain(&mut spool), ["ours"]);
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 2);
    }

    /// A file that the kernel takes nothing for, as on a full disk.
    fn full() -> File {
        OpenOptions::new().append(true).open("/dev/full").unwrap()
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_do_not_fit_and_nothing_else() {
        let directory = Directory::new("full");
        let mut spool = Spool::open(&directory.0, 1000).unwrap();
        let count = || fs::read_dir(&directory.0).unwrap().count();
        // A new file in which there is no room for anything.
        spool.open = Some(spool.begin().unwrap());
        spool.open = Some(full());
        spool.push("lost").unwrap_err();
        assert_eq!((count(), spool.is_empty(), spool.bytes), (0, true, 0));
        // One in which there was room for half a line.
        spool.push("first").unwrap();
        let path = spool.path(spool.files[0].number);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"hal").unwrap();
        spool.recover();
        spool.push("second").unwrap();
        assert_eq!(count(), 1);
        assert_eq!(drain(&mut spool), ["first", "second"]);
        assert_eq!(spool.bytes, 0);
    }

    #[test]
    fn what_is_set_aside_takes_room_until_somebody_takes_it_away() {
        let directory = Directory::new("aside");
        let mut spool = Spool::open(&directory.0, 20).unwrap();
        assert!(spool.set_aside("123456789").unwrap());
        spool = Spool::open(&directory.0, 20).unwrap();
        assert!(spool.is_empty(), "it is not delivered again");
        assert!(spool.push("123456789").unwrap());
        assert!(!spool.set_aside("12").unwrap() && !spool.push("12").unwrap());
        let aside = directory.0.join(ASIDE);
        assert_eq!(fs::read_to_string(&aside).unwrap(), "123456789\n");
        fs::remove_file(aside).unwrap();
        assert!(spool.set_aside("12").unwrap());
        assert_eq!(drain(&mut spool), ["123456789"]);
    }

    #[test]
    fn a_line_that_a_crash_has_cut_is_left_out() {
        let directory = Directory::new("cut");
        let mut spool = Spool::open(&directory.0, 1000).unwrap();
        spool.push("{\"a\":1}").unwrap();
        let path = spool.path(0);
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"b\":").unwrap();
        let mut again = Spool::open(&directory.0, 1000).unwrap();
        again.push("{\"c\":3}").unwrap();
        assert_eq!(drain(&mut again), ["{\"a\":1}", "{\"c\":3}"]);
    }
}
