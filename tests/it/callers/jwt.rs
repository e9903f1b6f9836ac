//! JSON Web Tokens of an issuer: which are good, and that no other is.

use super::issuer::{AUDIENCE, ISSUER, Issuer, claims, encode, hmac_token, now, with};
use crate::support::events::all;
use crate::support::fixture::World;
use crate::support::service::Deployment;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

/// A service that takes this issuer's tokens, and the folder of its key set, `jwks.json`.
fn world(issuer: &Issuer, more: &[(&str, &str)]) -> (World, TempDir) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, issuer.key_set().to_string()).unwrap();
    let path = file.to_str().unwrap();
    let mut settings = vec![
        ("AUTH__JWKS_PATH", path),
        ("AUTH__ISSUER", ISSUER),
        ("AUTH__AUDIENCE", AUDIENCE),
        ("LIMITS__FAILED_PER_MINUTE", "100000"),
    ];
    settings.extend(more);
    (World::with(&settings), folder)
}

pub(super) async fn status(world: &World, token: &str) -> u16 {
    world.replica.client(token).list().await.unwrap().status
}

/// Waits until a token gets this status.
async fn becomes(world: &World, token: &str, expected: u16) {
    let end = Instant::now() + SOON;
    while status(world, token).await != expected {
        assert!(Instant::now() < end, "it does not get {expected}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_good_token_is_its_subjects_with_its_scopes() {
    let issuer = Issuer::new();
    let (world, _folder) = world(&issuer, &[]);
    for (algorithm, kid) in [("RS256", "rsa"), ("ES256", "p256"), ("EdDSA", "ed")] {
        let header = json!({"alg": algorithm, "kid": kid});
        let token = issuer.sign(algorithm, &header.to_string(), &claims().to_string());
        assert_eq!(status(&world, &token).await, 200, "{algorithm}");
    }
    // What may differ.
    for good in [
        with(json!({"aud": ["other", AUDIENCE]})),
        with(json!({"exp": now() - 20})),
        with(json!({"nbf": now() + 20})),
        with(json!({"nbf": null, "iat": null, "jti": null})),
        with(json!({"exp": 4e9, "nested": {"a": 1}})),
    ] {
        assert_eq!(status(&world, &issuer.token(&good)).await, 200, "{good}");
    }
    let client = world.replica.client(&issuer.token(&claims()));
    let id = client.create("A", "sk-1").await.unwrap().expect(201).id();
    world.alice.get(&id).await.unwrap().expect(200);
    world.bob.get(&id).await.unwrap().expect(404);
    client
        .resolve(&json!({"names": ["A"]}))
        .await
        .unwrap()
        .expect(200);
    // Its events name the subject.
    let events = all(&world.auditor, "log=changes").await;
    assert_eq!(
        events[0].event["actor"],
        json!({"id": "alice", "kind": "jwt"})
    );
    let accessed = all(&world.auditor, "log=activity&type=secret.accessed").await;
    assert_eq!(
        accessed[0].event["actor"],
        json!({"id": "alice", "kind": "jwt"})
    );
    // Without the scope it may do nothing, with another one not this.
    for scope in [
        "",
        "openid",
        "events:read",
        "SECRETS:READ",
        "secrets:read,secrets:write",
    ] {
        let token = issuer.token(&with(json!({"scope": scope})));
        assert_eq!(status(&world, &token).await, 403, "{scope}");
    }
    assert_eq!(
        status(&world, &issuer.token(&with(json!({"scope": null})))).await,
        403
    );
}

/// Tokens that differ from a good one in their claims.
fn wrong_claims(issuer: &Issuer) -> Vec<(String, String)> {
    let changes = [
        json!({"exp": now() - 31}),
        json!({"exp": null}),
        json!({"exp": (now() + 300).to_string()}),
        json!({"exp": -1}),
        json!({"exp": 0}),
        json!({"exp": true}),
        json!({"nbf": now() + 40}),
        json!({"nbf": "0"}),
        json!({"iat": "now"}),
        json!({"jti": 1}),
        json!({"iss": null}),
        json!({"iss": "https://issuer.example/"}),
        json!({"iss": "https://other.example"}),
        json!({"iss": [ISSUER]}),
        json!({"aud": null}),
        json!({"aud": "rekey2"}),
        json!({"aud": []}),
        json!({"aud": [AUDIENCE, 1]}),
        json!({"aud": {"rekey": true}}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "_"}),
        json!({"sub": "a".repeat(65)}),
        json!({"sub": "ali\nce"}),
        json!({"sub": ["alice"]}),
        json!({"scope": ["secrets:read"]}),
    ];
    let token = |change: Value| (format!("claims {change}"), issuer.token(&with(change)));
    changes.into_iter().map(token).collect()
}

/// Tokens that differ from a good one in their header, each signed by a good key.
fn wrong_headers(issuer: &Issuer) -> Vec<(String, String)> {
    let headers = [
        json!({"alg": "none", "kid": "ed"}),
        json!({"alg": "eddsa", "kid": "ed"}),
        json!({"alg": "RS256", "kid": "ed"}),
        json!({"alg": "HS256", "kid": "ed"}),
        json!({"alg": 1, "kid": "ed"}),
        json!({"kid": "ed"}),
        json!({"alg": "EdDSA"}),
        json!({"alg": "EdDSA", "kid": null}),
        json!({"alg": "EdDSA", "kid": "unknown"}),
        json!({"alg": "EdDSA", "kid": "oct"}),
        json!({"alg": "EdDSA", "kid": "../../jwks.json"}),
        json!({"alg": "EdDSA", "kid": "ed", "typ": "JWE"}),
        json!({"alg": "EdDSA", "kid": "ed", "typ": 1}),
        json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false}),
        json!({"alg": "EdDSA", "kid": "ed", "crit": []}),
        json!({"alg": "EdDSA", "kid": "ed", "jku": "http://127.0.0.1:1/jwks.json"}),
        json!({"alg": "EdDSA", "kid": "ed", "x5u": "http://127.0.0.1:1/chain.pem"}),
        json!({"alg": "EdDSA", "kid": "ed", "x5c": ["MIIB"]}),
        json!({"alg": "EdDSA", "kid": "ed", "jwk": issuer.key_set()["keys"][2]}),
        json!({"alg": "EdDSA", "kid": "ed", "enc": "A256GCM"}),
        json!({"alg": "EdDSA", "kid": "ed", "zip": "DEF"}),
    ];
    let token = |header: Value| {
        let header = header.to_string();
        let token = issuer.sign("EdDSA", &header, &claims().to_string());
        (format!("header {header}"), token)
    };
    headers.into_iter().map(token).collect()
}

