//! Compares the service's secrets with the log: each one that lives by the log must resolve, to the version that the
//! log names. The values come over HTTP, are dropped unseen, and are recorded as `secret.accessed`.

use std::collections::{BTreeMap, HashMap};

use chrono::Utc;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    chain::Bad,
    store::Walk,
    verify::{Verifier, VerifyError, await_mark},
};
use crate::{
    client::{ApiClient, ClientError},
    domain::{Cursor, Log, Owner, SecretName, Timestamp},
};

/// How many names are asked for at once.
const NAMES: usize = 50;
/// How often a secret is compared again that has changed meanwhile.
const ATTEMPTS: usize = 3;

/// A secret as its last event left it.
#[derive(Debug, Clone)]
struct Living {
    position: u64,
    owner: Owner,
    name: SecretName,
    version: u64,
    expires_at: Option<Timestamp>,
}

impl Living {
    /// Its value is handed out no more.
    fn has_expired(&self) -> bool {
        let now = Timestamp::from(Utc::now());
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[derive(Deserialize)]
struct ChangeFields {
    r#type: String,
    owner: Option<String>,
    name: Option<String>,
    secret_id: Option<Uuid>,
    version: Option<u64>,
    expires_at: Option<String>,
}

impl Verifier {
    /// Compares every secret with the log, and says how many there are. `report` is called with the number that
    /// was compared, and with that of all.
    ///
    /// # Errors
    /// [`VerifyError::Bad`] names the position of the last event of the first secret that differs.
    pub(crate) async fn verify_values(
        &self,
        client: &ApiClient,
        report: impl Fn(u64, u64),
    ) -> Result<u64, VerifyError> {
        let mut found: Vec<Bad> = Vec::new();
        let mut living = self.living(client).await?;
        for attempt in 1.. {
            found.clear();
            let mut compared = 0;
            for secrets in by_owner(&living).into_values() {
                for some in secrets.chunks(NAMES) {
                    found.extend(compare(client, some).await?);
                    compared += some.len() as u64;
                    report(compared, living.len() as u64);
                }
            }
            if found.is_empty() || attempt == ATTEMPTS {
                break;
            }
            // Perhaps they have changed meanwhile.
            living = self.living(client).await?;
        }
        match found.into_iter().min_by_key(|bad| bad.position) {
            Some(bad) => Err(bad.into()),
            None => Ok(living.len() as u64),
        }
    }

    /// The secrets that live by the log, as far as it goes now.
    async fn living(&self, client: &ApiClient) -> Result<HashMap<Uuid, Living>, VerifyError> {
        let log = Log::Changes;
        let until: Cursor = client.head(log).await?.cursor();
        await_mark(&self.store, log, until, self.patience).await?;
        let base = self.store.state(log).await?.base.cursor;
        let mut living = HashMap::new();
        let mut walk = Walk::begin(&self.store, log, base.position, until.position).await?;
        while let Some(page) = walk.page().await? {
            for row in page {
                let position = row.cursor()?.position;
                let fields: ChangeFields = serde_json::from_slice(row.body())
                    .or(Err(Bad::new(position, "it is not an event")))?;
                let Some(id) = fields.secret_id else {
                    continue;
                };
                if fields.r#type == "secret.deleted" {
                    living.remove(&id);
                } else if let Some(secret) = fields.living(position) {
                    living.insert(id, secret);
                }
            }
        }
        Ok(living)
    }
}

impl ChangeFields {
    fn living(self, position: u64) -> Option<Living> {
        Some(Living {
            position,
            owner: Owner::parse(&self.owner?).ok()?,
            name: SecretName::parse(&self.name?).ok()?,
            version: self.version?,
            expires_at: self.expires_at.and_then(|at| Timestamp::parse(&at).ok()),
        })
    }
}

fn by_owner(living: &HashMap<Uuid, Living>) -> BTreeMap<&str, Vec<(Uuid, &Living)>> {
    let mut owners: BTreeMap<&str, Vec<(Uuid, &Living)>> = BTreeMap::new();
    for (id, secret) in living {
        let secrets = owners.entry(secret.owner.as_str()).or_default();
        secrets.push((*id, secret));
    }
    owners
}

/// Resolves some secrets of one owner, and returns those that differ.
async fn compare(client: &ApiClient, some: &[(Uuid, &Living)]) -> Result<Vec<Bad>, VerifyError> {
    let owner = some.first().map(|(_, secret)| &secret.owner);
    let names: Vec<_> = some.iter().map(|(_, secret)| secret.name.clone()).collect();
    if let [(_, secret)] = some
        && secret.has_expired()
    {
        return match client.resolve(owner, &names, None).await {
            Err(ClientError::Refused { status: 404, .. }) => Ok(Vec::new()),
            Ok(_) | Err(ClientError::Refused { status: 500, .. }) => {
                let reason = "the secret has expired, and the service does not treat it so";
                Ok(vec![Bad::new(secret.position, reason)])
            }
            Err(error) => Err(error.into()),
        };
    }
    match client.resolve(owner, &names, None).await {
        Ok(resolved) => Ok(some
            .iter()
            .zip(resolved.secrets)
            .filter(|((id, secret), got)| got.id.get() != *id || got.version != secret.version)
            .map(|((_, secret), _)| {
                Bad::new(secret.position, "the service hands out another version")
            })
            .collect()),
        // One of them, or the only one: which, each call for one name says.
        Err(ClientError::Refused {
            status: 404 | 500, ..
        }) => {
            let [(_, secret)] = some else {
                let mut found = Vec::new();
                for one in some {
                    found.extend(Box::pin(compare(client, &[*one])).await?);
                }
                return Ok(found);
            };
            let reason = "the service does not hand the secret out";
            Ok(vec![Bad::new(secret.position, reason)])
        }
        Err(error) => Err(error.into()),
    }
}
