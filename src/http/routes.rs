//! The routes, as data: what is served where, and to whom. A test compares them with `docs/openapi.json`.

use actix_web::http::Method;
use futures_util::future::ready;

use super::{
    documents,
    error::ApiError,
    events, health, history, metrics, presets,
    request::{Answering, Call},
    resolve, secrets,
    serve::Edge,
    sets,
};
use crate::domain::Scope;

/// A path and what can be done there.
pub(super) struct Route {
    /// The whole path; one segment may be `{secret_id}`.
    pub(super) path: &'static str,
    /// Its operations.
    pub(super) operations: Operations,
}

impl Route {
    /// The operations, where they need a credential.
    pub(super) fn guarded(&self) -> Option<&'static [Operation<Guarded>]> {
        match self.operations {
            Operations::Guarded(operations) => Some(operations),
            Operations::Public(_) => None,
        }
    }
}

/// What can be done at a path, by who may do it.
#[derive(Clone, Copy)]
pub(super) enum Operations {
    /// For anybody, without a credential.
    Public(&'static [Operation<PublicHandler>]),
    /// For callers whose token has the scope.
    Guarded(&'static [Operation<Guarded>]),
}

/// A method of a path.
pub(super) struct Operation<H> {
    /// The method.
    pub(super) verb: Verb,
    /// What answers.
    pub(super) handler: H,
    /// Its `operationId` in the OpenAPI document.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares it with the document")
    )]
    pub(super) id: &'static str,
}

/// Answers anybody.
pub(super) type PublicHandler = for<'a> fn(&'a Edge) -> Answering<'a>;

/// Answers callers with a scope.
pub(super) struct Guarded {
    /// What the token must be good for.
    pub(super) scope: Scope,
    /// What answers.
    pub(super) run: Run,
}

/// What answers a caller.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Owners alone.
    Owner(for<'a> fn(Call<'a>) -> Answering<'a>),
    /// Services, too.
    Anyone(for<'a> fn(Call<'a, ()>) -> Answering<'a>),
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

    const fn allowed(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// The operation of a path for a method.
///
/// # Errors
/// [`ApiError::MethodNotAllowed`] with those that there are.
pub(super) fn operation<'a, H>(
    operations: &'a [Operation<H>],
    method: &Method,
) -> Result<&'a Operation<H>, ApiError> {
    let verb = Verb::of(method);
    let found = operations
        .iter()
        .find(|operation| Some(operation.verb) == verb);
    found.ok_or_else(|| {
        let verbs = operations.iter().map(|operation| operation.verb.allowed());
        ApiError::MethodNotAllowed {
            allow: verbs.collect::<Vec<_>>().join(", "),
        }
    })
}

