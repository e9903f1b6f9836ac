//! Ends what the tests started when the test process is gone.
//!
//! The test harness never drops a `static`, and a killed process drops nothing at all. So a small shell process
//! reads a pipe whose only writer is this process: at its end, whatever ended the writer, it stops every process
//! that it was told of, removes their shared memory and the folders, and ends. It stands in a process group of its
//! own and ignores the terminal's signals, so that Ctrl-C does not take it along.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// SIGQUIT first: `PostgreSQL` then gives back its System V segment, which outlives a SIGKILL; a stopped process
/// must go on to notice. A process that is still there after three seconds is killed with its children.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
processes= folders=
without() {
    for one in $1; do [ "$one" = "$2" ] || printf ' %s' "$one"; done
}
while read -r verb what; do
    case $verb in
        process) processes="$processes $what" ;;
        -process) processes=$(without "$processes" "$what") ;;
        folder) folders="$folders $what" ;;
        -folder) folders=$(without "$folders" "$what") ;;
    esac
done
alive() {
    for one in $processes; do
        case $(cat "/proc/$one/stat" 2>/dev/null) in
            '' | *') Z '*) ;;
            *) return 0 ;;
        esac
    done
    return 1
}
children=
for one in $processes; do
    children="$children $(cat "/proc/$one/task/$one/children" 2>/dev/null)"
    kill -QUIT "$one" 2>/dev/null
    kill -CONT "$one" 2>/dev/null
done
tries=0
while alive && [ "$tries" -lt 60 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
if alive; then
    for one in $processes $children; do kill -KILL "$one" 2>/dev/null; done
fi
for one in $folders; do
    segment=$(sed -n '7s/^ *[0-9]* *//p' "$one/data/postmaster.pid" 2>/dev/null)
    [ -z "$segment" ] || ipcrm -m "$segment" 2>/dev/null
    tries=0
    while [ -e "$one" ] && [ "$tries" -lt 100 ]; do
        rm -rf "$one" 2>/dev/null
        tries=$((tries + 1))
        [ ! -e "$one" ] || sleep 0.05
    done
done
"#;

pub(crate) fn watch_process(id: u32) {
    tell(&format!("process {id}"));
}

pub(crate) fn forget_process(id: u32) {
    tell(&format!("-process {id}"));
}

pub(crate) fn watch_folder(path: &Path) {
    tell(&format!("folder {}", path.display()));
}

pub(crate) fn forget_folder(path: &Path) {
    tell(&format!("-folder {}", path.display()));
}

fn tell(line: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| Mutex::new(start()));
    writeln!(pipe.lock().unwrap(), "{line}").expect("the reaper listens");
}

fn start() -> ChildStdin {
    Command::new("sh")
        .args(["-c", SCRIPT, "reaper"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .expect("sh starts")
        .stdin
        .take()
        .expect("a piped stdin")
}
