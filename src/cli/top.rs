//! `turnd top`: what the running server does, second by second, in a terminal.

mod view;

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::time::Instant;
use turnd::config::Sources;
use turnd::http::admin::{Kicked, Rate, Session, SessionList, Status};

use super::client::{At, Client, Failure, quoted};
use super::sessions::who;
use super::show::count;

/// How often the server is asked.
const REFRESH: Duration = Duration::from_secs(1);
/// How far back the curves go, in looks.
const HISTORY: usize = 600;
/// How many sessions are asked for: no terminal is higher.
const LISTED: usize = 200;
/// The longest filter.
const LONGEST_FILTER: usize = 64;

#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    at: At,
}

impl Top {
    pub(super) fn run(self, sources: &Sources) -> ExitCode {
        self.at.ask(sources, |client| {
            if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
                let what = "error: this needs a terminal\n = help: `turnd status` and `turnd sessions --sort rate` print the same";
                return Err(Failure::Own(what.to_owned()));
            }
            // What is wrong is told before the screen is taken, and a panic gives it back.
            let mut state = State::default();
            state.look(client)?;
            let mut terminal = ratatui::init();
            let ended = watch(&mut terminal, &mut state, client);
            ratatui::restore();
            ended.map(|()| ExitCode::SUCCESS)
        })
    }
}

fn watch(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    client: &Client,
) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure::Own(format!("error: the terminal: {error}"));
    let mut next = Instant::now() + REFRESH;
    loop {
        terminal
            .draw(|frame| view::draw(frame, state))
            .map_err(broken)?;
        let patience = next.saturating_duration_since(Instant::now());
        if event::poll(patience).map_err(broken)? {
            if let Event::Key(key) = event::read().map_err(broken)? {
                match state.press(key) {
                    Deed::Nothing => {}
                    Deed::Quit => return Ok(()),
                    Deed::Look => next = Instant::now(),
                    Deed::Kick(id) => {
                        state.note = kick(client, &id);
                        next = Instant::now();
                    }
                }
            }
            continue;
        }
        state.look(client)?;
        next = Instant::now() + REFRESH;
    }
}

fn kick(client: &Client, id: &str) -> String {
    match client.delete::<Kicked>(&format!("/v1/sessions/{id}")) {
        Ok(kicked) => format!(
            "ended {}",
            count(kicked.ended as u64, "session", "sessions")
        ),
        Err(failure) if failure.is_not_found() => "it had ended already".to_owned(),
        Err(failure) => failure.to_string().replace('\n', " "),
    }
}

/// What is shown.
#[derive(Debug, Default)]
struct State {
    status: Status,
    list: SessionList,
    /// The latest last.
    to_peers: VecDeque<u64>,
    to_clients: VecDeque<u64>,
    /// Which of the sessions is chosen.
    chosen: usize,
    mode: Mode,
    filter: String,
    /// What has been done last.
    note: String,
}

/// What keys mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Watching,
    /// They are letters of the filter.
    Filtering,
    /// They say whether this session is to be ended.
    Asking { id: String, user: String },
}

/// What is to be done about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    Nothing,
    Look,
    Kick(String),
    Quit,
}

impl State {
    /// Asks the server.
    fn look(&mut self, client: &Client) -> Result<(), Failure> {
        let mut path = format!("/v1/sessions?sort=rate&limit={LISTED}");
        if !self.filter.is_empty() {
            path = format!("{path}&search={}", quoted(&self.filter));
        }
        let status = client.get("/v1/status")?;
        self.take(status, client.get(&path)?);
        Ok(())
    }