/// The route of a path, with the segment that stands for `{secret_id}`.
///
/// actix-web has decoded what was percent-encoded in the path, but for `%`, `/` and `+`.
pub(super) fn find(path: &str) -> Option<(&'static Route, Option<&str>)> {
    ROUTES.iter().find_map(|route| {
        let mut wanted = route.path.split('/');
        let mut given = path.split('/');
        let mut secret_id = None;
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some((route, secret_id)),
                (Some(SECRET_ID), Some(segment)) if !segment.is_empty() => {
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

/// All routes. The first that fits a path is the one, so the fixed segments come first.
pub(super) static ROUTES: [Route; 15] = [
    Route {
        path: "/api/v1/user/secrets",
        operations: Operations::Guarded(&[
            Operation {
                verb: Verb::Get,
                handler: Guarded {
                    scope: Scope::SecretsRead,
                    run: Run::Owner(|call| Box::pin(secrets::list(call))),
                },
                id: "list_secrets",
            },
            Operation {
                verb: Verb::Post,
                handler: Guarded {
                    scope: Scope::SecretsWrite,
                    run: Run::Owner(|call| Box::pin(secrets::create(call))),
                },
                id: "create_secret",
            },
        ]),
    },
    Route {
        path: "/api/v1/user/secrets/presets",
        operations: Operations::Guarded(&[Operation {
            verb: Verb::Get,
            handler: Guarded {
                scope: Scope::SecretsRead,
                run: Run::Owner(|call| Box::pin(presets::list(call))),
            },
            id: "list_secret_presets",
        }]),
    },
    Route {
        path: "/api/v1/user/secrets/preset",
        operations: Operations::Guarded(&[Operation {
            verb: Verb::Post,
            handler: Guarded {
                scope: Scope::SecretsWrite,
                run: Run::Owner(|call| Box::pin(presets::create(call))),
            },
            id: "create_secret_from_preset",
        }]),
    },
    Route {
        path: "/api/v1/user/secrets/batch",
        operations: Operations::Guarded(&[Operation {
            verb: Verb::Post,
            handler: Guarded {
                scope: Scope::SecretsWrite,
                run: Run::Owner(|call| Box::pin(sets::update(call))),
            },
            id: "update_secrets",
        }]),
    },
    Route {
        path: "/api/v1/secrets/resolve",
        operations: Operations::Guarded(&[Operation {
            verb: Verb::Post,
            handler: Guarded {
                scope: Scope::SecretsResolve,
                run: Run::Anyone(|call| Box::pin(resolve::resolve(call))),
            },
            id: "resolve_secrets",
        }]),
    },
    Route {
        path: "/api/v1/events",
        operations: Operations::Guarded(&[Operation {
            verb: Verb::Get,
            handler: Guarded {
                scope: Scope::EventsRead,
                run: Run::Anyone(|call| Box::pin(events::list(call))),
            },
            id: "list_events",
        }]),
    },
    Route {
        path: "/api/v1/events/head",
        operations: Operations::Guarded(&[Operation {
            verb: Verb::Get,
            handler: Guarded {
                scope: Scope::EventsRead,
                run: Run::Anyone(|call| Box::pin(events::head(call))),
            },
            id: "get_log_head",
        }]),
    },
    Route {
        path: "/schemas/secret-event.v1.json",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(Ok(documents::secret_event_schema()))),
            id: "get_secret_event_schema",
        }]),
    },
    Route {
        path: "/schemas/activity-event.v1.json",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(Ok(documents::activity_event_schema()))),
            id: "get_activity_event_schema",
        }]),
    },
    Route {
        path: "/api/v1/user/secrets/{secret_id}",
        operations: Operations::Guarded(&[
            Operation {
                verb: Verb::Get,
                handler: Guarded {
                    scope: Scope::SecretsRead,
                    run: Run::Owner(|call| Box::pin(secrets::get(call))),
                },
                id: "get_secret",
            },
            Operation {
                verb: Verb::Put,
                handler: Guarded {
                    scope: Scope::SecretsWrite,
                    run: Run::Owner(|call| Box::pin(secrets::update(call))),
                },
                id: "update_secret",
            },
            Operation {
                verb: Verb::Delete,
                handler: Guarded {
                    scope: Scope::SecretsWrite,
                    run: Run::Owner(|call| Box::pin(secrets::delete(call))),
                },
                id: "delete_secret",
            },
        ]),
    },
    Route {
        path: "/api/v1/user/secrets/{secret_id}/events",
        operations: Operations::Guarded(&[Operation {
            verb: Verb::Get,
            handler: Guarded {
                scope: Scope::EventsRead,
                run: Run::Owner(|call| Box::pin(history::list(call))),
            },
            id: "list_secret_events",
        }]),
    },
    Route {
        path: "/health",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(health::alive())),
            id: "health_check",
        }]),
    },
    Route {
        path: "/ready",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |edge| Box::pin(health::ready(edge)),
            id: "readiness_check",
        }]),
    },
    Route {
        path: "/metrics",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |edge| Box::pin(metrics::serve(edge)),
            id: "get_metrics",
        }]),
    },
    Route {
        path: "/openapi.json",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(Ok(documents::openapi()))),
            id: "get_openapi",
        }]),
    },
];

#[cfg(test)]
mod tests;
