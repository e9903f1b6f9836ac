//! Who a request counts for.

use std::sync::Arc;

use super::Grantee;

/// Who a request counts for: an owner or a service, with all its tokens. A clone costs no copy of the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Caller {
    kind: &'static str,
    name: Arc<str>,
}

impl From<&Grantee> for Caller {
    fn from(grantee: &Grantee) -> Self {
        Self {
            kind: grantee.kind(),
            name: grantee.name().into(),
        }
    }
}
