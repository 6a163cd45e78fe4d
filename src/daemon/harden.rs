//! Keeps the memory of this process, which holds secrets, from other programs; and takes all descriptors it may have.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use tracing::warn;

/// What the kernel has refused. It is not worth failing for, but for telling as soon as there is a log.
pub(super) struct Hardened([(rustix::io::Result<()>, &'static str); 3]);

/// Does it. To be called before the first secret is read.
pub(super) fn process() -> Hardened {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let core = setrlimit(Resource::Core, nothing);
    // No debugger, and no reading of /proc/self/mem, by other programs of the same user.
    let memory = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let descriptors = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: descriptors.maximum,
        ..descriptors
    };
    let descriptors = setrlimit(Resource::Nofile, all);
    Hardened([
        (core, "cannot switch core dumps off"),
        (
            memory,
            "cannot keep other programs from reading this one's memory",
        ),
        (descriptors, "cannot raise the limit of descriptors"),
    ])
}

impl Hardened {
    /// Tells what could not be had.
    pub(super) fn tell(&self) {
        for (done, what) in &self.0 {
            if let Err(error) = done {
                warn!(%error, "{what}");
            }
        }
    }
}
