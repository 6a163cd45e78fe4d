//! `[revocation]`: whether credentials can be revoked, and where that is kept.

use std::time::Duration;

use crate::config::Revocation;
use crate::config::section::Section;
use crate::config::values;

const SHORTEST_KEEP: Duration = Duration::from_secs(60);
const LONGEST_KEEP: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn read(section: &mut Section<'_>) -> Revocation {
    Revocation {
        enabled: section.flag("enabled"),
        database: section.path("database"),
        keep: section
            .parsed("keep", |text| {
                values::duration_within(text, SHORTEST_KEEP..=LONGEST_KEEP)
            })
            .unwrap_or(Duration::from_secs(48 * 3600)),
    }
}
