//! `[limits]`: how much one user may take, and all of them together.

use std::time::Duration;

use crate::config::{LARGEST_RATE, show_bit_rate, show_duration};
use crate::turn::Limits;

use super::toml::quoted;
use super::translation::Translation;

/// What an allocation lives at most without a refresh.
const LONGEST_LIFETIME: u64 = 24 * 3600;
/// Lifetimes of RFC 8656 §9 and §12.
const PERMISSION: u64 = 300;
const CHANNEL: u64 = 600;

impl Translation<'_> {
    pub(super) fn limits(&mut self) {
        let default = Limits::default();
        self.quota("user-quota", "per_user", default.per_user, "one user");
        self.quota("total-quota", "total", default.total, "all users together");
        self.max_lifetime();
        self.fixed_lifetime("channel-lifetime", CHANNEL);
        self.fixed_lifetime("permission-lifetime", PERMISSION);
        self.bandwidth();
        if let Some(line) = self.optional("stale-nonce") {
            match line.leading_number() {
                Some(0) => self.changed(line, "nonces end by themselves in any case"),
                _ => self.mapped(line, "nonces end by themselves"),
            }
        }
        if let Some(line) = self.flag("unauthorized-ratelimit") {
            self.mapped(
                line,
                "answers to strangers are few: [limits] unauthenticated_replies",
            );
        }
        if let Some(line) = self.last("unauthorized-ratelimit-rps") {
            let told = format!(
                "[limits] unauthenticated_replies is {}: for a whole /24 or /56, and for answers of all kinds",
                default.unauthenticated_replies
            );
            self.changed(line, told);
        }
    }

    fn quota(&mut self, key: &str, ours: &str, default: u32, whose: &str) {
        let none = format!(
            "[limits] {ours} = {default}, since turnd has a limit in any case: allocations of {whose}"
        );
        let Some(line) = self.last(key) else {
            if !self.names(key) {
                self.unsaid(&format!("(no line says {key})"), none);
            }
            return;
        };
        match self.number(line) {
            None => {}
            Some(0) => self.changed(line, none),
            Some(number) => {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                self.mapped(line, format!("[limits] {ours} = {number}"));
                let origins = self.origins(&[line]);
                self.toml
                    .assign("limits", &origins, ours, &number.to_string());
            }
        }
    }

    fn max_lifetime(&mut self) {
        let Some(line) = self.optional("max-allocate-lifetime") else {
            return;
        };
        let seconds = match line.value {
            "" => Some(3600),
            _ => self.number(line),
        };
        let Some(seconds) = seconds else { return };
        let kept = seconds.clamp(1, LONGEST_LIFETIME);
        let value = show_duration(Duration::from_secs(kept));
        let told = format!("[limits] max_lifetime = \"{value}\"");
        if kept == seconds {
            self.mapped(line, told);
        } else {
            self.changed(line, format!("{told}: from one second to a day"));
        }
        let origins = self.origins(&[line]);
        self.toml
            .assign("limits", &origins, "max_lifetime", &quoted(&value));
    }

    /// A lifetime that the RFC gives.
    fn fixed_lifetime(&mut self, key: &str, seconds: u64) {
        let Some(line) = self.optional(key) else {
            return;
        };
        if line.value.is_empty() || line.leading_number() == Some(seconds) {
            self.mapped(line, format!("it is {seconds} seconds, as the RFC has it"));
        } else {
            self.dropped(
                line,
                format!("it is {seconds} seconds, as the RFC has it: clients count on that"),
            );
        }
    }

    /// Bytes a second become bits a second.
    fn bandwidth(&mut self) {
        let shared = "; it is shared out while it lasts, where coturn refuses allocations";
        for (key, ours, note) in [
            ("max-bps", "bandwidth_per_allocation", ""),
            ("bps-capacity", "bandwidth_total", shared),
        ] {
            let Some(line) = self.last(key) else { continue };
            let Some(bytes) = self.number(line) else {
                continue;
            };
            if bytes == 0 {
                self.mapped(line, "there is no limit of bandwidth");
                continue;
            }
            let value = show_bit_rate(bytes.saturating_mul(8).min(LARGEST_RATE));
            let told = format!(
                "[limits] {ours} = \"{value}\": bits, not bytes, in each direction; headers count{note}"
            );
            self.changed(line, told);
            let origins = self.origins(&[line]);
            self.toml.assign("limits", &origins, ours, &quoted(&value));
        }
    }
}
