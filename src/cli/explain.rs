//! `turnd explain`

use std::io::{self, IsTerminal as _};
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use turnd::config::{self, Host, Sources};
use turnd::daemon::{EXIT_CONFIG, complain};
use turnd::explain::{self, Explanation};
use turnd::plane;
use turnd::turn::Reach;

use super::address::Address;
use super::client::{At, Client, quoted};
use super::show::Screen;

pub(super) const EXAMPLES: &str = "\
Examples:
  Why does alice hear nothing?
      turnd explain --user alice
  Why is this client refused?
      turnd explain --client 198.51.100.7
  Why did that session end?
      turnd explain 29e04157a2c4f0c3
  May this peer be reached, and if not, by which rule?
      turnd explain --peer 10.0.0.1 --config turnd.toml";

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["session", "user", "client", "peer"])]
pub(super) struct Explain {
    /// A session, as `turnd sessions` and the log name it
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    /// Those of a user, and who was refused under that name
    #[arg(long, value_name = "NAME", help_heading = "Whose")]
    user: Option<String>,
    /// Those of clients at an address, with a port or any
    #[arg(long, value_name = "ADDRESS", help_heading = "Whose")]
    client: Option<Address>,
    /// What has to do with this peer; alone, whether it may be reached, too
    #[arg(long, value_name = "ADDRESS", help_heading = "Whose")]
    peer: Option<Address>,
    /// Print what the server says, as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    at: At,
}

impl Explain {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        let (client, peer) = (text(self.client), text(self.peer));
        let asked = [
            ("session", &self.session),
            ("user", &self.user),
            ("client", &client),
            ("peer", &peer),
        ];
        let asked: Vec<String> = asked
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", quoted(value.as_deref()?))))
            .collect();
        let path = format!("/v1/explain?{}", asked.join("&"));
        let ask = |client: &Client| {
            Ok(super::print(&if self.json {
                format!("{:#}\n", client.get::<serde_json::Value>(&path)?)
            } else {
                laid_out(&client.get::<Explanation>(&path)?)
            }))
        };
        let of_peer = self.peer.filter(|_| asked.len() == 1);
        match of_peer {
            Some(peer) => {
                let judge = || judge(peer.ip, self.json, sources);
                self.at.clone().ask_or(sources, ask, judge)
            }
            None => self.at.clone().ask(sources, ask),
        }
    }
}

fn text(address: Option<Address>) -> Option<String> {
    address.map(|address| address.to_string())
}

/// As it is, for programs; on a terminal, in lines that fit.
fn laid_out(explanation: &Explanation) -> String {
    let text = explanation.to_string();
    if io::stdout().is_terminal() {
        folded(&text, Screen::of_stdout().width)
    } else {
        text
    }
}

/// Breaks lines between words; what follows stands where the text of the line began.
fn folded(text: &str, width: usize) -> String {
    let mut folded = String::new();
    for line in text.split_inclusive('\n') {
        let begins = |letter: char| letter.is_alphabetic() || letter == '`';
        let margin = line.find(begins).unwrap_or_default().min(width / 2);
        let mut column = 0;
        for (place, word) in line.split(' ').enumerate() {
            let length = word.trim_end().chars().count();
            if place > 0 && column > margin && column + 1 + length > width {
                folded += &format!("\n{:margin$}", "");
                column = margin;
            } else if place > 0 {
                folded.push(' ');
                column += 1;
            }
            folded.push_str(word);
            column += length;
        }
    }
    folded
}

/// By the configuration: what a server would say that has just been started with it.
fn judge(peer: IpAddr, json: bool, sources: &Sources) -> ExitCode {
    let loaded = match config::load(sources, &Host::of_process()) {
        Ok(loaded) => loaded,
        Err(report) => {
            complain(&report);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let parts = &loaded.parts;
    let mut relays = parts.plane.relay.addresses.iter();
    let mut listeners = parts.plane.listeners.iter();
    // Without a list of this host's addresses, the other rules still judge.
    let is_own = relays.any(|relay| [relay.local, relay.advertised].contains(&peer))
        || listeners.any(|listen| listen.address.ip() == peer)
        || plane::own_addresses().is_ok_and(|own| own.contains(&peer));
    let reach = if is_own { Reach::Own } else { Reach::Outside };
    let rule = parts.turn.peers.rule(peer, reach);
    let explanation = Explanation {
        findings: vec![explain::peer(peer, rule, reach)],
        ..Explanation::default()
    };
    if !json {
        let text = "No server can be asked: judged by the configuration alone.\n\n";
        return super::print(&format!("{text}{}", laid_out(&explanation)));
    }
    match serde_json::to_string_pretty(&explanation) {
        Ok(text) => super::print(&format!("{text}\n")),
        Err(error) => {
            complain(&format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_nothing_is_lost() {
        let text = "1. The peer was refused by a rule.\n   -> Open it, or not.\n\nSession 7: ann\n   relay 1.2.3.4:5\n";
        assert_eq!(folded(text, 100), text);
        assert_eq!(
            folded(text, 20),
            "1. The peer was\n   refused by a\n   rule.\n   -> Open it, or\n      not.\n\nSession 7: ann\n   relay 1.2.3.4:5\n"
        );
        let long = "x".repeat(40);
        assert_eq!(
            folded(&format!("1. a {long} b\n"), 20),
            format!("1. a\n   {long}\n   b\n")
        );
    }
}
