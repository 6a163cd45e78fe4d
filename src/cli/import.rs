//! `turnd import`: other servers' configurations.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use turnd::config::Host;
use turnd::daemon::{EXIT_CONFIG, complain};
use turnd::import::{self, Imported, Surroundings};

use super::{fail, print};

/// No configuration of anybody is longer.
const LONGEST_FILE: u64 = 256 * 1024;
/// Where secrets are expected if no directory is named.
const SECRETS: &str = "/etc/turnd";

#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Translate a turnserver.conf of coturn
    ///
    /// Prints the configuration, with the line that each key comes from, and on standard error what became of every
    /// line: mapped, changed meaning, or dropped and why. Ends with 1 if security depends on one of them.
    Coturn(Coturn),
}

#[derive(Debug, Args)]
struct Coturn {
    /// The file to translate; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the configuration to a new file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put each secret into a new file of this directory, mode 0600; without it, the report tells the commands
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
}

impl Import {
    pub(super) fn run(self) -> ExitCode {
        let From::Coturn(coturn) = self.from;
        coturn.run()
    }
}

impl Coturn {
    fn run(self) -> ExitCode {
        let text = match self.read() {
            Ok(text) => text,
            Err(error) => {
                let shown = self.file.display();
                complain(&format_args!("error: {shown} cannot be read: {error}"));
                return ExitCode::from(EXIT_CONFIG);
            }
        };
        let around = match self.surroundings() {
            Ok(around) => around,
            Err(error) => return fail(&format!("error: {error}")),
        };
        let imported = import::coturn(&text, &around);
        if let Err(complaint) = self.write(&imported) {
            return fail(&format!("error: {complaint}"));
        }
        if self.output.is_none() {
            let printed = print(&imported.toml);
            if printed != ExitCode::SUCCESS {
                return printed;
            }
        }
        complain(&format_args!("{}", imported.report).to_string().trim_end());
        self.tell_secrets(&imported, &around);
        if imported.report.weakens() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut text = Zeroizing::new(Vec::new());
        if self.is_stdin() {
            io::stdin()
                .lock()
                .take(LONGEST_FILE + 1)
                .read_to_end(&mut text)?;
        } else {
            File::open(&self.file)?
                .take(LONGEST_FILE + 1)
                .read_to_end(&mut text)?;
        }
        if text.len() as u64 > LONGEST_FILE {
            return Err(io::Error::other("it is too long for a turnserver.conf"));
        }
        Ok(text)
    }

    fn surroundings(&self) -> io::Result<Surroundings> {
        let host = Host::of_process();
        let name = self.file.file_name().filter(|_| !self.is_stdin());
        Ok(Surroundings {
            name: name.map_or_else(
                || "turnserver.conf".to_owned(),
                |name| name.to_string_lossy().into_owned(),
            ),
            path: if self.is_stdin() {
                "turnserver.conf".into()
            } else {
                self.file.clone()
            },
            secrets: std::path::absolute(
                self.secrets_dir
                    .as_deref()
                    .unwrap_or_else(|| Path::new(SECRETS)),
            )?,
            local: Host::relay_addresses(),
            has_ipv6: host.has_ipv6,
        })
    }

    /// Writes what is to be written, and nothing if one of the files is there already.
    fn write(&self, imported: &Imported) -> Result<(), String> {
        let secrets = imported
            .secrets
            .iter()
            .filter(|_| self.secrets_dir.is_some());
        let files: Vec<(&Path, &[u8])> = secrets
            .map(|secret| (secret.file.as_path(), secret.value.as_bytes()))
            .chain(
                self.output
                    .iter()
                    .map(|path| (path.as_path(), imported.toml.as_bytes())),
            )
            .collect();
        for (path, _) in &files {
            if fs::symlink_metadata(path).is_ok() {
                return Err(format!(
                    "{} is there already; nothing was written",
                    path.display()
                ));
            }
        }
        if let Some(directory) = &self.secrets_dir {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|error| format!("{} cannot be made: {error}", directory.display()))?;
        }
        for (path, bytes) in files {
            write_new(path, bytes)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        }
        Ok(())
    }

    fn tell_secrets(&self, imported: &Imported, around: &Surroundings) {
        if imported.secrets.is_empty() {
            return;
        }
        let mut told = String::new();
        if self.secrets_dir.is_some() {
            told.push_str(
                "\nsecrets were written, mode 0600; they must belong to the user of turnd\n",
            );
            for secret in &imported.secrets {
                told += &format!("  {}\n", secret.file.display());
            }
        } else {
            told.push_str("\nsecrets go into files of their own, which must belong to the user of turnd; these commands make them\n");
            for secret in &imported.secrets {
                told += &format!("  {}\n", secret.command(&around.path));
            }
        }
        complain(&told.trim_end());
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
