//! `[auth]`: who may log in. Secrets go to files; here stand the names of the files.

use crate::config;
use crate::turn::Users;

use super::line::Line;
use super::toml::quoted;
use super::translation::Translation;

/// Below this, a shared secret can be guessed by who hears one login.
const SHORT_SECRET: usize = 16;

/// An item of a list, and the comments above it.
type Item = (Vec<String>, Vec<String>);

impl<'a> Translation<'a> {
    pub(super) fn auth(&mut self) {
        let secrets = self.shared_secrets();
        let users = self.users();
        if !secrets.is_empty() {
            self.toml.list("auth", "secrets", &secrets);
        }
        if !users.is_empty() {
            self.toml.list("auth", "users", &users);
        }
        self.nonce_key();
        self.server_name();
        if let Some(line) = self.last("rest-api-separator") {
            if line.value.starts_with(':') {
                self.mapped(line, "the expiry and the user are separated by a colon");
            } else {
                let told = "the expiry and the user are separated by a colon: whatever makes credentials has to do it so";
                self.dropped(line, told);
            }
        }
        if secrets.is_empty() && users.is_empty() {
            self.nobody();
        }
    }

    fn shared_secrets(&mut self) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        for line in self.all("static-auth-secret") {
            if items.len() == Users::MAX_SECRETS {
                let told = format!(
                    "there may be {} secrets at most; the first ones are kept",
                    Users::MAX_SECRETS
                );
                self.dropped(line, told);
                continue;
            }
            let (id, name) = match items.len() {
                0 => ("main".to_owned(), "auth-secret".to_owned()),
                count => (
                    format!("main-{}", count + 1),
                    format!("auth-secret-{}", count + 1),
                ),
            };
            let Some(file) = self.secret(line, &name, line.value, false) else {
                continue;
            };
            if line.value.len() < SHORT_SECRET {
                let told = format!(
                    "[auth] secrets, in {file}; it is short and can be guessed: make a longer one soon"
                );
                self.mapped(line, told);
            } else {
                self.mapped(line, format!("[auth] secrets, in {file}"));
            }
            let item = format!(
                "{{ id = {}, file = {file}, algorithm = \"sha1\" }}",
                quoted(&id)
            );
            items.push((vec![self.origin(line)], vec![item]));
        }
        if let Some(line) = self.optional("use-auth-secret") {
            if items.is_empty() {
                items.push(self.secret_elsewhere(line));
            } else {
                self.mapped(line, "[auth] secrets");
            }
        }
        items
    }

    /// A secret that is in a database: its file is named, so that the server does not start without it.
    fn secret_elsewhere(&mut self, line: Line<'a>) -> Item {
        let file = quoted(&self.beside_secrets("auth-secret").to_string_lossy());
        let told = format!(
            "[auth] secrets: the secret is in a database (`turnadmin -S` lists it); put it into {file}, mode 0600"
        );
        self.changed(line, told);
        let item = format!("{{ id = \"main\", file = {file}, algorithm = \"sha1\" }}");
        (vec![self.origin(line)], vec![item])
    }

    /// Users with a password. Where there is a shared secret, coturn never asks for them.
    fn users(&mut self) -> Vec<Item> {
        let lines = self.all("user");
        let is_overridden = self.names("static-auth-secret") || self.names("use-auth-secret");
        let mut items = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let (name, password) = line.value.split_once(':').unwrap_or((line.value, ""));
            let is_said_again = lines[index + 1..].iter().any(|later| {
                later
                    .value
                    .split_once(':')
                    .is_some_and(|(other, _)| other == name)
            });
            if is_overridden {
                let told = "coturn asks for no user where there is a shared secret, so nobody logs in by this line; add \
                            it under [auth] users if somebody is to";
                self.dropped(*line, told);
            } else if is_said_again {
                self.dropped(
                    *line,
                    "a later line has the same name, and the last one counts",
                );
            } else if let Some(why) = unfit(name, password) {
                self.dropped(*line, why);
            } else if let Some(file) =
                self.secret(*line, &file_name(name, line.number), password, true)
            {
                self.mapped(*line, format!("[auth] users, with the password in {file}"));
                let item = format!("{{ name = {}, password_file = {file} }}", quoted(name));
                items.push((vec![self.origin(*line)], vec![item]));
            }
        }
        items
    }

    fn nonce_key(&mut self) {
        let Some(line) = self.last("stateless-nonce-secret") else {
            return;
        };
        if let Some(file) = self.secret(line, "nonce-key", line.value, false) {
            let told = format!(
                "[auth] nonce_key_file, {file}: servers with the same one accept each other's nonces, but coturn's are others"
            );
            self.changed(line, told);
            let origins = self.origins(&[line]);
            self.toml.assign("auth", &origins, "nonce_key_file", &file);
        }
    }

    fn server_name(&mut self) {
        if let Some(line) = self.last("server-name") {
            let told = if self.says("oauth") {
                "write it as server_name under [auth.oauth], together with the keys"
            } else {
                "it is about tokens alone, and there is no oauth"
            };
            self.dropped(line, told);
        }
    }

    /// Nobody can log in, as far as the file says.
    fn nobody(&mut self) {
        const DATABASES: [&str; 7] = [
            "userdb",
            "db",
            "psql-userdb",
            "sql-userdb",
            "mysql-userdb",
            "mongo-userdb",
            "redis-userdb",
        ];
        let has_users = self.says("lt-cred-mech")
            || self.names("user")
            || DATABASES.iter().any(|key| self.names(key));
        if has_users {
            let told = "turnd makes a secret of its own for `turnd credential` until there are [auth] users or secrets";
            self.unsaid("(nobody here can log in)", told);
        } else if !self.says("no-auth") && !self.says("oauth") {
            let told = "coturn relays for everybody then; turnd makes a secret of its own for `turnd credential`";
            self.unsaid("(no way to log in)", told);
            self.weakens();
        }
    }
}

/// Why a user cannot be taken over, if so.
fn unfit(name: &str, password: &str) -> Option<&'static str> {
    let is_key = password.strip_prefix("0x").is_some_and(|key| {
        matches!(key.len(), 32 | 64) && key.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if is_key {
        return Some(
            "turnd needs the password, not the key made of it: put it, or a new one, into a file under [auth] users",
        );
    }
    if password.is_empty() {
        return Some("there is no password behind the name");
    }
    if !config::is_username(name) {
        return Some(
            "turnd knows no user by such a name: no control characters, and no number before a colon",
        );
    }
    let weakness = config::password_weakness(name, password.as_bytes());
    weakness.map(|_| "turnd refuses passwords that are easily guessed: `turnd genkey` makes one for a file under [auth] users")
}

/// The file of a user's password.
fn file_name(name: &str, line: usize) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name.len() <= 64 && name.chars().all(is_plain) {
        format!("password-{name}")
    } else {
        format!("password-of-line-{line}")
    }
}
