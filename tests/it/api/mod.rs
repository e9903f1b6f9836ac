//! The HTTP contract, call by call, against the real binary.

mod errors;
mod malformed;
mod secrets;

use crate::support::service::{Answer, Client, Deployment, Replica};
use serde_json::Value;

const LIST: &str = "/api/v1/user/secrets";
const ABSENT: &str = "0198f3c2-0000-7000-8000-000000000000";
const ALL: [&str; 4] = [
    "secrets:read",
    "secrets:write",
    "secrets:resolve",
    "events:read",
];

/// One service on a database of its own, and Alice, who may do everything.
struct Service {
    // Before the deployment: the process goes before its folder.
    replica: Replica,
    deployment: Deployment,
    token: String,
    alice: Client,
}

impl Service {
    fn start() -> Self {
        Self::of(Deployment::sqlite().raised_limits())
    }

    /// With settings of its own, and else the limits that an operator gets.
    fn with(settings: &[(&str, &str)]) -> Self {
        let deployment = settings
            .iter()
            .fold(Deployment::sqlite(), |deployment, (key, value)| {
                deployment.set(key, value)
            });
        Self::of(deployment)
    }

    fn of(deployment: Deployment) -> Self {
        let deployment = deployment.prepare();
        let token = deployment.token("alice", &ALL);
        let replica = deployment.serve();
        let alice = replica.client(&token);
        Self {
            replica,
            deployment,
            token,
            alice,
        }
    }

    fn owner(&self, name: &str) -> Client {
        self.replica.client(&self.deployment.token(name, &ALL))
    }

    fn anonymous(&self) -> Client {
        Client::anonymous(self.replica.base())
    }
}

/// An error is exactly these bytes; each of `errors` is `loc` as JSON, `msg` and `type`.
pub(crate) fn assert_error(
    answer: &Answer,
    status: u16,
    kind: &str,
    detail: &str,
    errors: &[[&str; 3]],
) {
    let items: Vec<_> = errors
        .iter()
        .map(|[loc, msg, kind]| format!(r#"{{"loc":{loc},"msg":"{msg}","type":"{kind}"}}"#))
        .collect();
    let errors = if items.is_empty() {
        String::new()
    } else {
        format!(r#","errors":[{}]"#, items.join(","))
    };
    let body = format!(r#"{{"code":{status},"detail":"{detail}","type":"{kind}"{errors}}}"#);
    assert_eq!((answer.status, answer.text()), (status, body));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_common(answer);
}

/// What every answer carries, an error too.
pub(crate) fn assert_common(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let id = answer.header("x-request-id").expect("a request ID");
    assert!((1..=128).contains(&id.len()), "{id}");
}

fn text<'value>(object: &'value Value, key: &str) -> &'value str {
    object[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is no text in {object}"))
}
