//! `rekey events tail`: a log's events, read over HTTP.

use clap::Args;
use serde_json::Value;

use super::{
    CommandError,
    connection::{self, ConnectionOptions},
    log_name,
    output::print_part,
    say,
};
use crate::{
    backoff::Backoff,
    client::{ApiClient, ClientError, LONGEST_PAUSE, LogFollower},
    domain::{Cursor, Log},
};

const PAGE: u32 = 1000;

#[derive(Debug, Args)]
pub(super) struct TailOptions {
    /// Begin after this cursor, `<epoch>-<position>`; at the first event that the log holds unless given.
    #[arg(long, value_name = "CURSOR", value_parser = Cursor::parse)]
    after: Option<Cursor>,
    /// Go on with new events, and resume after a break of the connection.
    #[arg(long)]
    follow: bool,
    /// The log: `changes` (what happened to secrets) or `activity` (who read values, who got a token).
    #[arg(long, default_value = "changes", value_parser = log_name)]
    log: Log,
    #[command(flatten)]
    connection: ConnectionOptions,
}

pub(super) async fn run(options: TailOptions, as_json: bool) -> Result<(), CommandError> {
    let client = connection::from_environment(&options.connection)?;
    show(client, options, as_json).await
}

async fn show(client: ApiClient, options: TailOptions, as_json: bool) -> Result<(), CommandError> {
    let mut after = options.after;
    let mut backoff = Backoff::new(LONGEST_PAUSE);
    loop {
        let page = match client.events(options.log, after, PAGE).await {
            Err(error) if options.follow && error.may_pass() => {
                backoff.wait().await;
                continue;
            }
            page => page?,
        };
        backoff.reset();
        let lines = page.events.iter().map(|event| line(event, as_json));
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() {
            print_part(lines.join("\n"))?;
        }
        after = Some(page.next);
        if lines.len() < PAGE as usize {
            break;
        }
    }
    if !options.follow {
        return Ok(());
    }
    let mut follower = LogFollower::new(client.clone(), options.log, after);
    let mut rejected = false;
    loop {
        match follower.next().await {
            Ok(item) => {
                rejected = false;
                backoff.reset();
                // Without an event, the service only says how far it has read.
                if let Some(event) = item.event {
                    print_part(line(&event.body, as_json))?;
                }
            }
            Err(error @ ClientError::Unauthorised) if client.token_may_change() => {
                if !std::mem::replace(&mut rejected, true) {
                    say(&format!("{error}; waiting for another one in its file"));
                }
                backoff.wait().await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The event's exact bytes, or what a person wants to know about it.
fn line(event: &str, as_json: bool) -> String {
    if as_json {
        return event.to_owned();
    }
    // A text that is no event is shown as it came, but for control characters.
    let Ok(fields) = serde_json::from_str::<Value>(event) else {
        return event.escape_debug().to_string();
    };
    let text = |name: &str| {
        let value = fields.get(name).filter(|value| !value.is_null())?;
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        Some(text.escape_debug().to_string())
    };
    // Every event has these: a question mark stands for what is missing.
    let required = |name: &str| text(name).unwrap_or_else(|| "?".to_owned());
    let mut words = vec![
        format!("{}-{}", required("epoch"), required("position")),
        required("occurred_at"),
        required("type"),
    ];
    let subject = ["name", "token_id", "key_id"].into_iter().find_map(text);
    words.extend(match (text("owner"), subject) {
        (Some(owner), Some(subject)) => Some(format!("{owner}/{subject}")),
        (owner, subject) => owner.or(subject),
    });
    words.extend(text("version").map(|version| format!("version {version}")));
    if let Some(status) = text("status") {
        let asked = ["method", "route"].into_iter().filter_map(text);
        let asked: Vec<_> = asked.chain([status]).collect();
        words.push(asked.join(" "));
    }
    if let Some(actor) = fields.get("actor").filter(|actor| !actor.is_null()) {
        let part = |name| actor.get(name).and_then(Value::as_str);
        let by = [part("kind"), part("id")];
        let by: Vec<_> = by.into_iter().flatten().collect();
        words.push(format!("by {}", by.join(" ").escape_debug()));
    }
    words.extend(text("client").map(|client| format!("from {client}")));
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_when_what_and_who_or_holds_the_exact_bytes() {
        let event = r#"{"actor":{"id":"abc","kind":"token"},"epoch":1,"name":"A_KEY","occurred_at":"T","owner":"alice","position":7,"type":"secret.updated","version":3}"#;
        assert_eq!(
            line(event, false),
            "1-7  T  secret.updated  alice/A_KEY  version 3  by token abc"
        );
        assert_eq!(line(event, true), event);
        let event = r#"{"actor":null,"client":"192.0.2.1","epoch":1,"method":"GET","occurred_at":"T","owner":null,"position":9,"route":"/a","status":401,"token_id":"t","type":"access.denied"}"#;
        assert_eq!(
            line(event, false),
            "1-9  T  access.denied  t  GET /a 401  from 192.0.2.1"
        );
        let event = r#"{"actor":{"id":null,"kind":"operator"},"epoch":1,"key_id":"k\u001b","occurred_at":"T","owner":null,"position":8,"type":"key.added"}"#;
        assert_eq!(
            line(event, false),
            "1-8  T  key.added  k\\u{1b}  by operator"
        );
    }
}
