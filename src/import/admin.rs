//! `[admin]`: how the operator looks at the server and changes what it does. coturn has a telnet console for that, and
//! pages for browsers; turnd has commands, which come through a Unix socket, and the same over HTTP with a token.

use super::translation::Translation;

const COMMANDS: &str = "`turnd status`, `sessions`, `explain`, `kick`, `drain` and other commands";
const TOKEN: &str = "[admin] listen and token_file (`turnd genkey` makes the token)";

impl Translation<'_> {
    pub(super) fn admin(&mut self) {
        if let Some(line) = self.flag("no-cli") {
            let told = "there is no telnet console; what turnd has instead, a Unix socket, is for its own user and root \
                        alone, and [admin] socket = \"off\" takes it away, too";
            self.mapped(line, told);
        }
        if let Some(line) = self.flag("cli") {
            let told = format!(
                "[admin] socket, which is there unasked: {COMMANDS} in the place of telnet"
            );
            self.changed(line, told);
        }
        for (key, told) in [
            (
                "cli-ip",
                format!(
                    "{COMMANDS} come through a Unix socket: [admin] socket; over the network by {TOKEN}"
                ),
            ),
            (
                "cli-port",
                format!(
                    "{COMMANDS} come through a Unix socket: [admin] socket; over the network by {TOKEN}"
                ),
            ),
            (
                "cli-max-output-sessions",
                "`turnd sessions --limit` says for each list how long it may be".to_owned(),
            ),
            (
                "cli-password",
                format!(
                    "the Unix socket needs none, for it is open to turnd's own user, root and [admin] users alone; over \
                     the network a token does it: {TOKEN}"
                ),
            ),
            (
                "web-admin-ip",
                format!(
                    "pages for browsers are where [admin] listen says, which needs a token: {TOKEN}"
                ),
            ),
            (
                "web-admin-port",
                format!(
                    "pages for browsers are where [admin] listen says, which needs a token: {TOKEN}"
                ),
            ),
        ] {
            if let Some(line) = self.last(key) {
                self.dropped(line, told);
            }
        }
        if let Some(line) = self.flag("web-admin") {
            let told = format!(
                "users and secrets are changed in the configuration, not by a browser; the calls are seen at /dashboard, by \
                 {TOKEN}"
            );
            self.dropped(line, told);
        }
        if let Some(line) = self.flag("web-admin-listen-on-workers") {
            let told = format!(
                "refused: clients' ports are for clients; {TOKEN} are for an address of its own"
            );
            self.dropped(line, told);
        }
    }
}