/// Tokens that another key has signed, or none.
fn wrong_signers(issuer: &Issuer) -> Vec<(String, String)> {
    let (stranger, claims) = (Issuer::new(), claims());
    let code = |secret: &[u8], alg: &str, kid: &str| {
        hmac_token(secret, &json!({"alg": alg, "kid": kid}), &claims)
    };
    let public = issuer.public_rsa();
    let key_set = issuer.key_set().to_string();
    let symmetric = b"a secret of 32 bytes, or so it is";
    [
        ("another issuer's key", stranger.token(&claims)),
        ("a public key as a secret", code(&public, "HS256", "rsa")),
        ("the same, named RS256", code(&public, "RS256", "rsa")),
        (
            "the set as a secret",
            code(key_set.as_bytes(), "HS256", "rsa"),
        ),
        ("the set's symmetric key", code(symmetric, "HS256", "oct")),
    ]
    .map(|(what, token)| (what.to_owned(), token))
    .into()
}

/// Tokens that one algorithm has signed and whose header names this one, for the key of this ID.
fn wrong_algorithms(issuer: &Issuer) -> Vec<(String, String)> {
    let stranger = Issuer::new();
    [
        (&stranger, "ES256", "ES256", "p256"),
        (issuer, "none", "none", "ed"),
        (issuer, "none", "EdDSA", "ed"),
        (issuer, "RS512", "RS512", "rsa"),
        (issuer, "RS512", "RS256", "rsa"),
        (issuer, "RS256", "RS256", "p256"),
        (issuer, "ES256", "ES256", "rsa"),
        (issuer, "ES256", "ES256", "enc"),
        (issuer, "RS512", "RS512", "rsa512"),
        (issuer, "EdDSA", "ES256", "p256"),
    ]
    .map(|(by, how, alg, kid)| {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        let token = by.sign(how, &header, &claims().to_string());
        (format!("{how} as {alg} of {kid}"), token)
    })
    .into()
}

