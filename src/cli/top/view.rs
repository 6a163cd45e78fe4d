//! How it looks: the whole in few lines, two curves, and the sessions with the most traffic.

use std::collections::{BTreeMap, VecDeque};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Sparkline, Table, TableState};
use turnd::http::admin::{Session, Status};

use super::super::sessions::who;
use super::super::show::{count, may_colour, plain, rate, short_rate, span};
use super::{Mode, State};

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let areas = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [head, curves, sessions, foot] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(summary(&state.status)), head);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)])
        .spacing(2)
        .areas(curves);
    curve(frame, left, "to peers", &state.to_peers, Color::Green);
    curve(frame, right, "to clients", &state.to_clients, Color::Cyan);
    list(frame, sessions, state);
    frame.render_widget(Paragraph::new(keys(state)), foot);
}

fn colour(colour: Color) -> Style {
    if may_colour() {
        Style::new().fg(colour)
    } else {
        Style::new()
    }
}

fn summary(status: &Status) -> Vec<Line<'static>> {
    let total: u64 = status.allocations.values().sum();
    let state = match (status.draining_since, status.ready) {
        (Some(_), _) => Span::styled("draining", colour(Color::Yellow)),
        (None, true) => Span::styled("ready", colour(Color::Green)),
        (None, false) => Span::styled("not ready", colour(Color::Yellow)),
    };
    let by_transport: Vec<String> = status
        .allocations
        .iter()
        .filter(|(_, number)| **number > 0)
        .map(|(name, number)| format!("{number} {name}"))
        .collect();
    let by_transport = match by_transport.is_empty() {
        true => String::new(),
        false => format!(" ({})", by_transport.join(", ")),
    };
    let up = span(status.uptime.unsigned_abs());
    let ports = &status.ports;
    vec![
        Line::from(vec![
            "turnd ".bold(),
            Span::raw(format!("{}  ", status.version)),
            state,
            Span::raw(format!(
                "  up {up}  ports {} of {}",
                ports.used, ports.total
            )),
        ]),
        Line::from(format!(
            "{}{by_transport}, {}, {}",
            count(total, "allocation", "allocations"),
            count(status.permissions, "permission", "permissions"),
            count(status.channels, "channel", "channels"),
        )),
        Line::from(format!("drops    {}", named(&status.drops))),
        Line::from(format!("refused  {}", named(&status.auth_failures))),
    ]
}

/// Those that happen most, first.
fn named(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<(&String, u64)> = counts
        .iter()
        .map(|(name, number)| (name, *number))
        .collect();
    counts.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let parts: Vec<String> = counts
        .into_iter()
        .map(|(name, number)| format!("{number} {}", name.replace('_', " ")))
        .collect();
    match parts.is_empty() {
        true => "none".to_owned(),
        false => parts.join(", "),
    }
}

fn curve(frame: &mut Frame<'_>, area: Rect, name: &str, history: &VecDeque<u64>, hue: Color) {
    let [title, bars] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let now = history.back().copied().unwrap_or(0);
    frame.render_widget(Paragraph::new(format!("{name}  {}", rate(now))), title);
    // The latest at the right edge.
    let shown = usize::from(bars.width).min(history.len());
    let data: Vec<u64> = history
        .iter()
        .skip(history.len() - shown)
        .copied()
        .collect();
    let bars = Rect {
        x: bars.x + bars.width - shown as u16,
        width: shown as u16,
        ..bars
    };
    frame.render_widget(Sparkline::default().data(data).style(colour(hue)), bars);
}

