//! Watches the certificate files: looks at them now and then, and says what became of a change.

use crate::config::{Certificate, Complaint, Host, Stamp, Tls};

/// The files in use.
pub(super) struct Watched {
    files: Tls,
    seen: Vec<Stamp>,
    /// A change that could not be used when it was first seen: half of it may still be on its way.
    doubtful: Option<Vec<Stamp>>,
}

/// What became of the files since the last look.
pub(super) enum Change {
    None,
    Good(Certificate),
    /// Each with the key of `[tls]` that it is about.
    Bad(Vec<(String, Complaint)>),
}

impl Watched {
    /// Files that were read just now.
    pub(super) fn new(files: Tls) -> Self {
        Self {
            seen: files.stamp(),
            files,
            doubtful: None,
        }
    }

    /// Looks at them. What is bad is told once, when it has been there for two looks.
    pub(super) fn look(&mut self, host: &Host) -> Change {
        // Taken before the files are read: a change meanwhile is seen the next time.
        let stamp = self.files.stamp();
        if stamp == self.seen {
            return Change::None;
        }
        match self.files.load(host) {
            Ok(certificate) => {
                self.seen = stamp;
                self.doubtful = None;
                Change::Good(certificate)
            }
            Err(complaints) if self.doubtful.as_ref() == Some(&stamp) => {
                self.seen = stamp;
                Change::Bad(complaints)
            }
            Err(_) => {
                self.doubtful = Some(stamp);
                Change::None
            }
        }
    }
}
