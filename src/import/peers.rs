//! `[peers]`: where relays may send.
//!
//! The two servers disagree: coturn reaches everybody who is not denied, and what is allowed wins. turnd refuses private
//! networks unless they are allowed, and what is denied wins. So the exceptions are taken out of what is denied.

use crate::turn::Extent;

use super::addresses::{NoRange, Range};
use super::line::Line;
use super::toml::quoted;
use super::translation::Translation;

/// Prefixes that are written at most. Each exception cuts a denied range into many.
const MOST_PREFIXES: usize = 10_000;

/// A line, and the addresses it names.
struct Named<'a> {
    line: Line<'a>,
    range: Range,
}

impl<'a> Translation<'a> {
    pub(super) fn peers(&mut self) {
        let allowed = self.ranges("allowed-peer-ip");
        let denied = self.ranges("denied-peer-ip");
        let allow = self.allow(&allowed);
        let deny = self.deny(&denied, &allowed);
        if !allow.is_empty() {
            self.toml.list("peers", "allow", &allow);
        }
        if !deny.is_empty() {
            self.toml.list("peers", "deny", &deny);
        }
        if denied.is_empty() {
            let told = "coturn reaches private networks unless they are denied; turnd reaches those that [peers] allow names";
            self.unsaid("(no line says denied-peer-ip)", told);
        }
    }

    fn ranges(&mut self, key: &str) -> Vec<Named<'a>> {
        let mut ranges = Vec::new();
        for line in self.all(key) {
            match (Range::read(line.value), key) {
                (Ok(range), _) => ranges.push(Named { line, range }),
                (Err(NoRange::Prefix(prefix)), "denied-peer-ip") => {
                    let told = "coturn cannot read a prefix, and passes the line over; turnd does what it says: [peers] deny";
                    self.changed(line, told);
                    ranges.push(Named {
                        line,
                        range: Range::of(prefix),
                    });
                }
                (Err(NoRange::Prefix(_)), _) => {
                    let told = "coturn cannot read a prefix, and passes the line over, so nobody counts on it";
                    self.dropped(line, told);
                }
                (Err(NoRange::Nonsense), "denied-peer-ip") => {
                    let told = "these are not addresses (names are not looked up): write prefixes under [peers] deny";
                    self.dropped(line, told);
                    self.weakens();
                }
                (Err(NoRange::Nonsense), _) => {
                    self.dropped(line, "these are not addresses; names are not looked up");
                }
            }
        }
        ranges
    }

    /// What has to be opened: of what is allowed, the networks that turnd refuses by itself.
    fn allow(&mut self, allowed: &[Named<'a>]) -> Vec<(Vec<String>, Vec<String>)> {
        let loopback =
            ["127.0.0.0-127.255.255.255", "::1"].map(|text| Range::read(text).expect("it is one"));
        let mut items = Vec::new();
        for Named { line, range } in allowed {
            let opened: Vec<String> = range
                .prefixes()
                .iter()
                .filter(|prefix| Extent::by_default(prefix) != Extent::None)
                .map(|prefix| quoted(&prefix.to_string()))
                .collect();
            if loopback.iter().any(|own| own.overlaps(*range)) {
                let told = "refused: it opens the services of this host to every user; name what is meant under [peers] allow";
                self.dropped(*line, told);
                self.weakens();
            } else if opened.is_empty() {
                self.mapped(*line, "it is reached anyway; taken out of what is denied");
            } else {
                let told = "OPENS A PRIVATE OR SPECIAL NETWORK to every user: [peers] allow. Take it out unless calls need \
                            it; relays of turnd reach each other without it";
                self.changed(*line, told);
                self.weakens();
                items.push((vec![self.origin(*line)], opened));
            }
        }
        items
    }

    fn deny(
        &mut self,
        denied: &[Named<'a>],
        allowed: &[Named<'a>],
    ) -> Vec<(Vec<String>, Vec<String>)> {
        let mut exceptions: Vec<Range> = allowed.iter().map(|named| named.range).collect();
        exceptions.sort_by_key(|range| range.start());
        let mut items = Vec::new();
        let mut written = 0;
        for Named { line, range } in denied {
            let prefixes = range.prefixes();
            let is_excepted = exceptions.iter().any(|other| other.overlaps(*range));
            let is_refused = prefixes
                .iter()
                .all(|prefix| Extent::by_default(prefix) == Extent::All);
            let is_told = line.value.contains('/');
            // Said again under `deny`, it would close what `allow` opens.
            if is_excepted && is_refused {
                if !is_told {
                    self.mapped(
                        *line,
                        "turnd refuses it by itself, but for what [peers] allow names",
                    );
                }
                continue;
            }
            let left: Vec<String> = range
                .without(&exceptions)
                .into_iter()
                .flat_map(Range::prefixes)
                .map(|prefix| quoted(&prefix.to_string()))
                .take(MOST_PREFIXES + 1 - written)
                .collect();
            written += left.len();
            if written > MOST_PREFIXES {
                written = MOST_PREFIXES;
                let told = "with what is allowed taken out, there are too many prefixes: write those that matter under \
                            [peers] deny";
                if is_told {
                    self.unsaid(&format!("(denied-peer-ip of line {})", line.number), told);
                } else {
                    self.dropped(*line, told);
                }
                self.weakens();
                continue;
            }
            if !is_told {
                let less = if is_excepted {
                    ", less what is allowed"
                } else {
                    ""
                };
                self.mapped(*line, format!("[peers] deny{less}"));
            }
            if !left.is_empty() {
                items.push((vec![self.origin(*line)], left));
            }
        }
        items
    }
}
