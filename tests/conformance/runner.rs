//! Holds the dialogues, several at a time.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::ground::Ground;
use crate::report::Status;
use crate::statement::{Check, Proof, Seen, Statement, Trouble};

/// A server of the table.
pub(crate) struct Column<'a> {
    pub(crate) name: String,
    pub(crate) ground: &'a Ground,
    /// Whether the tests of this source speak for it.
    pub(crate) is_ours: bool,
}

/// Judges every statement at every server.
pub(crate) fn judge(
    statements: &[&'static Statement],
    columns: &[Column<'_>],
) -> Vec<(&'static Statement, Vec<Status>)> {
    let total = statements.len() * columns.len();
    let bar = ProgressBar::new(total as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    bar.set_style(style.expect("a good template"));
    // Those that take long begin first.
    let mut order: Vec<usize> = (0..total).collect();
    order.sort_by_key(|number| !statements[number / columns.len()].waits());
    let mut found = in_parallel(total, |turn| {
        let number = order[turn];
        let statement = statements[number / columns.len()];
        bar.set_message(statement.id);
        let status = status(statement, &columns[number % columns.len()]);
        bar.inc(1);
        (number, status)
    });
    bar.finish_and_clear();
    let mut rows: Vec<(&'static Statement, Vec<Status>)> = statements
        .iter()
        .map(|statement| (*statement, Vec::new()))
        .collect();
    found.sort_by_key(|(number, _)| *number);
    for (number, status) in found {
        rows[number / columns.len()].1.push(status);
    }
    rows
}

/// Does so many things, some at a time, and returns what they gave in their order.
pub(crate) fn in_parallel<T: Send>(total: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    const AT_A_TIME: usize = 12;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(total) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        break;
                    }
                    let result = work(number);
                    done.lock()
                        .expect("nobody panics here")
                        .push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics here");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

fn status(statement: &Statement, column: &Column<'_>) -> Status {
    // What is refused is not asked for.
    let refused = statement.proofs.iter().find_map(|proof| match proof {
        Proof::Refused(reason) if column.is_ours => Some(Status::Refused((*reason).to_owned())),
        Proof::Seen(_) | Proof::Waiting(_) | Proof::Test(_) | Proof::Refused(_) => None,
    });
    if let Some(refused) = refused {
        return refused;
    }
    let proofs = statement.proofs.iter().map(|proof| match proof {
        Proof::Seen(check) | Proof::Waiting(check) => Status::of(hold(*check, column.ground)),
        Proof::Test(path) if column.is_ours => match find_test(path) {
            Ok(()) => Status::Pass(Some(format!("shown by {path}"))),
            Err(what) => Status::Fail(what),
        },
        Proof::Test(_) | Proof::Refused(_) => Status::Absent(String::new()),
    });
    proofs
        .reduce(Status::and)
        .unwrap_or_else(|| Status::Fail("no proof".into()))
}

/// Holds a dialogue; one that breaks down has shown nothing.
pub(crate) fn hold(check: Check, ground: &Ground) -> Seen {
    catch_unwind(AssertUnwindSafe(|| check(ground)))
        .unwrap_or_else(|_| Err(Trouble::from("the check broke down")))
}

/// Looks for a test by `path/of/file.rs::function` in the source.
pub(crate) fn find_test(path: &str) -> Result<(), String> {
    let (file, function) = path.split_once("::").ok_or("a path without a function")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(source).map_err(|error| format!("{file}: {error}"))?;
    let place = text
        .find(&format!("fn {function}("))
        .ok_or_else(|| format!("{file} has no {function}"))?;
    let before = text[..place].trim_end();
    // The attributes of a function stand right above it.
    let attributes: Vec<&str> = before
        .lines()
        .rev()
        .take_while(|line| !line.trim().is_empty())
        .collect();
    let is = |word: &str| attributes.iter().any(|line| line.trim().starts_with(word));
    if is("#[test]") && !is("#[ignore") {
        Ok(())
    } else {
        Err(format!("{path} is not a test that runs"))
    }
}
