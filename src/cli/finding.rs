//! What `rekey audit verify` found, as it is printed.

use std::process::ExitCode;

use serde_json::json;

use super::{CommandError, print, say};
use crate::{
    audit::{Bad, Proof, VerifyError},
    domain::Log,
};

/// What a log, or an exported file, was found to be.
pub(super) struct LogFinding {
    /// The log; `None` for a file, which proves itself which log it holds.
    log: Option<Log>,
    found: Result<Proof, Bad>,
}

impl LogFinding {
    pub(super) fn of(
        log: Option<Log>,
        proved: Result<Proof, VerifyError>,
    ) -> Result<Self, VerifyError> {
        let found = match proved {
            Ok(proof) => Ok(proof),
            Err(VerifyError::Bad(bad)) => Err(bad),
            Err(error) => return Err(error),
        };
        Ok(Self { log, found })
    }
}

/// Prints what was found of the logs, and how many secrets are as the log says, or the first that is not.
pub(super) fn report(
    verdicts: &[LogFinding],
    values: Option<Result<u64, Bad>>,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let mut code = ExitCode::SUCCESS;
    let mut list = Vec::new();
    for LogFinding { log, found } in verdicts {
        match found {
            Ok(Proof {
                log,
                after,
                last,
                checkpoints,
            }) => {
                let (name, cursor, hash) = (log.as_str(), last.cursor, hex::encode(last.hash));
                list.push(json!({
                    "log": log, "after": after.to_string(), "cursor": cursor.to_string(), "hash": hash,
                    "checkpoints": checkpoints,
                }));
                if !as_json {
                    print(format!(
                        "{name}: verified: events after {after} through {cursor}, hash {hash}, {checkpoints} checkpoints"
                    ))?;
                }
            }
            Err(bad) => {
                code = ExitCode::FAILURE;
                list.push(json!({
                    "log": log, "first_bad_position": bad.position, "reason": bad.reason,
                }));
                if !as_json {
                    print(format!("first bad position: {}", bad.position))?;
                }
                say(&format!("{}: {bad}", log.map_or("export", Log::as_str)));
            }
        }
    }
    match &values {
        Some(Ok(count)) if !as_json => {
            print(format!("values: {count} secrets are as the log says"))?;
        }
        None | Some(Ok(_)) => {}
        Some(Err(bad)) => {
            code = ExitCode::FAILURE;
            if !as_json {
                print(format!("first bad position: {}", bad.position))?;
            }
            say(&format!("values: {bad}"));
        }
    }
    if as_json {
        let values = values.map(|values| match values {
            Ok(count) => json!({"secrets": count}),
            Err(bad) => json!({"first_bad_position": bad.position, "reason": bad.reason}),
        });
        print(json!({"logs": list, "values": values}))?;
    }
    Ok(code)
}