/// Tokens that are cut, padded, put together from two, or otherwise of another form.
fn wrong_forms(issuer: &Issuer) -> Vec<(String, String)> {
    let good = issuer.token(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let other = encode(with(json!({"sub": "bob"})).to_string());
    let twice = r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#;
    let text = claims().to_string();
    let repeated = text.replacen('{', r#"{"sub":"bob","#, 1);
    let repeats = issuer.sign("EdDSA", r#"{"alg":"EdDSA","kid":"ed"}"#, &repeated);
    let signed = |claims: &str| issuer.sign("EdDSA", r#"{"alg":"EdDSA","kid":"ed"}"#, claims);
    // The last character has bits that no byte needs: another one decodes to the same where a reader is lax.
    let lax = good.strip_suffix(|_: char| true).unwrap();
    let last = good.chars().last().unwrap();
    let near = char::from(u8::try_from(last).unwrap() ^ 1);
    [
        ("another's claims", format!("{header}.{other}.{signature}")),
        (
            "a cut signature",
            good.get(..good.len() - 4).unwrap().to_owned(),
        ),
        ("a padded signature", format!("{good}==")),
        ("bits beyond the end", format!("{lax}{near}")),
        ("no signature part", message.to_owned()),
        ("an empty signature", format!("{message}.")),
        ("an empty header", format!(".{payload}.{signature}")),
        ("an empty payload", format!("{header}..{signature}")),
        ("a fourth part", format!("{good}.{signature}")),
        ("five parts", format!("{header}.a.b.c.{signature}")),
        ("dots alone", "..".to_owned()),
        ("standard base64", format!("{header}.{payload}.+/+/")),
        ("an algorithm twice", issuer.sign("EdDSA", twice, &text)),
        ("a subject twice", repeats),
        ("claims that are a list", signed(r#"["alice"]"#)),
        ("claims that are no JSON", signed("alice")),
        ("claims with an end", signed(&format!("{text}x"))),
        (
            "a very long one",
            signed(&with(json!({"more": "x".repeat(9000)})).to_string()),
        ),
    ]
    .map(|(what, token)| (what.to_owned(), token))
    .into()
}

#[tokio::test]
async fn no_forged_token_is_taken() {
    let issuer = Issuer::new();
    let (world, _folder) = world(&issuer, &[]);
    let control = issuer.token(&claims());
    let forged = [
        wrong_claims(&issuer),
        wrong_headers(&issuer),
        wrong_signers(&issuer),
        wrong_algorithms(&issuer),
        wrong_forms(&issuer),
    ]
    .concat();
    assert!(forged.len() >= 75, "{}", forged.len());
    let refusal = world.replica.client("x").list().await.unwrap().text();
    for (what, token) in forged {
        let answer = world.replica.client(&token).list().await.unwrap();
        assert_eq!(answer.status, 401, "{what}: {token}");
        assert_eq!(answer.text(), refusal, "{what}");
        // What was refused was refused for its fault alone.
        assert_eq!(status(&world, &control).await, 200);
    }
    assert!(!world.replica.stderr().contains(&control));
}

#[tokio::test]
async fn the_file_of_keys_is_read_again_when_it_changes() {
    let (first, second) = (Issuer::new(), Issuer::new());
    let (world, folder) = world(&first, &[]);
    let file = folder.path().join("jwks.json");
    let (old, new) = (first.token(&claims()), second.token(&claims()));
    assert_eq!(
        (status(&world, &old).await, status(&world, &new).await),
        (200, 401)
    );
    std::fs::write(&file, second.key_set().to_string()).unwrap();
    becomes(&world, &new, 200).await;
    assert_eq!(status(&world, &old).await, 401);
    // What can't be used leaves the keys as they are.
    std::fs::write(&file, "{}").unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(status(&world, &new).await, 200);
}

#[tokio::test]
async fn a_claim_says_who_a_token_is_and_what_it_may_do() {
    let issuer = Issuer::new();
    let account = "system:serviceaccount:shop:backend";
    let rules = format!(
        "sub={account} -> alice secrets:read,repository=org/app -> bob secrets:read secrets:write,\
         sub=repo:org/* -> carol events:read"
    );
    let (world, _folder) = world(&issuer, &[("AUTH__CLAIMS", &rules)]);
    let answer = async |claims: Value| {
        let client = world.replica.client(&issuer.token(&with(claims)));
        client.create("A", "v").await.unwrap().status
    };
    world.alice.create("A", "v").await.unwrap().expect(201);
    let own = issuer.token(&with(json!({"sub": account})));
    let listed = world.replica.client(&own).list().await.unwrap().expect(200);
    assert_eq!(listed.json()["total"], 1);
    // Neither the token's own scopes nor its subject count.
    assert_eq!(answer(json!({"sub": account})).await, 403);
    assert_eq!(answer(json!({"sub": "alice"})).await, 401);
    assert_eq!(
        answer(json!({"sub": "x", "repository": "org/app"})).await,
        201
    );
    assert_eq!(
        answer(json!({"sub": "x", "repository": ["org/app"]})).await,
        401
    );
    assert_eq!(answer(json!({"sub": "repo:org/other"})).await, 403);
    assert_eq!(answer(json!({"sub": "repo:organ"})).await, 401);
    world.bob.list().await.unwrap().expect(200);
    let events = all(&world.auditor, "log=changes").await;
    let bobs: Vec<_> = events
        .iter()
        .filter(|event| event.event["owner"] == "bob")
        .collect();
    assert_eq!(bobs[0].event["actor"], json!({"id": "x", "kind": "jwt"}));
}

#[tokio::test]
async fn a_token_makes_none_that_outlives_it() {
    let issuer = Issuer::new();
    let (world, _folder) = world(&issuer, &[]);
    let token = issuer.token(&with(json!({"scope": "tokens:write secrets:read"})));
    let client = world.replica.client(&token);
    let made = |more: Value| {
        let client = client.clone();
        async move { client.post("/api/v1/tokens", &more).await.unwrap().status }
    };
    assert_eq!(
        made(json!({"scopes": ["secrets:read"], "expires_in": 60})).await,
        201
    );
    assert_eq!(
        made(json!({"scopes": ["secrets:read"], "expires_in": 900})).await,
        403
    );
    assert_eq!(
        made(json!({"scopes": ["secrets:read"], "expires_in": null})).await,
        403
    );
}

#[test]
fn a_start_without_usable_keys_or_with_half_of_the_settings_is_refused() {
    let deployment = Deployment::sqlite().prepare();
    let all = [
        ("REKEY__AUTH__JWKS_PATH", "/nowhere/jwks.json"),
        ("REKEY__AUTH__ISSUER", ISSUER),
        ("REKEY__AUTH__AUDIENCE", AUDIENCE),
    ];
    let said = |variables: &[(&str, &str)]| deployment.try_serve_with(variables).err().unwrap();
    assert!(said(&all).contains("/nowhere/jwks.json"), "{}", said(&all));
    for (index, missing) in ["auth.issuer", "auth.audience"].into_iter().enumerate() {
        let mut some = all.to_vec();
        some.remove(index + 1);
        assert!(said(&some).contains(missing), "{}", said(&some));
    }
    for (name, value) in [
        ("REKEY__AUTH__JWKS_URL", "http://issuer.example/keys"),
        ("REKEY__AUTH__CLAIMS", "sub=* -> alice secrets:read"),
        ("REKEY__AUTH__CLAIMS", "sub=a -> alice all"),
    ] {
        assert!(said(&[(name, value)]).contains("auth."), "{name}");
    }
}
