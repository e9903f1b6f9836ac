//! What the figures were measured on: processor, memory, disk, versions, load. Nothing that names the machine.

use std::{
    fs::{self, File},
    io::Write as _,
    process::Command,
    time::Instant,
};

use crate::{
    load::percentile,
    support::folder::Folder,
    table::{Sheet, milliseconds},
};

pub(crate) fn look(sheet: &mut Sheet) {
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    sheet.fact("processor", format!("{model}, {cores} cores"));
    sheet.fact("memory", format!("{:.0} GiB", kib / 1024.0 / 1024.0));
    sheet.fact("median fdatasync after 4 KiB", milliseconds(sync()));
    sheet.fact("load average at the begin", load());
    // With it, processors idle for tens of milliseconds beside tasks that could run: see docs/profiles.md.
    let by_session = fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled");
    let by_session = by_session.is_ok_and(|enabled| enabled.trim() == "1");
    let by_session = if by_session { "on" } else { "off" };
    sheet.fact("sharing of processors by session (autogroup)", by_session);
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map_or_else(|_| Vec::new(), |output| output.stdout);
    sheet.fact("compiler", String::from_utf8_lossy(&compiler).trim());
}

/// The load average of the last 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Of 200 times: 4 KiB are appended to a file and synced.
fn sync() -> f64 {
    let folder = Folder::new("sync");
    let mut file = File::create(folder.join("file")).expect("a file");
    let mut times: Vec<u32> = (0..200)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[b'x'; 4096]).expect("room on the disk");
            file.sync_data().expect("a sync");
            began.elapsed().as_micros() as u32
        })
        .collect();
    times.sort_unstable();
    percentile(&times, 50)
}
