//! Keeps the memory of this process, which holds secrets, from other programs; and takes all descriptors it may have.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use tracing::warn;

/// What can be refused is not worth failing for.
pub(super) fn process() {
    if let Err(error) = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    ) {
        warn!(%error, "cannot switch core dumps off");
    }
    // No debugger, and no reading of /proc/self/mem, by other programs of the same user.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "cannot keep other programs from reading this one's memory");
    }
    let descriptors = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: descriptors.maximum,
            ..descriptors
        },
    ) {
        warn!(%error, "cannot raise the limit of descriptors");
    }
}
