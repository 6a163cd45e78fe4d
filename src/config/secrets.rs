//! Secrets: read from files that only their owner may read, made where there is none, held so that they can be
//! wiped. Nothing here prints one, and no error quotes one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng as _;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::problem::Complaint;
use super::{Host, SecretFile};

/// The bytes of a secret, wiped when they are let go.
pub type Secret = Zeroizing<Vec<u8>>;

/// Below this, a shared secret is warned about (128 bits, if every byte were random).
pub(super) const SHORT_SECRET: usize = 16;

/// The file in the state directory that holds the shared secret the server made.
pub(super) const OWN_SECRET: &str = "auth-secret";

/// What nobody calls a secret, or a chain of certificates, is longer than this.
const LONGEST_FILE: u64 = 256 * 1024;

/// Bytes of randomness in a secret that is made here.
const FRESH_BYTES: usize = 32;

/// A random secret of 256 bits, as text that can go into any file.
///
/// # Errors
///
/// If the kernel gives no random bytes.
pub fn generate() -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; FRESH_BYTES]);
    SysRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(io::Error::other)?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

/// Reads the secret in a file, without the white space around it.
///
/// # Errors
///
/// If the file cannot be read, is empty, or may be read by others than its owner.
pub fn read(file: &SecretFile, host: &Host) -> Result<Secret, Complaint> {
    let bytes = match file {
        SecretFile::Path(path) => read_private(path, host)?,
        SecretFile::Credential(name) => {
            let directory = host.credentials_directory.as_ref().ok_or_else(|| {
                let remedy = format!(
                    "add LoadCredential={name}:/path/of/the/secret to the unit, or name a file here"
                );
                Complaint::new(
                    "there is no $CREDENTIALS_DIRECTORY to take the credential from",
                    remedy,
                )
            })?;
            // The service manager has made this directory for this process alone: no mode to check.
            read_whole(&directory.join(name))?
        }
    };
    let trimmed = Zeroizing::new(bytes.trim_ascii().to_vec());
    if trimmed.is_empty() {
        return Err(Complaint::new(
            "the file is empty",
            "put a secret into it: `turnd genkey` prints a good one",
        ));
    }
    Ok(trimmed)
}

/// Reads a file that nobody but its owner may read, and that belongs to this user or to root.
fn read_private(path: &Path, host: &Host) -> Result<Secret, Complaint> {
    let shown = path.display();
    let file = open(path)?;
    let found = file.metadata().map_err(|error| unreadable(path, &error))?;
    if found.mode() & 0o077 != 0 {
        let what = format!(
            "{shown} may be read by others than its owner (mode {:04o})",
            found.mode() & 0o7777
        );
        return Err(Complaint::new(what, format!("chmod 0600 {shown}")));
    }
    if found.uid() != host.uid && found.uid() != 0 {
        let what = format!(
            "{shown} belongs to user {}, but turnd runs as user {}",
            found.uid(),
            host.uid
        );
        return Err(Complaint::new(what, format!("chown {} {shown}", host.uid)));
    }
    read_limited(path, file)
}

fn read_whole(path: &Path) -> Result<Secret, Complaint> {
    read_limited(path, open(path)?)
}

/// Opens a file, and nothing else: a pipe would be waited for.
pub(super) fn open(path: &Path) -> Result<File, Complaint> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .and_then(|file| Ok((file.metadata()?, file)));
    let (found, file) = opened.map_err(|error| unreadable(path, &error))?;
    if found.is_file() {
        return Ok(file);
    }
    let what = format!("{} is not a file", path.display());
    Err(Complaint::new(what, "give the path of a file"))
}

/// Reads a file that is no longer than anybody means it to be.
pub(super) fn read_limited(path: &Path, file: File) -> Result<Secret, Complaint> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LONGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(Complaint::new(
            format!("{} is too long for what it is to hold", path.display()),
            "give the path of a file that holds that alone",
        ));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Complaint {
    let shown = path.display();
    let remedy = if error.kind() == io::ErrorKind::NotFound {
        format!("make it: (umask 077; turnd genkey > {shown})")
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        format!("give it to the user that runs turnd: chown USER {shown}; chmod 0600 {shown}")
    } else {
        "give the path of a file that holds the secret".to_owned()
    };
    Complaint::new(format!("{shown} cannot be read: {error}"), remedy)
}

