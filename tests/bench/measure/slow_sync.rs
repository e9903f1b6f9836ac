//! A slower disk: a small library, loaded into the private PostgreSQL, that adds a millisecond to each sync.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use crate::support::{folder::Folder, postgres::Postgres, process};

const SOURCE: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static int slowly(long number, int file) {
    struct timespec millisecond = {0, 1000000};
    int result = syscall(number, file);
    if (result == 0) nanosleep(&millisecond, 0);
    return result;
}
int fsync(int file) { return slowly(SYS_fsync, file); }
int fdatasync(int file) { return slowly(SYS_fdatasync, file); }
";

pub(crate) struct SlowPostgres {
    // First, so that it ends before its library is removed.
    pub(crate) server: Postgres,
    _folder: Folder,
}

impl SlowPostgres {
    /// None where there is no C compiler.
    pub(crate) fn start() -> Option<Self> {
        let cc = process::on_path("cc")?;
        let folder = Folder::new("slow");
        // The server's account must reach the library.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("permissions");
        let (source, library) = (folder.join("slow.c"), folder.join("slow.so"));
        fs::write(&source, SOURCE).expect("a source file");
        let compiled = Command::new(cc)
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc fails");
        let preload = library.to_str().expect("UTF-8");
        let server = Postgres::start_private_in(&[], &[("LD_PRELOAD", preload)]);
        let own = fs::read_to_string(server.folder().join("data/postmaster.pid"));
        let own = own.expect("the server's own file");
        let id = own.lines().next().expect("a process ID");
        let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("a process");
        assert!(maps.contains(preload), "the server has loaded the library");
        Some(Self {
            server,
            _folder: folder,
        })
    }
}
