//! `rekey backup FILE`: a copy of a `SQLite` database, made while the service writes.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{CommandError, database, print, say};
use crate::{files::Replacement, settings::Settings, store::Missing};

#[derive(Debug, Args)]
pub(super) struct BackupOptions {
    /// The file to write. It must not exist.
    file: PathBuf,
}

pub(super) async fn run(
    settings: &Settings,
    options: BackupOptions,
    as_json: bool,
) -> Result<(), CommandError> {
    let file = std::path::absolute(options.file)?;
    if settings.database.sqlite_path().is_none() {
        return Err(
            "database.url is a PostgreSQL server, and `rekey backup` copies SQLite files: \
                    take a dump with pg_dump, as docs/operate.md says"
                .into(),
        );
    }
    if file.symlink_metadata().is_ok() {
        return Err(exists(&file));
    }
    let admin = database::open(settings, Missing::Refuse).await?;
    let unwritable = |error| format!("cannot write {}: {error}", file.display());
    let replacement = Replacement::of(&file, 0o600).map_err(unwritable)?;
    let heads = admin.back_up(replacement.temporary()).await?;
    admin.close().await;
    replacement.commit_as_new().map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            exists(&file)
        } else {
            unwritable(error).into()
        }
    })?;
    if as_json {
        let logs: Vec<_> = heads
            .iter()
            .map(|head| {
                let hash = hex::encode(&head.hash);
                json!({"log": head.log, "cursor": head.cursor.to_string(), "hash": hash})
            })
            .collect();
        print(json!({"file": file, "logs": logs}))?;
    } else {
        print(file.display())?;
        for head in heads {
            let hash = hex::encode(&head.hash);
            print(format!("{}  {}  {hash}", head.log.as_str(), head.cursor))?;
        }
    }
    say(&without_keyring(settings)?);
    Ok(())
}

fn exists(file: &Path) -> CommandError {
    format!("{} is there already: name a new file", file.display()).into()
}

/// What the backup is worth nothing without.
fn without_keyring(settings: &Settings) -> io::Result<String> {
    let source = if settings.keyring.keys.is_empty() {
        let path = std::path::absolute(&settings.keyring.path)?;
        format!("the keyring {}", path.display())
    } else {
        "the keys of keyring.keys".to_owned()
    };
    Ok(format!(
        "{source} is not in the backup, and without it no value can be read: keep a copy of it elsewhere"
    ))
}
