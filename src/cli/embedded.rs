//! The embedded default: the binary alone creates its key, its database and its first token.
//!
//! Each is created when it is absent, a file before the row that names it, so that the next start finishes
//! one that was interrupted.

use std::{
    fs::File,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use chrono::Utc;
use zeroize::Zeroizing;

use super::{CommandError, database};
use crate::{
    auth::{Token, issue},
    crypto::Keyring,
    domain::{Agent, Grant, Grantee, NamedSecrets, Networks, Owner, Scope, Timestamp},
    files::{Replacement, create_folder, open_no_link, refuse_shared},
    settings::Settings,
    store::Missing,
};

/// The name of the first token's file.
const TOKEN: &str = "token";

/// What the first token may do.
const FIRST_SCOPES: [Scope; 4] = [
    Scope::SecretsRead,
    Scope::SecretsWrite,
    Scope::SecretsResolve,
    Scope::EventsRead,
];

/// Creates what is absent and returns the absolute path of the folder.
pub(super) async fn prepare(settings: &Settings) -> Result<PathBuf, CommandError> {
    let keyring = &settings.keyring.path;
    let file = settings
        .database
        .sqlite_path()
        .ok_or("the embedded default is SQLite")?;
    let folder = file.parent().ok_or("the database has no folder")?;
    create_folder(folder)?;
    refuse_shared_folder(folder)?;
    if !keyring.exists() {
        if file.exists() {
            let keyring = std::path::absolute(keyring)?;
            let keyring = keyring.display();
            let text = format!("the database is there, but its key is not: restore {keyring}");
            return Err(text.into());
        }
        Keyring::generate(
            keyring,
            settings.keyring.passphrase.as_ref(),
            Timestamp::from(Utc::now()),
        )?;
    }
    let admin = database::open(settings, Missing::Create).await?;
    database::migrate(settings, &admin).await?;
    let key = database::token_mac(settings, &admin).await?;
    let folder = std::path::absolute(folder)?;
    let path = folder.join(TOKEN);
    if admin.has_no_token().await? {
        let token = match open_no_link(&path) {
            Ok(file) => read_token(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => write_token(&path)?,
            Err(error) => return Err(format!("cannot open {}: {error}", path.display()).into()),
        };
        let grant = Grant {
            grantee: Grantee::Owner(Owner::parse("me")?),
            scopes: FIRST_SCOPES.to_vec(),
            label: "first start".to_owned(),
            created_at: Timestamp::from(Utc::now()),
            expires_at: None,
            networks: Networks::default(),
            secrets: NamedSecrets::ALL,
        };
        let token = issue(&token, grant);
        admin.add_token(token, &key, Agent::SYSTEM).await?;
    }
    admin.close().await;
    Ok(folder)
}

/// Refuses a folder that was there already and in which others could have put, or could read, what it is to hold.
fn refuse_shared_folder(folder: &Path) -> Result<(), CommandError> {
    let shared = refuse_shared(&File::open(folder)?);
    shared.map_err(|why| {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let folder = folder.display();
        format!("{folder} is not private: {why}; move it away, or run chmod 0700 on it").into()
    })
}

/// The token that an earlier start, which was cut short, has written.
fn read_token(mut file: File) -> Result<Token, CommandError> {
    refuse_shared(&file).map_err(|why| format!("data/token is not private: {why}"))?;
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text)?;
    Ok(Token::parse(text.trim_end()).ok_or("data/token does not hold a token")?)
}

/// Creates a token's file: it is whole or absent.
fn write_token(path: &Path) -> Result<Token, CommandError> {
    let token = Token::generate()?;
    let mut file = Replacement::of(path, 0o600)?;
    writeln!(file, "{}", token.expose())?;
    file.commit_as_new()?;
    Ok(token)
}

/// Prints two commands that work as pasted.
pub(super) fn welcome(url: &str, folder: &Path) {
    let base = format!("{url}/api/v1/user/secrets");
    // In double quotes, so that the shell still reads the file but splits nothing.
    let call = format!(
        "curl --silent --header \"Authorization: Bearer $(cat '{}')\" --header 'Content-Type: application/json'",
        folder.join(TOKEN).display()
    );
    let mut err = io::stderr().lock();
    // Nothing can be done about a closed stderr.
    let _ = writeln!(
        err,
        "data: {}\ncreate: ID=$({call} --data '{{\"name\": \"OPENAI_API_KEY\", \"value\": \"example\"}}' {base} | tee /dev/stderr | grep -o '\"id\":\"[^\"]*' | cut -d'\"' -f4)\nupdate: {call} --request PUT --data '{{\"value\": \"example\"}}' {base}/$ID",
        folder.display()
    );
}
