//! Processor time and memory, as `/proc` tells them.

use std::{collections::HashMap, ffi::OsString, fs, time::Duration};

/// Linux counts in hundredths of a second on every architecture that Rust builds for.
const TICK: Duration = Duration::from_millis(10);

/// What the process has used so far, in user space and in the kernel; nothing where it has ended.
pub(crate) fn used(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may hold blanks; state is the first field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    sum(fields.split_whitespace().skip(11).take(2))
}

/// What each thread of the process whose name begins so has used so far, in nanoseconds. Of a thread
/// that runs just now it may be some milliseconds behind.
pub(crate) fn of_threads(pid: u32, name: &str) -> HashMap<OsString, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: fs::DirEntry| {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let is_meant = read("comm").starts_with(name);
        let used = read("schedstat").split(' ').next()?.parse().ok()?;
        is_meant.then(|| (task.file_name(), used))
    };
    tasks.filter_map(of_task).collect()
}

/// What all processes together have used so far, what the hypervisor took away included.
pub(crate) fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").expect("the kernel's counters");
    let fields: Vec<&str> = stat.lines().next().expect("a line").split_whitespace().collect();
    // user nice system (idle iowait) irq softirq steal
    sum([1, 2, 3, 6, 7, 8].iter().filter_map(|&index| fields.get(index).copied()))
}

/// Bytes of the process that are in memory; none where it has ended.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u32 = ticks.map(|field| field.parse::<u32>().expect("a number of ticks")).sum();
    TICK * ticks
}
