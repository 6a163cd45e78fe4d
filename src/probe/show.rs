//! What was found, as text for people.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use super::report::{Facts, Name, Report, Session, Step, Success};
use super::url::{Transport, Url};

/// Where the columns of a step begin, and where a line has to end.
const RESULT: usize = 7;
const NAME: usize = 16;
const TIME: usize = 11;
const INDENT: usize = 4;
const WIDTH: usize = 100;

/// How text is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without colours.
    Plain,
    /// With those of a terminal.
    Coloured,
}

/// Puts what was found into words.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub Style);

#[derive(Clone, Copy)]
enum Colour {
    Bold,
    Green,
    Yellow,
    Red,
    Dim,
}

impl Paint {
    /// The beginning of what is told about a URL.
    pub fn url(self, url: &Url) -> String {
        format!("{}\n", self.coloured(Colour::Bold, &url.to_string()))
    }

    /// The beginning of what is told about an address.
    pub fn server(self, address: SocketAddr, transport: Transport) -> String {
        format!("  {address} over {transport}\n")
    }

    /// What is told about a step: a line, and under it what to do if it failed.
    pub fn step(self, step: &Step) -> String {
        let (word, colour) = match step.result {
            Success::Ok => ("ok", Colour::Green),
            Success::Note => ("note", Colour::Yellow),
            Success::Failed => ("FAILED", Colour::Red),
        };
        let time = match step.result {
            Success::Ok => format!("{:.1} ms", step.milliseconds),
            Success::Note | Success::Failed => String::new(),
        };
        let mut told = match (&step.message, &step.facts) {
            (Some(message), _) => message.clone(),
            (None, facts) => facts.to_string(),
        };
        if step.step == Name::Resolve && told.is_empty() {
            told.push_str("no address");
        }
        let head = format!(
            "{:INDENT$}{} {:<NAME$}{:>TIME$}  ",
            "",
            self.coloured(colour, &format!("{word:<RESULT$}")),
            step.step.words(),
            self.coloured(Colour::Dim, &format!("{time:>TIME$}")),
        );
        let column = INDENT + RESULT + 1 + NAME + TIME + 2;
        let mut text = head + &wrapped(&told, column).join(&format!("\n{:column$}", ""));
        text.truncate(text.trim_end().len());
        text.push('\n');
        if let (Some(_), Facts::Session(session)) = (&step.message, &step.facts) {
            // What is wrong with a certificate is seen best beside it.
            paragraph(&mut text, "", &session.to_string());
        }
        if let Some(advice) = &step.advice {
            paragraph(&mut text, &self.coloured(colour, "=> "), advice);
        }
        text
    }

    /// The end: whether all is well.
    pub fn verdict(self, report: &Report) -> String {
        let works = report.urls.iter().filter(|outcome| outcome.ok).count();
        let all = report.urls.len();
        let words = match (works, all) {
            _ if report.is_stopped() => "Stopped before the end.".to_owned(),
            (1, 1) if report.is_whole() => "It works.".to_owned(),
            (1, 1) => "It works as far as it was tested: see the notes above.".to_owned(),
            (0, 1) => "It does not work.".to_owned(),
            (works, all) if works == all && report.is_whole() => format!("All {all} work."),
            (works, all) if works == all => {
                format!("All {all} work as far as they were tested: see the notes above.")
            }
            (0, all) => format!("None of {all} works."),
            (1, all) => format!("1 of {all} works."),
            (works, all) => format!("{works} of {all} work."),
        };
        let colour = if report.ok && report.is_whole() {
            Colour::Green
        } else if report.ok {
            Colour::Yellow
        } else {
            Colour::Red
        };
        format!("{}\n", self.coloured(colour, &words))
    }