    fn take(&mut self, status: Status, list: SessionList) {
        let Rate { to_peer, to_client } = status.rate.unwrap_or_default();
        for (history, rate) in [
            (&mut self.to_peers, to_peer),
            (&mut self.to_clients, to_client),
        ] {
            history.push_back(rate);
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
        // The one that was chosen stays so, wherever it is.
        let chosen = self.session().map(|session| session.id.clone());
        self.status = status;
        self.list = list;
        let place = chosen.and_then(|id| {
            let mut sessions = self.list.sessions.iter();
            sessions.position(|session| session.id == id)
        });
        self.chosen = place.unwrap_or(self.chosen).min(self.last());
    }

    fn session(&self) -> Option<&Session> {
        self.list.sessions.get(self.chosen)
    }

    fn last(&self) -> usize {
        self.list.sessions.len().saturating_sub(1)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are keys without number"
    )]
    fn press(&mut self, key: KeyEvent) -> Deed {
        if key.kind == KeyEventKind::Release {
            return Deed::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Deed::Quit;
        }
        match self.mode.clone() {
            Mode::Watching => self.watch(key.code),
            Mode::Filtering => self.edit(key.code),
            Mode::Asking { id, .. } => {
                self.mode = Mode::Watching;
                match key.code {
                    KeyCode::Char('y' | 'Y') => Deed::Kick(id),
                    _ => Deed::Nothing,
                }
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are keys without number"
    )]
    fn watch(&mut self, key: KeyCode) -> Deed {
        self.note.clear();
        match key {
            KeyCode::Char('q') => return Deed::Quit,
            KeyCode::Esc if !self.filter.is_empty() => {
                self.filter.clear();
                return Deed::Look;
            }
            KeyCode::Char('/') => self.mode = Mode::Filtering,
            KeyCode::Char('k') => {
                let asking = self.session().map(|session| Mode::Asking {
                    id: session.id.clone(),
                    user: who(session),
                });
                self.mode = asking.unwrap_or_default();
            }
            KeyCode::Up => self.chosen = self.chosen.saturating_sub(1),
            KeyCode::Down => self.chosen = (self.chosen + 1).min(self.last()),
            KeyCode::PageUp => self.chosen = self.chosen.saturating_sub(10),
            KeyCode::PageDown => self.chosen = (self.chosen + 10).min(self.last()),
            KeyCode::Home => self.chosen = 0,
            KeyCode::End => self.chosen = self.last(),
            _ => {}
        }
        Deed::Nothing
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are keys without number"
    )]
    fn edit(&mut self, key: KeyCode) -> Deed {
        match key {
            KeyCode::Enter => self.mode = Mode::Watching,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Watching;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.len() < LONGEST_FILTER => self.filter.push(letter),
            _ => return Deed::Nothing,
        }
        Deed::Look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, user: &str) -> Session {
        Session {
            id: id.to_owned(),
            user: user.to_owned(),
            ..Session::default()
        }
    }

    fn list(ids: &[&str]) -> SessionList {
        let sessions: Vec<Session> = ids.iter().map(|id| session(id, "alice")).collect();
        SessionList {
            matching: sessions.len(),
            total: sessions.len(),
            sessions,
        }
    }

    fn press(state: &mut State, code: KeyCode) -> Deed {
        state.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn what_is_chosen_stays_so_when_others_come_and_go() {
        let mut state = State::default();
        state.take(Status::default(), list(&["a", "b", "c"]));
        press(&mut state, KeyCode::Down);
        assert_eq!(state.session().unwrap().id, "b");
        state.take(Status::default(), list(&["x", "c", "b"]));
        assert_eq!(state.session().unwrap().id, "b");
        state.take(Status::default(), list(&["x"]));
        assert_eq!(state.session().unwrap().id, "x");
        state.take(Status::default(), list(&[]));
        assert!(state.session().is_none());
        for code in [
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::End,
            KeyCode::PageDown,
            KeyCode::Char('k'),
        ] {
            assert_eq!(press(&mut state, code), Deed::Nothing);
        }
        assert_eq!(state.mode, Mode::Watching, "there is nobody to kick");
    }

    #[test]
    fn nobody_is_kicked_without_being_asked_about() {
        let mut state = State::default();
        state.take(Status::default(), list(&["a", "b"]));
        assert_eq!(press(&mut state, KeyCode::Char('k')), Deed::Nothing);
        assert!(matches!(&state.mode, Mode::Asking { id, .. } if id == "a"));
        assert_eq!(press(&mut state, KeyCode::Char('n')), Deed::Nothing);
        assert_eq!(state.mode, Mode::Watching);
        press(&mut state, KeyCode::Char('k'));
        // The list may have changed since: the one that was asked about is meant.
        state.take(Status::default(), list(&["b", "a"]));
        assert_eq!(
            press(&mut state, KeyCode::Char('y')),
            Deed::Kick("a".to_owned())
        );
    }

    #[test]
    fn letters_of_the_filter_are_no_commands() {
        let mut state = State::default();
        press(&mut state, KeyCode::Char('/'));
        for letter in "quick".chars() {
            assert_eq!(press(&mut state, KeyCode::Char(letter)), Deed::Look);
        }
        press(&mut state, KeyCode::Backspace);
        assert_eq!(state.filter, "quic");
        press(&mut state, KeyCode::Enter);
        assert_eq!(press(&mut state, KeyCode::Esc), Deed::Look);
        assert_eq!(state.filter, "");
        assert_eq!(press(&mut state, KeyCode::Char('q')), Deed::Quit);
        press(&mut state, KeyCode::Char('/'));
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state.press(control_c), Deed::Quit);
    }
}
