//! The embedded default: one binary with nothing else makes its key, its database and its first token.
//!
//! Each thing is made when it is absent, a file before the row that names it, so that a start which was
//! cut short is finished by the next.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chrono::Utc;
use tokio::runtime::Handle;

use super::CommandError;
use crate::{
    app,
    auth::{Scope, Token, issue},
    crypto::Keyring,
    domain::{Agent, Owner, Timestamp},
    settings::Settings,
    store::{Missing, Operator, TokenKind},
};

/// Makes what is absent; answers the absolute path of the token's file.
pub(super) async fn prepare(settings: &Settings) -> Result<PathBuf, CommandError> {
    let keyring = &settings.keyring.path;
    let database = settings
        .database
        .sqlite_path()
        .ok_or("the embedded default is SQLite")?;
    let folder = database.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    match (keyring.exists(), database.exists()) {
        (false, true) => {
            let keyring = std::path::absolute(keyring)?;
            return Err(format!(
                "the database is there, but its key is not: put {} back",
                keyring.display()
            )
            .into());
        }
        (false, false) => drop(Keyring::generate(keyring, Timestamp::from(Utc::now()))?),
        (true, _) => {}
    }
    let target = app::target(settings, Missing::Create);
    let operator = Operator::open(&target, &Handle::current()).await?;
    operator.migrate_up().await?;
    let path = std::path::absolute(folder.join("token"))?;
    if operator.tokens().await?.is_empty() {
        let token = match fs::read_to_string(&path) {
            Ok(text) => Token::parse(text.trim_end()).ok_or("data/token is not a token")?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => write_token(&path)?,
            Err(error) => return Err(error.into()),
        };
        let kind = TokenKind::Owner(Owner::parse("me")?);
        let times = (Timestamp::from(Utc::now()), None);
        operator
            .add_token(
                issue(&token, kind, &Scope::ALL, "first start".to_owned(), times),
                Agent::SYSTEM,
            )
            .await?;
    }
    operator.close().await;
    Ok(path)
}

/// Written aside and renamed: the file is whole or absent.
fn write_token(path: &Path) -> Result<Token, CommandError> {
    let token = Token::generate()?;
    let aside = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    writeln!(file, "{}", token.expose())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    Ok(token)
}

/// Two lines that work as pasted.
pub(super) fn welcome(address: SocketAddr, token: &Path) {
    let base = format!("http://{address}/api/v1/user/secrets");
    // In double quotes, so that the shell still reads the file but splits nothing.
    let call = format!(
        "curl --silent --header \"Authorization: Bearer $(cat '{}')\" --header 'Content-Type: application/json'",
        token.display()
    );
    let mut err = io::stderr().lock();
    // Nothing can be done about a closed stderr.
    let _ = writeln!(
        err,
        "data: {}\ncreate: ID=$({call} --data '{{\"name\": \"OPENAI_API_KEY\", \"value\": \"example\"}}' {base} | tee /dev/stderr | grep -o '\"id\":\"[^\"]*' | cut -d'\"' -f4)\nupdate: {call} --request PUT --data '{{\"value\": \"example\"}}' {base}/$ID",
        token.parent().unwrap_or(token).display()
    );
}