    fn coloured(self, colour: Colour, text: &str) -> String {
        let code = match (self.0, colour) {
            (Style::Plain, _) => return text.to_owned(),
            (Style::Coloured, Colour::Bold) => 1,
            (Style::Coloured, Colour::Dim) => 2,
            (Style::Coloured, Colour::Red) => 31,
            (Style::Coloured, Colour::Green) => 32,
            (Style::Coloured, Colour::Yellow) => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Indented lines under a step; the mark stands before the first of them.
fn paragraph(text: &mut String, mark: &str, words: &str) {
    let column = INDENT + RESULT + 1;
    for (number, line) in wrapped(words, column + 3).into_iter().enumerate() {
        let before = if number == 0 && !mark.is_empty() {
            mark
        } else {
            "   "
        };
        let _ = writeln!(text, "{:column$}{before}{line}", "");
    }
}

/// Breaks words into lines that end before [`WIDTH`], if they begin at `column`.
fn wrapped(words: &str, column: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().expect("there is one from the beginning");
        if line.is_empty() {
            line.push_str(word);
        } else if column + line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

impl Name {
    /// What it is called.
    pub fn words(self) -> &'static str {
        match self {
            Self::Resolve => "look up the name",
            Self::Connect => "connect",
            Self::Binding => "own address",
            Self::Challenge => "realm",
            Self::Redirect => "sent elsewhere",
            Self::Allocate => "relay",
            Self::OtherFamily => "other family",
            Self::SecondAllocation => "second relay",
            Self::Permission => "permission",
            Self::PlainPeer => "plain peer",
            Self::Indications => "indications",
            Self::Channels => "channels",
            Self::RoundTrip => "round trip",
            Self::PacketSize => "packet size",
            Self::Throughput => "throughput",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None {} => Ok(()),
            Self::Addresses { addresses } => list(f, addresses),
            Self::Session(session) => session.fmt(f),
            Self::Mapped {
                mapped_address,
                tries: 1,
            } => write!(f, "{mapped_address}"),
            Self::Mapped {
                mapped_address,
                tries,
            } => {
                write!(
                    f,
                    "{mapped_address}, but the question had to be sent {tries} times"
                )
            }
            Self::Challenge {
                realm,
                password_algorithms,
                ..
            } => {
                write!(f, "\"{realm}\", passwords by ")?;
                list(f, password_algorithms)?;
                self.software(f)
            }
            Self::Redirect { alternate_server } => {
                write!(f, "300 Try Alternate: on to {alternate_server}")
            }
            Self::Allocation {
                relayed_addresses,
                lifetime_seconds,
            } => {
                list(f, relayed_addresses)?;
                write!(f, " for {lifetime_seconds} s")
            }
            Self::PlainPeer { peer_address } => {
                write!(f, "{peer_address}, in the place of the second relay")
            }
            Self::Indications {
                dont_fragment: true,
            } => f.write_str("both ways, DONT-FRAGMENT too"),
            Self::Indications {
                dont_fragment: false,
            } => f.write_str("both ways, not with DONT-FRAGMENT"),
            Self::RoundTrip {
                sent,
                received,
                min_ms,
                median_ms,
                p99_ms,
                jitter_ms,
            } => {
                let lost = sent - received.min(sent);
                write!(f, "{median_ms:.2} ms median, {min_ms:.2} to {p99_ms:.2}, ")?;
                write!(f, "jitter {jitter_ms:.2}, {lost} of {sent} lost")
            }
            Self::PacketSize { largest } => write!(f, "up to {largest} bytes come through whole"),
            Self::Throughput {
                megabits_per_second,
                sent,
                received,
                size,
                window,
            } => {
                write!(
                    f,
                    "{megabits_per_second:.0} Mbit/s with {window} packets of {size} bytes under way"
                )?;
                match sent - received.min(sent) {
                    0 => Ok(()),
                    lost => write!(f, ", {lost} of {sent} lost"),
                }
            }
        }
    }
}

impl Facts {
    /// What a server says of itself beside what it asks for.
    fn software(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Challenge {
            software,
            third_party,
            ..
        } = self
        else {
            return Ok(());
        };
        if let Some(software) = software {
            write!(f, ", {software}")?;
        }
        if let Some(third_party) = third_party {
            write!(f, ", tokens for {third_party}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol)?;
        if let Some(cipher) = &self.cipher {
            write!(f, ", {cipher}")?;
        }
        if let Some(alpn) = &self.alpn {
            write!(f, ", ALPN {alpn}")?;
        }
        let Some(own) = self.chain.first() else {
            return Ok(());
        };
        f.write_str(", certificate of ")?;
        list(f, &own.names)?;
        write!(f, " by {}", own.issuer)?;
        match own.days_left {
            ..0 => write!(f, ", ended {} days ago", -own.days_left)?,
            0 => f.write_str(", ends today")?,
            days => write!(f, ", good for {days} days")?,
        }
        match self.chain.len() {
            1 => Ok(()),
            2 => f.write_str(", 1 intermediate"),
            certificates => write!(f, ", {} intermediates", certificates - 1),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, values: &[impl fmt::Display]) -> fmt::Result {
    if values.is_empty() {
        return f.write_str("nothing");
    }
    for (number, value) in values.iter().enumerate() {
        write!(f, "{}{value}", if number == 0 { "" } else { ", " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fault::Fault;
    use super::*;

    #[test]
    fn a_step_is_a_line() {
        let facts = Facts::Mapped {
            mapped_address: "192.0.2.7:4000".parse().unwrap(),
            tries: 1,
        };
        let step = Step::done(Name::Binding, 0.42, facts);
        let line = Paint(Style::Plain).step(&step);
        assert_eq!(
            line,
            "    ok      own address          0.4 ms  192.0.2.7:4000\n"
        );
        assert!(Paint(Style::Coloured).step(&step).contains("\x1b[32mok"));
    }

    #[test]
    fn a_failure_is_told_with_its_remedy_under_it_and_no_line_is_long() {
        let advice = "word ".repeat(60);
        let step = Step::failed(
            Name::Allocate,
            3.0,
            &Fault::Error(486, "Quota".into()),
            advice,
        );
        let text = Paint(Style::Plain).step(&step);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(
            |line| line.starts_with("    FAILED  relay") && line.ends_with("486 Quota")
        ));
        assert!(
            lines
                .next()
                .is_some_and(|line| line.trim_start().starts_with("=> word")),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
    }

    #[test]
    fn a_report_of_none_and_of_all_is_told() {
        let report = Report::new(Vec::new());
        assert!(report.ok);
        assert_eq!(Paint(Style::Plain).verdict(&report), "All 0 work.\n");
    }
}
