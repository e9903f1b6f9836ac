//! What rekey keeps on disk and in memory is its own user's alone.

use crate::support::{
    fixture::{self, World},
    process::Process,
    service::Deployment,
};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::geteuid,
};
use std::{
    fs::{DirBuilder, Permissions, set_permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

fn refused(deployment: &Deployment) -> String {
    let output = deployment.try_run(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn mode(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_others_may_read_or_own_does_not_become_the_embedded_default() {
    let deployment = Deployment::embedded();
    let data = deployment.folder().join("data");
    DirBuilder::new().mode(0o755).create(&data).unwrap();
    mode(&data, 0o750);
    let talk = refused(&deployment);
    let begin = format!("rekey: {} is not private: its mode is 0750", data.display());
    assert!(talk.contains(&begin), "{talk}");
    mode(&data, 0o700);
    if geteuid().is_root() {
        chown(&data, Some(10_001), None).unwrap();
        let talk = refused(&deployment);
        assert!(talk.contains("it belongs to the user 10001"), "{talk}");
        chown(&data, Some(0), None).unwrap();
    }
    assert_eq!(data.read_dir().unwrap().count(), 0);
    drop(deployment.serve());
    deployment.embedded_token();
}

#[test]
fn the_first_token_is_written_and_read_through_no_link() {
    let deployment = Deployment::embedded();
    let data = deployment.folder().join("data");
    DirBuilder::new().mode(0o700).create(&data).unwrap();
    let elsewhere = deployment.folder().join("elsewhere");
    symlink(&elsewhere, data.join("token")).unwrap();
    let talk = refused(&deployment);
    assert!(talk.contains("cannot open"), "{talk}");
    assert!(!elsewhere.exists());
    // Nor is a token taken from there that somebody else knows.
    let known = Deployment::embedded();
    drop(known.serve());
    std::fs::write(&elsewhere, known.embedded_token()).unwrap();
    let talk = refused(&deployment);
    assert!(talk.contains("cannot open"), "{talk}");
    std::fs::remove_file(data.join("token")).unwrap();
    drop(deployment.serve());
    assert_ne!(deployment.embedded_token(), known.embedded_token());
}

#[test]
fn a_keyring_that_others_may_read_or_own_is_refused() {
    let deployment = fixture::sqlite();
    let keyring = deployment.keyring();
    mode(&keyring, 0o640);
    let talk = refused(&deployment);
    assert!(talk.contains("its mode is 0640"), "{talk}");
    mode(&keyring, 0o600);
    if geteuid().is_root() {
        chown(&keyring, Some(10_001), None).unwrap();
        let talk = refused(&deployment);
        assert!(talk.contains("it belongs to the user 10001"), "{talk}");
        chown(&keyring, Some(0), None).unwrap();
    }
    drop(deployment.serve());
}

#[test]
fn no_core_file_can_be_left_once_the_first_setting_is_read() {
    let deployment = Deployment::embedded();
    let pipe = deployment.folder().join("url");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut command = deployment.command(&["serve"]);
    command
        .env("REKEY__DATABASE__URL__FILE", &pipe)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = Process::spawn(&mut command);
    // It reads the setting, which nobody writes.
    let proc = Path::new("/proc").join(process.id().to_string());
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let limits = std::fs::read_to_string(proc.join("limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        // Of both limits, the one that it could raise the other to.
        if core.unwrap().split_whitespace().nth(5) == Some("0") {
            break;
        }
        assert!(Instant::now() < end, "{limits}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_deleted_value_leaves_no_trace_in_the_database_not_even_sealed() {
    let mut world = World::sqlite();
    let id = world.alice.create("A", &"sk-".repeat(300)).await.unwrap();
    let id = id.expect(201).id();
    let sealed = world
        .deployment
        .sql("SELECT hex(sealed_value) FROM secret_versions");
    let sealed = hex::decode(sealed.trim()).unwrap();
    let file = world.deployment.database().replace("sqlite://", "");
    let holds = || {
        let bytes = std::fs::read(&file).unwrap();
        bytes.windows(64).any(|window| window == &sealed[40..104])
    };
    assert_eq!(world.replica.terminate(), Some(0));
    assert!(holds(), "the search does not find what is there");
    let replica = world.deployment.serve();
    let alice = world.alice.on(replica.base());
    alice.delete(&id).await.unwrap().expect(204);
    world.replica = replica;
    assert_eq!(world.replica.terminate(), Some(0));
    assert!(!holds());
}
