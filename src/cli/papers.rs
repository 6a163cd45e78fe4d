//! `turnd completions` and `turnd man`: made from the commands themselves, so that they are never behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, ValueEnum};
use clap_mangen::Man;

use super::{Cli, fail, print};

/// A shell that completes what one begins to type.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// Prints what makes a shell complete commands and options.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Zsh => clap_complete::Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "turnd", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Prints the manual page, or writes it into a directory, with a page for each command.
pub(super) fn man(directory: Option<PathBuf>) -> ExitCode {
    match directory {
        None => page(),
        Some(directory) => pages(&directory),
    }
}

fn page() -> ExitCode {
    let mut page = Vec::new();
    match Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page) {
        Ok(()) => print(&String::from_utf8_lossy(&page)),
        Err(error) => fail(&format!("error: {error}")),
    }
}

fn pages(directory: &Path) -> ExitCode {
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!(
            "error: the pages cannot be written to {}: {error}",
            directory.display()
        )),
    }
}
