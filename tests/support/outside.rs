//! Programs that are given something to read: those of others, which judge what turnd says, and turnd itself.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs a program and gives it this to read.
pub(crate) fn given(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}