/// Where the server keeps what it made itself.
#[derive(Clone, Debug)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// At this path; made when it is first needed.
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path of a file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The path of the shared secret that the server makes for itself.
    pub fn own_secret(&self) -> PathBuf {
        self.path(OWN_SECRET)
    }

    /// The secret of this name; made now if there is none yet.
    pub(super) fn secret(&self, name: &str, host: &Host) -> Result<Secret, Complaint> {
        let path = self.path(name);
        if !path.exists() {
            self.make(&path).map_err(|error| {
                let remedy = "name a secret of your own under [auth] secrets, or set STATE_DIRECTORY to a directory that can be written";
                Complaint::new(format!("no secret can be kept at {}: {error}", path.display()), remedy)
            })?;
        }
        read(&SecretFile::Path(path), host)
    }

    /// Writes a fresh secret beside the path and links it into place: whoever is first wins, nobody sees half of it.
    fn make(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let mut draft = path.to_owned();
        // By chance, not by process: in a container each of them is the first.
        draft.set_extension(format!("draft-{}", &generate()?[..8]));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(generate()?.as_bytes())?;
                file.write_all(b"\n")?;
                file.sync_all()
            });
        let linked = written.and_then(|()| fs::hard_link(&draft, path));
        let removed = fs::remove_file(&draft);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.exists() => removed,
            linked => linked.and(removed),
        }
    }
}

/// Why a password is too weak for a static user, if it is.
///
/// Whoever hears one answer of the protocol can try passwords at leisure (RFC 8656 §21.1.2), so a password must
/// hold out against that: twelve characters, and no fewer than 48 bits by a guess that gives nothing for
/// repetitions, rows such as `1234`, or the name itself.
pub fn password_weakness(name: &str, password: &[u8]) -> Option<String> {
    const SHORTEST: usize = 12;
    const FEWEST_BITS: f64 = 48.0;
    if password.len() < SHORTEST {
        return Some(format!(
            "the password has {} characters; it needs {SHORTEST}",
            password.len()
        ));
    }
    let lower = password.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    let name_at = lower
        .windows(name.len().max(1))
        .position(|part| part == name.as_bytes());
    let counted = password.iter().enumerate().filter(|&(index, &byte)| {
        let in_name = name_at.is_some_and(|start| (start..start + name.len()).contains(&index));
        let expected = index > 0
            && (password[index - 1].abs_diff(byte) <= 1
                || (index > 1 && password[index - 2] == byte));
        !in_name && !expected
    });
    let bits = counted.count() as f64 * alphabet(password).log2();
    (bits < FEWEST_BITS).then(|| {
        format!("the password is easily guessed (about {bits:.0} bits; it needs {FEWEST_BITS:.0})")
    })
}

/// How many characters the password seems to be chosen from.
fn alphabet(password: &[u8]) -> f64 {
    let kinds = [
        (password.iter().any(u8::is_ascii_lowercase), 26),
        (password.iter().any(u8::is_ascii_uppercase), 26),
        (password.iter().any(u8::is_ascii_digit), 10),
        (!password.iter().all(u8::is_ascii_alphanumeric), 20),
    ];
    let sizes = kinds.iter().filter(|(occurs, _)| *occurs);
    f64::from(sizes.map(|(_, size)| size).sum::<u32>()).max(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_are_refused() {
        for weak in [
            "p",
            "secret",
            "aaaaaaaaaaaaaaaa",
            "123456789012",
            "abcdefghijklmnop",
            "alicealicealice",
            "abababababababab",
        ] {
            assert!(
                password_weakness("alice", weak.as_bytes()).is_some(),
                "{weak}"
            );
        }
    }

    #[test]
    fn good_passwords_pass() {
        for good in [
            "correct horse battery",
            "k9fw-Xo2m-71qz",
            generate().unwrap().as_str(),
        ] {
            assert_eq!(password_weakness("alice", good.as_bytes()), None, "{good}");
        }
    }

    #[test]
    fn fresh_secrets_differ() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
    }
}
