//! The routes, as data: what is served where, to whom, and how OpenAPI describes it.

use actix_web::http::Method;
use futures_util::future::ready;

use super::{
    error::ApiError,
    events, health, history, metrics,
    openapi::{self, Described, Parameter, Success},
    presets,
    request::{Answering, Call},
    resolve, schema, secrets,
    serve::Edge,
    sets,
};
use crate::auth::Scope;

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
    /// What OpenAPI says of it.
    pub(super) described: Described,
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
                described: Described {
                    id: "list_secrets",
                    summary: "List user secrets",
                    success: Success::Body(
                        "Every secret of the caller, unpaged, created_at then id ascending",
                        "UserSecretList",
                    ),
                    ..Described::NOTHING
                },
            },
            Operation {
                verb: Verb::Post,
                handler: Guarded {
                    scope: Scope::SecretsWrite,
                    run: Run::Owner(|call| Box::pin(secrets::create(call))),
                },
                described: Described {
                    id: "create_secret",
                    summary: "Create a secret",
                    body: Some("CreateSecretRequest"),
                    success: Success::Created,
                    refusals: &[400, 409, 413, 422],
                    ..Described::NOTHING
                },
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
            described: Described {
                id: "list_secret_presets",
                summary: "List provider presets and whether the caller has each one",
                success: Success::Body("Presets, fixed order", "ProviderPresetList"),
                ..Described::NOTHING
            },
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
            described: Described {
                id: "create_secret_from_preset",
                summary: "Create a secret from a provider preset",
                body: Some("CreateSecretFromPresetRequest"),
                success: Success::Created,
                refusals: &[400, 409, 413, 422],
                ..Described::NOTHING
            },
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
            described: Described {
                id: "update_secrets",
                summary: "Update several secrets in one commit, all or none",
                body: Some("BatchUpdateRequest"),
                success: Success::Body("All of them as updated", "BatchUpdate"),
                refusals: &[400, 404, 413, 422],
                ..Described::NOTHING
            },
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
            described: Described {
                id: "resolve_secrets",
                summary: "Values for a workload, all or none",
                description: Some(
                    "Follow the log `changes` from the answered cursor: no rotation is skipped.",
                ),
                body: Some("ResolveRequest"),
                success: Success::Body("The values, in the order asked", "Resolved"),
                refusals: &[400, 404, 410, 413, 422],
                ..Described::NOTHING
            },
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
            described: Described {
                id: "list_events",
                summary: "The committed log after a cursor",
                description: Some(
                    "With `Accept: text/event-stream` as server-sent events, which `Last-Event-ID` resumes.",
                ),
                parameters: &[
                    Parameter::After,
                    Parameter::Limit,
                    Parameter::Type,
                    Parameter::Log,
                    Parameter::LastEventId,
                ],
                success: Success::Body("A page of events, oldest first", "EventPage"),
                refusals: &[410, 422],
                ..Described::NOTHING
            },
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
            described: Described {
                id: "get_log_head",
                summary: "A signed checkpoint of the whole log",
                parameters: &[Parameter::Log],
                success: Success::Body("Where the log stands", "Checkpoint"),
                refusals: &[422],
                ..Described::NOTHING
            },
        }]),
    },
    Route {
        path: "/schemas/secret-event.v1.json",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(schema::changes())),
            described: Described {
                id: "get_secret_event_schema",
                summary: "The JSON Schema of events of the log `changes` (public)",
                success: Success::Body("A JSON Schema", "JsonSchema"),
                ..Described::NOTHING
            },
        }]),
    },
    Route {
        path: "/schemas/activity-event.v1.json",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(schema::activity())),
            described: Described {
                id: "get_activity_event_schema",
                summary: "The JSON Schema of events of the log `activity` (public)",
                success: Success::Body("A JSON Schema", "JsonSchema"),
                ..Described::NOTHING
            },
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
                described: Described {
                    id: "get_secret",
                    summary: "Get one secret (metadata only)",
                    success: Success::Secret,
                    refusals: &[404, 422],
                    ..Described::NOTHING
                },
            },
            Operation {
                verb: Verb::Put,
                handler: Guarded {
                    scope: Scope::SecretsWrite,
                    run: Run::Owner(|call| Box::pin(secrets::update(call))),
                },
                described: Described {
                    id: "update_secret",
                    summary: "Update a secret",
                    description: Some(
                        "Replaces the value only. id, name, provider and created_at never change.",
                    ),
                    parameters: &[Parameter::IfMatch],
                    body: Some("UpdateSecretRequest"),
                    success: Success::Secret,
                    // 409 is kept for compatibility and never sent.
                    refusals: &[400, 404, 409, 412, 413, 422],
                },
            },
            Operation {
                verb: Verb::Delete,
                handler: Guarded {
                    scope: Scope::SecretsWrite,
                    run: Run::Owner(|call| Box::pin(secrets::delete(call))),
                },
                described: Described {
                    id: "delete_secret",
                    summary: "Delete a secret",
                    parameters: &[Parameter::IfMatch],
                    success: Success::Nothing("Deleted; a second call answers 404"),
                    refusals: &[400, 404, 412, 422],
                    ..Described::NOTHING
                },
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
            described: Described {
                id: "list_secret_events",
                summary: "A secret's history, newest first",
                parameters: &[Parameter::Before, Parameter::Limit],
                success: Success::Body("A page of the secret's events", "SecretEventPage"),
                refusals: &[404, 422],
                ..Described::NOTHING
            },
        }]),
    },
    Route {
        path: "/health",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(health::alive())),
            described: Described {
                id: "health_check",
                summary: "Liveness (public)",
                success: Success::Body("Alive", "Health"),
                ..Described::NOTHING
            },
        }]),
    },
    Route {
        path: "/ready",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |edge| Box::pin(health::ready(edge)),
            described: Described {
                id: "readiness_check",
                summary: "Readiness (public)",
                success: Success::Body("Ready", "Readiness"),
                refusals: &[503],
                ..Described::NOTHING
            },
        }]),
    },
    Route {
        path: "/metrics",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |edge| Box::pin(metrics::serve(edge)),
            described: Described {
                id: "get_metrics",
                summary: "Metrics (public; where the address is a loopback one)",
                success: Success::Text("Prometheus' text format"),
                refusals: &[404],
                ..Described::NOTHING
            },
        }]),
    },
    Route {
        path: "/openapi.json",
        operations: Operations::Public(&[Operation {
            verb: Verb::Get,
            handler: |_| Box::pin(ready(openapi::serve())),
            described: Described {
                id: "get_openapi",
                summary: "This document (public)",
                success: Success::Body("An OpenAPI document", "OpenApi"),
                ..Described::NOTHING
            },
        }]),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(path: &str) -> Option<(&'static str, Option<&str>)> {
        find(path).map(|(route, id)| (route.path, id))
    }

    #[test]
    fn fixed_segments_go_before_an_id() {
        for fixed in [
            "/api/v1/user/secrets/presets",
            "/api/v1/user/secrets/preset",
            "/ready",
        ] {
            assert_eq!(path_of(fixed), Some((fixed, None)));
        }
        let one = "/api/v1/user/secrets/{secret_id}";
        assert_eq!(path_of("/api/v1/user/secrets/x"), Some((one, Some("x"))));
        assert_eq!(
            path_of("/api/v1/user/secrets/presets/events"),
            Some(("/api/v1/user/secrets/{secret_id}/events", Some("presets")))
        );
    }

    #[test]
    fn other_paths_have_no_route() {
        for unknown in [
            "",
            "/",
            "/api/v1/user/secrets/",
            "/api/v1/user/secrets//events",
            "/api/v1/user",
            "/API/v1/user/secrets",
            "//api/v1/user/secrets",
            "/health/",
            "/api/v1/user/secrets/x/y",
            "/api/v1/user/secrets/x/events/",
        ] {
            assert_eq!(path_of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_method_that_is_not_there_names_those_that_are() {
        let (route, _) = find("/api/v1/user/secrets/x").unwrap();
        let Operations::Guarded(operations) = route.operations else {
            panic!("an owner's route")
        };
        assert!(operation(operations, &Method::HEAD).is_ok());
        for method in [Method::POST, Method::OPTIONS, Method::PATCH, Method::TRACE] {
            match operation(operations, &method).err() {
                Some(ApiError::MethodNotAllowed { allow }) => {
                    assert_eq!(allow, "GET, HEAD, PUT, DELETE");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
