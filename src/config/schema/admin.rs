//! `[admin]`: where the operator sits.

use crate::config::problem::Complaint;
use crate::config::section::Section;
use crate::config::{Admin, AdminSocket, values};

/// The word for no socket at all.
const OFF: &str = "off";

pub(super) fn read(section: &mut Section<'_>) -> Admin {
    let off = section.says("socket", OFF);
    let socket = section.path("socket");
    let admin = Admin {
        socket: match socket {
            Some(_) if off => AdminSocket::Off,
            Some(path) => AdminSocket::At(path),
            None => AdminSocket::Customary,
        },
        group: section.parsed("group", account),
        users: section.list("users", account).unwrap_or_default(),
        listen: section.parsed("listen", values::socket_address),
        token_file: section.secret_file("token_file"),
        hosts: section.list("hosts", host).unwrap_or_default(),
    };
    if section.is_given("listen") && !section.is_given("token_file") {
        let what = "whoever reaches this address could end every call: it takes a token";
        let remedy = "add token_file = \"/etc/turnd/admin-token\", and make it: (umask 077; turnd genkey > /etc/turnd/admin-token)";
        section.error("listen", Complaint::new(what, remedy));
    }
    admin
}

/// The name of a user or a group, or its number.
fn account(text: &str) -> Result<String, Complaint> {
    let fits = |letter: char| letter.is_alphanumeric() || "._-$@\\".contains(letter);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(
        format!("`{text}` is no name of a user or a group"),
        "write a name as in /etc/passwd or /etc/group, or a number",
    ))
}

fn host(text: &str) -> Result<String, Complaint> {
    super::redirect::domain(text).map_err(|complaint| {
        let remedy =
            "write a name without port, as in \"turn.example.org\"; addresses need not be named";
        Complaint::new(complaint.what, remedy)
    })
}
