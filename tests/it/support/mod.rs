//! What the tests stand on: real servers, the real binary, faults between them, and eyes on what comes out.
//!
//! | module | gives |
//! | --- | --- |
//! | `postgres`, `rabbitmq` | a private server per suite, and more for tests that kill them |
//! | `fixture` | a service that is ready to be asked, copied from one that was prepared once |
//! | `service` | the binary with its settings, keyring, schema and tokens, and an HTTP client |
//! | `document` | the OpenAPI document and the schemas of events, held against every response |
//! | `envelope` | what every answer has in common, and the exact text of errors |
//! | `ledger` | what was asked and answered, compared with the log |
//! | `authority` | certificates by a private authority |
//! | `proxy` | a TCP link that can be cut, reset, stalled, or broken at a given statement |
//! | `broker` | a consumer that records every delivery |
//! | `events` | the log as a consumer reads it: pages, streams, the chain |
//! | `metrics` | what the service says of itself |
//! | `retention` | events that grow old and go |
//! | `dice` | randomness that can be had again |
//! | `wire` | a connection by hand: half requests, and answers that nobody takes |
//! | `python` | Python, for what anybody outside proves or runs |
//! | `canary` | the search for a plaintext where none may be |
//! | `process`, `folder`, `port`, `reaper`, `background` | what the servers have in common |

pub(crate) mod authority;
pub(crate) mod background;
pub(crate) mod broker;
pub(crate) mod canary;
pub(crate) mod dice;
pub(crate) mod document;
pub(crate) mod envelope;
pub(crate) mod events;
pub(crate) mod fixture;
pub(crate) mod folder;
pub(crate) mod ledger;
pub(crate) mod metrics;
pub(crate) mod port;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod rabbitmq;
pub(crate) mod reaper;
pub(crate) mod retention;
pub(crate) mod service;
pub(crate) mod wire;
