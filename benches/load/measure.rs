//! What a process has cost so far: processor time and memory, as the kernel counts them.

use std::{fs, io};

use super::sys;

/// Processor time of a process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Nanoseconds that its threads ran. Softirqs that run inside its system calls are part of it.
    pub(crate) running: u64,
    /// Nanoseconds that its threads could have run but something else did: above zero, the machine is not ours alone.
    pub(crate) delayed: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut usage = Self {
            running: sys::process_time(pid)?,
            delayed: 0,
        };
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the reading; what it cost is then not counted.
            if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
                let delayed = text
                    .split_whitespace()
                    .nth(1)
                    .and_then(|word| word.parse::<u64>().ok());
                usage.delayed += delayed.unwrap_or(0);
            }
        }
        Ok(usage)
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            running: self.running.saturating_sub(earlier.running),
            delayed: self.delayed.saturating_sub(earlier.delayed),
        }
    }
}

/// The kernel thread that takes over a core's softirqs when there are too many for the interrupted process.
pub(crate) fn softirq_thread(core: usize) -> Option<u32> {
    let name = format!("ksoftirqd/{core}\n");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == name))
}

/// Bytes of memory that a process has resident.
pub(crate) fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no VmRSS line"))
}
