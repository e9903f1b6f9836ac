//! Python: the system's own for what its standard library does, and one with `pika`.

use super::process::{on_path, program};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What a script prints, given this on its standard input. Panics, showing why, when it fails.
pub(crate) fn run(script: &str, input: &[u8]) -> String {
    try_run(script, input).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The same, or what it says on its standard error when it fails.
pub(crate) fn try_run(script: &str, input: &[u8]) -> Result<String, String> {
    let python = on_path("python3").expect("python3 is missing: apt-get install python3");
    let mut child = program(python)
        .args(["-c", script])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input));
    let output = child.wait_with_output().expect("python3 ends");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    feeding.join().expect("a thread").expect("it reads all");
    Ok(String::from_utf8(output.stdout).expect("UTF-8"))
}

/// The Python of the private environment that `scripts/test python` makes beside the build.
pub(crate) fn with_pika() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let python = target.expect("target/").join("python/bin/python");
    assert!(
        python.is_file(),
        "{} is missing: scripts/test python",
        python.display()
    );
    python
}
