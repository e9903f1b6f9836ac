//! The routes, as data: what is served where, and to whom. A test compares them with `docs/openapi.json`.

use actix_web::http::Method;
use futures_util::future::ready;

use super::{
    documents,
    error::ApiError,
    events, expiry, health, metrics, presets,
    request::{Answering, Call},
    resolve, secrets,
    serve::Edge,
    sets, tokens, versions,
};
use crate::domain::Scope;

/// What can be done at a path.
pub(super) struct Operation {
    /// The whole path; one segment may be `{secret_id}`.
    pub(super) path: &'static str,
    /// The method.
    verb: Verb,
    /// What answers.
    pub(super) run: Run,
    /// Its `operationId` in the OpenAPI document.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares it with the document")
    )]
    id: &'static str,
}

impl Operation {
    /// Whether it needs no credential. It is so for all operations of a path, or for none.
    pub(super) fn is_public(&self) -> bool {
        matches!(self.run, Run::Public(_))
    }
}

/// What answers, and whom.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Anybody, without a credential.
    Public(for<'a> fn(&'a Edge) -> Answering<'a>),
    /// Owners alone, whose token has the scope.
    Owner(Scope, for<'a> fn(Call<'a>) -> Answering<'a>),
    /// Owners and services, whose token has the scope.
    Anyone(Scope, for<'a> fn(Call<'a, ()>) -> Answering<'a>),
}

/// The methods that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// `GET`, and `HEAD` with it (RFC 9110 section 9.1).
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
}

impl Verb {
    /// The verb of a method, if it is one.
    pub(super) fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PUT => Some(Self::Put),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    /// The method's name; `HEAD` counts as `GET`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    fn allowed(self) -> &'static str {
        if self == Self::Get {
            "GET, HEAD"
        } else {
            self.name()
        }
    }
}

/// The operation of a path for a method.
///
/// # Errors
/// [`ApiError::NotFound`] when the path has no operation, [`ApiError::MethodNotAllowed`] with those that it
/// has.
pub(super) fn operation<'a>(
    operations: &'a [Operation],
    method: &Method,
) -> Result<&'a Operation, ApiError> {
    let verb = Verb::of(method);
    let found = operations
        .iter()
        .find(|operation| Some(operation.verb) == verb);
    found.ok_or_else(|| {
        if operations.is_empty() {
            return ApiError::NotFound;
        }
        let verbs = operations.iter().map(|operation| operation.verb.allowed());
        ApiError::MethodNotAllowed {
            allow: verbs.collect::<Vec<_>>().join(", "),
        }
    })
}

/// The operations of a path, with the segment that stands for `{secret_id}`.
///
/// actix-web has decoded what was percent-encoded in the path, but for `%`, `/` and `+`.
pub(super) fn find(path: &str) -> Option<(&'static [Operation], Option<&str>)> {
    let mut routes = ROUTES.chunk_by(|one, next| one.path == next.path);
    routes.find_map(|operations| {
        let mut wanted = operations.first()?.path.split('/');
        let mut given = path.split('/');
        let mut secret_id = None;
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some((operations, secret_id)),
                (Some(SECRET_ID | TOKEN_ID), Some(segment)) if !segment.is_empty() => {
                    secret_id = Some(segment);
                }
                (Some(wanted), Some(given)) if wanted == given => {}
                _ => return None,
            }
        }
    })
}

/// The segment that stands for any.
pub(super) const SECRET_ID: &str = "{secret_id}";
/// Another one.
pub(super) const TOKEN_ID: &str = "{token_id}";