fn list(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let heads = Row::new([
        "SESSION", "USER", "VIA", "CLIENT", "AGE", "TO PEERS", "BACK",
    ]);
    let widths = [
        Constraint::Length(16),
        Constraint::Fill(2),
        Constraint::Length(4),
        Constraint::Fill(3),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(6),
    ];
    let table = Table::new(state.list.sessions.iter().map(row), widths)
        .header(heads.style(Style::new().add_modifier(Modifier::DIM)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut place = TableState::new();
    place.select(state.session().map(|_| state.chosen));
    frame.render_stateful_widget(table, area, &mut place);
}

fn row(session: &Session) -> Row<'static> {
    let rate = session.rate.unwrap_or_default();
    let client = session.client.map(|client| client.to_string());
    Row::new([
        session.id.clone(),
        plain(&who(session)),
        session.transport.clone(),
        client.unwrap_or_default(),
        span(session.age),
        short_rate(rate.to_peer),
        short_rate(rate.to_client),
    ])
}

fn keys(state: &State) -> Line<'static> {
    match &state.mode {
        Mode::Filtering => Line::from(format!(
            "/{}_   Enter keeps it, Esc shows all",
            state.filter
        )),
        Mode::Asking { id, user } => {
            let asked = format!("end session {id} of {}? y/n", plain(user));
            Line::from(Span::styled(asked, colour(Color::Red)))
        }
        Mode::Watching if !state.note.is_empty() => Line::from(plain(&state.note)),
        Mode::Watching => {
            let (matching, total) = (state.list.matching, state.list.total);
            let shown = match state.filter.is_empty() {
                true => count(total as u64, "session", "sessions"),
                false => format!("{matching} of {total} sessions with `{}`", state.filter),
            };
            Line::from(format!("{shown}   / filter   k kick   q quit"))
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use turnd::http::admin::{Ports, Rate, SessionList};

    use super::*;

    fn busy() -> State {
        let mut state = State::default();
        let status = Status {
            version: "0.1.0".to_owned(),
            ready: true,
            uptime: 7500,
            ports: Ports {
                total: 16384,
                used: 2,
            },
            allocations: BTreeMap::from([("udp".to_owned(), 2), ("tls".to_owned(), 0)]),
            permissions: 3,
            channels: 1,
            drops: BTreeMap::from([("no_permission".to_owned(), 7), ("not_turn".to_owned(), 90)]),
            ..Status::default()
        };
        let session = |id: &str, user: &str, to_peer| Session {
            id: id.to_owned(),
            user: user.to_owned(),
            transport: "udp".to_owned(),
            client: Some("198.51.100.7:50123".parse().unwrap()),
            age: 200,
            rate: Some(Rate {
                to_peer,
                to_client: 2_500_000,
            }),
            ..Session::default()
        };
        let list = SessionList {
            sessions: vec![
                session("00ab000000000001", "alice", 4_200_000),
                session("00ab000000000002", "eve\x1b[2J", 0),
            ],
            matching: 2,
            total: 2,
        };
        for step in 1..=8 {
            let rate = Rate {
                to_peer: step * 1_000_000,
                to_client: 8_000_000,
            };
            let status = Status {
                rate: Some(rate),
                ..status.clone()
            };
            state.take(status, list.clone());
        }
        state
    }

    fn shown(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let text = terminal.backend().to_string();
        let lines = text.lines().map(|line| line.trim_matches('"').trim_end());
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn it_fits_an_old_terminal() {
        let golden = include_str!("golden.txt");
        assert_eq!(shown(&busy(), 80, 16).trim_end(), golden.trim_end());
    }

    #[test]
    fn no_size_is_too_small_and_none_too_large() {
        for (width, height) in [(1, 1), (10, 3), (80, 24), (300, 100)] {
            shown(&busy(), width, height);
            shown(&State::default(), width, height);
        }
    }

    #[test]
    fn questions_stand_at_the_foot() {
        let mut state = busy();
        state.mode = Mode::Asking {
            id: "00ab000000000001".to_owned(),
            user: "alice".to_owned(),
        };
        assert!(shown(&state, 80, 24).contains("end session 00ab000000000001 of alice? y/n"));
        state.mode = Mode::Filtering;
        state.filter = "10.1".to_owned();
        assert!(shown(&state, 80, 24).contains("/10.1_"));
    }
}
