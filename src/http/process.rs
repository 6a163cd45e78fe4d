//! What the kernel tells about this process, under the names that every exporter uses.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

type Sample = (&'static str, &'static str, f64);

/// The fields of `/proc/self/stat` behind the name of the program: `utime`, `stime` and `rss` are among them.
const UTIME: usize = 11;
const STIME: usize = 12;
const THREADS: usize = 17;
const RESIDENT: usize = 21;

pub(super) fn counters() -> Vec<Sample> {
    let Some(stat) = stat() else {
        return Vec::new();
    };
    let ticks = stat[UTIME] + stat[STIME];
    vec![(
        "process_cpu_seconds_total",
        "Time on a processor, of user and system.",
        ticks / clock_ticks_per_second() as f64,
    )]
}

pub(super) fn gauges() -> Vec<Sample> {
    let mut samples = Vec::new();
    if let Some(stat) = stat() {
        samples.push((
            "process_resident_memory_bytes",
            "Memory in use.",
            stat[RESIDENT] * page_size() as f64,
        ));
        samples.push(("process_threads", "Threads.", stat[THREADS]));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        samples.push(("process_open_fds", "Open descriptors.", open.count() as f64));
    }
    let limit = getrlimit(Resource::Nofile)
        .current
        .map_or(f64::INFINITY, |limit| limit as f64);
    samples.push(("process_max_fds", "Descriptors that may be open.", limit));
    samples
}

/// The numbers of `/proc/self/stat`; the name of the program before them may contain anything.
fn stat() -> Option<Vec<f64>> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let numbers: Vec<f64> = rest
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(0.0))
        .collect();
    (numbers.len() > RESIDENT).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let gauges = gauges();
        for name in [
            "process_resident_memory_bytes",
            "process_threads",
            "process_open_fds",
            "process_max_fds",
        ] {
            let (_, _, value) = gauges.iter().find(|(found, _, _)| *found == name).unwrap();
            assert!(*value >= 1.0, "{name} {value}");
        }
        assert!(counters()[0].2 >= 0.0);
    }
}