/// All routes. The first path that fits is the one, so the fixed segments come first; the operations of a path
/// stand together.
pub(super) static ROUTES: [Operation; 26] = [
    Operation {
        path: "/api/v1/user/secrets",
        verb: Verb::Get,
        run: Run::Owner(Scope::SecretsRead, |call| Box::pin(secrets::list(call))),
        id: "list_secrets",
    },
    Operation {
        path: "/api/v1/user/secrets",
        verb: Verb::Post,
        run: Run::Owner(Scope::SecretsWrite, |call| Box::pin(secrets::create(call))),
        id: "create_secret",
    },
    Operation {
        path: "/api/v1/user/secrets/presets",
        verb: Verb::Get,
        run: Run::Owner(Scope::SecretsRead, |call| Box::pin(presets::list(call))),
        id: "list_secret_presets",
    },
    Operation {
        path: "/api/v1/user/secrets/preset",
        verb: Verb::Post,
        run: Run::Owner(Scope::SecretsWrite, |call| Box::pin(presets::create(call))),
        id: "create_secret_from_preset",
    },
    Operation {
        path: "/api/v1/user/secrets/batch",
        verb: Verb::Post,
        run: Run::Owner(Scope::SecretsWrite, |call| Box::pin(sets::update(call))),
        id: "update_secrets",
    },
    Operation {
        path: "/api/v1/secrets/resolve",
        verb: Verb::Post,
        run: Run::Anyone(Scope::SecretsResolve, |call| {
            Box::pin(resolve::resolve(call))
        }),
        id: "resolve_secrets",
    },
    Operation {
        path: "/api/v1/tokens",
        verb: Verb::Get,
        run: Run::Owner(Scope::TokensWrite, |call| Box::pin(tokens::list(call))),
        id: "list_tokens",
    },
    Operation {
        path: "/api/v1/tokens",
        verb: Verb::Post,
        run: Run::Owner(Scope::TokensWrite, |call| Box::pin(tokens::create(call))),
        id: "create_token",
    },
    Operation {
        path: "/api/v1/tokens/{token_id}",
        verb: Verb::Delete,
        run: Run::Owner(Scope::TokensWrite, |call| Box::pin(tokens::revoke(call))),
        id: "revoke_token",
    },
    Operation {
        path: "/api/v1/events",
        verb: Verb::Get,
        run: Run::Anyone(Scope::EventsRead, |call| Box::pin(events::list(call))),
        id: "list_events",
    },
    Operation {
        path: "/api/v1/events/head",
        verb: Verb::Get,
        run: Run::Anyone(Scope::EventsRead, |call| Box::pin(events::head(call))),
        id: "get_log_head",
    },
    Operation {
        path: "/schemas/secret-event.v1.json",
        verb: Verb::Get,
        run: Run::Public(|_| Box::pin(ready(Ok(documents::serve(documents::SECRET_EVENT))))),
        id: "get_secret_event_schema",
    },
    Operation {
        path: "/schemas/activity-event.v1.json",
        verb: Verb::Get,
        run: Run::Public(|_| Box::pin(ready(Ok(documents::serve(documents::ACTIVITY_EVENT))))),
        id: "get_activity_event_schema",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}",
        verb: Verb::Get,
        run: Run::Owner(Scope::SecretsRead, |call| Box::pin(secrets::get(call))),
        id: "get_secret",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}",
        verb: Verb::Put,
        run: Run::Owner(Scope::SecretsWrite, |call| Box::pin(secrets::update(call))),
        id: "update_secret",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}",
        verb: Verb::Delete,
        run: Run::Owner(Scope::SecretsWrite, |call| Box::pin(secrets::delete(call))),
        id: "delete_secret",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}/events",
        verb: Verb::Get,
        run: Run::Owner(Scope::EventsRead, |call| Box::pin(events::history(call))),
        id: "list_secret_events",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}/expiry",
        verb: Verb::Get,
        run: Run::Owner(Scope::SecretsRead, |call| Box::pin(expiry::get(call))),
        id: "get_secret_expiry",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}/expiry",
        verb: Verb::Put,
        run: Run::Owner(Scope::SecretsWrite, |call| Box::pin(expiry::set(call))),
        id: "set_secret_expiry",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}/expiry",
        verb: Verb::Delete,
        run: Run::Owner(Scope::SecretsWrite, |call| Box::pin(expiry::delete(call))),
        id: "delete_secret_expiry",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}/versions",
        verb: Verb::Get,
        run: Run::Owner(Scope::SecretsRead, |call| Box::pin(versions::list(call))),
        id: "list_secret_versions",
    },
    Operation {
        path: "/api/v1/user/secrets/{secret_id}/restore",
        verb: Verb::Post,
        run: Run::Owner(Scope::SecretsWrite, |call| {
            Box::pin(versions::restore(call))
        }),
        id: "restore_secret",
    },
    Operation {
        path: "/health",
        verb: Verb::Get,
        run: Run::Public(|_| Box::pin(ready(Ok(health::alive())))),
        id: "health_check",
    },
    Operation {
        path: "/ready",
        verb: Verb::Get,
        run: Run::Public(|edge| Box::pin(health::ready(edge))),
        id: "readiness_check",
    },
    Operation {
        path: "/metrics",
        verb: Verb::Get,
        run: Run::Public(|edge| Box::pin(metrics::serve(edge))),
        id: "get_metrics",
    },
    Operation {
        path: "/openapi.json",
        verb: Verb::Get,
        run: Run::Public(|_| Box::pin(ready(Ok(documents::serve(documents::OPENAPI))))),
        id: "get_openapi",
    },
];

#[cfg(test)]
mod tests;
