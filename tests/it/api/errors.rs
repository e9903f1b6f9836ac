//! Every row of the table of errors that a caller can bring about, with its exact body and its headers; and the
//! headers of every answer. What only a fault brings about (500, 502, 504) stands with the faults.

use crate::support::envelope::{
    ENUM, INT, LIMIT, LONG, MISSING, PATTERN, SHORT, STRING, UUID, VALUE, assert_422,
    assert_common, assert_error, assert_missing,
};
use crate::support::fixture::{ABSENT, ALL, LIST, World};
use crate::support::service::{Answer, Client, Deployment};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

const NOT_JSON: &str = "The body is not a JSON object";
const REPEATED: &str = "The body holds a key more than once";
const MEDIA: &str = "The Content-Type must be application/json in UTF-8";
const FAILED: &str =
    r#"{"code":401,"detail":"Authentication failed","type":"authentication_error"}"#;

async fn raw(client: &Client, method: Method, path: &str, body: &[u8]) -> Answer {
    let request = client.request(method, path).body(body.to_vec());
    client.send(request).await.unwrap()
}

/// A POST that says of its body that it is JSON.
async fn post_json(client: &Client, path: &str, body: &[u8]) -> Answer {
    let client = client.with("content-type", "application/json");
    raw(&client, Method::POST, path, body).await
}

fn assert_400(answer: &Answer, detail: &str) {
    assert_error(answer, 400, "invalid_request_error", detail, &[]);
}

fn assert_forbidden(answer: &Answer) {
    assert_error(answer, 403, "permission_error", "Access forbidden", &[]);
}

fn assert_upgrade(answer: &Answer, upgrade: &str) {
    let kind = "upgrade_required_error";
    assert_error(answer, 426, kind, "Upgrade required", &[]);
    assert_eq!(answer.header("upgrade"), Some(upgrade));
    let connection = answer.header("connection").unwrap_or_default();
    assert!(connection.eq_ignore_ascii_case("upgrade"), "{connection}");
}

async fn created(client: &Client, name: &str) -> String {
    client.create(name, "one").await.unwrap().expect(201).id()
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_400_with_its_own_text() {
    let service = World::sqlite();
    let alice = &service.alice;
    for (body, detail) in [
        (&b""[..], NOT_JSON),
        (b"[]", NOT_JSON),
        (b"{\"name\":\"A\",\"value\":\"\xff\"}", NOT_JSON),
        (b"\xef\xbb\xbf{\"name\":\"A\",\"value\":\"x\"}", NOT_JSON),
        (br#"{"name":"A","value":"x","v\u0061lue":"y"}"#, REPEATED),
        (br#"{"o":1,"name":"A","value":"x","o":2}"#, REPEATED),
    ] {
        assert_400(&post_json(alice, LIST, body).await, detail);
    }
    let good = br#"{"name":"A","value":"x"}"#;
    assert_400(&raw(alice, Method::POST, LIST, good).await, MEDIA);
    for media in ["text/plain", "application/json; charset=latin1"] {
        let client = alice.with("content-type", media);
        assert_400(&raw(&client, Method::POST, LIST, good).await, MEDIA);
    }
    let encoded = alice.with("content-encoding", "identity");
    assert_400(
        &post_json(&encoded, LIST, good).await,
        "A Content-Encoding is not accepted",
    );
    assert_eq!(alice.list().await.unwrap().json()["total"], 0);
}

#[tokio::test]
async fn a_malformed_if_match_is_answered_400_before_the_body_is_looked_at() {
    let service = World::sqlite();
    let alice = &service.alice;
    let id = created(alice, "A").await;
    let malformed = alice.with("if-match", "1");
    let detail = "The If-Match header is malformed";
    assert_400(&malformed.put(&id, "two").await.unwrap(), detail);
    assert_400(&malformed.delete(&id).await.unwrap(), detail);
    let client = malformed.with("content-type", "application/json");
    let path = format!("{LIST}/{id}");
    assert_400(&raw(&client, Method::PUT, &path, b"nonsense").await, detail);
    let kept = alice.get(&id).await.unwrap();
    assert_eq!(kept.header("etag"), Some("\"1\""));
}

#[tokio::test]
async fn every_failed_credential_has_one_same_answer() {
    let service = World::sqlite();
    let good = &service.token;
    let revoked = service.deployment.token("alice", &["secrets:read"]);
    let other = service.deployment.token("alice", &["secrets:read"]);
    let id = revoked.split('_').nth(1).unwrap();
    service.deployment.run(&["token", "revoke", id]);
    let mut changed = other.clone();
    let last = if changed.ends_with('0') { "1" } else { "0" };
    changed.replace_range(changed.len() - 1.., last);
    let nobody = service.anonymous();
    let both = |one: &str, two: &str| {
        let client = nobody.with("authorization", &format!("Bearer {one}"));
        client.with("x-api-key", two)
    };
    let bearer = |text: &str| nobody.with("authorization", text);
    for client in [
        nobody.clone(),
        bearer("Bearer"),
        bearer("Basic dDp0"),
        bearer(good),
        bearer(&format!("Bearer {good}x")),
        bearer(&format!("Bearer {changed}")),
        bearer(&format!("Bearer {revoked}")),
        bearer("Bearer rekey_unknown_0000000000000000000000000000000000000000000"),
        nobody.with("x-api-key", ""),
        both(good, &other),
    ] {
        for path in [LIST, "/api/v1/nowhere", "/"] {
            let answer = client.fetch(path).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (401, FAILED));
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.header("ratelimit"), None);
            assert_common(&answer);
        }
    }
    for client in [
        both(good, good),
        nobody.with("x-api-key", good),
        bearer(&format!("bearer  {good}")),
    ] {
        client.list().await.unwrap().expect(200);
    }
}

#[tokio::test]
async fn a_token_that_has_expired_is_refused() {
    let service = World::sqlite();
    let create = "token create --owner alice --scope secrets:read --expires-in 1s";
    let arguments: Vec<_> = create.split(' ').collect();
    let token = service.deployment.run(&arguments);
    let client = service.replica.client(token.trim_end());
    let begun = std::time::Instant::now();
    loop {
        let answer = client.list().await.unwrap();
        if answer.status == 401 {
            assert_eq!(answer.text(), FAILED);
            break;
        }
        answer.expect(200);
        assert!(begun.elapsed().as_secs() < 10, "it never expires");
    }
}

#[tokio::test]
async fn a_good_credential_without_the_scope_is_forbidden() {
    let service = World::sqlite();
    let id = created(&service.alice, "A").await;
    let events = format!("{LIST}/{id}/events");
    let with = |scope| {
        let token = service.deployment.token("alice", &[scope]);
        service.replica.client(&token)
    };
    let reader = with("secrets:read");
    reader.get(&id).await.unwrap().expect(200);
    assert_forbidden(&reader.put(&id, "two").await.unwrap());
    assert_forbidden(&reader.delete(&id).await.unwrap());
    assert_forbidden(&reader.create("B", "one").await.unwrap());
    // The scope goes before the path.
    assert_forbidden(&reader.put("no-uuid", "two").await.unwrap());
    assert_forbidden(&reader.fetch(&events).await.unwrap());
    let writer = with("secrets:write");
    assert_forbidden(&writer.list().await.unwrap());
    assert_forbidden(&writer.get(&id).await.unwrap());
    let presets = format!("{LIST}/presets");
    assert_forbidden(&writer.fetch(&presets).await.unwrap());
    let kept = service.alice.get(&id).await.unwrap();
    assert_eq!(kept.header("etag"), Some("\"1\""));
}

#[tokio::test]
async fn a_service_token_may_not_make_an_owners_calls_whatever_its_scopes() {
    let service = World::sqlite();
    let id = created(&service.alice, "A").await;
    let token = service.deployment.service_token("ci", &["*"], &ALL);
    let machine = service.replica.client(&token);
    let events = format!("{LIST}/{id}/events");
    for answer in [
        machine.list().await,
        machine.get(&id).await,
        machine.create("B", "one").await,
        machine.put(&id, "two").await,
        machine.delete(&id).await,
        machine.fetch(&events).await,
    ] {
        assert_forbidden(&answer.unwrap());
    }
}

#[tokio::test]
async fn absent_and_foreign_secrets_and_unknown_routes_have_one_same_answer() {
    let service = World::sqlite();
    let id = created(&service.alice, "A").await;
    let bob = service.owner("bob");
    let gone = created(&bob, "GONE").await;
    bob.delete(&gone).await.unwrap().expect(204);
    for id in [ABSENT, &id, &gone] {
        assert_missing(&bob.get(id).await.unwrap());
        assert_missing(&bob.put(id, "two").await.unwrap());
        assert_missing(&bob.delete(id).await.unwrap());
        let events = format!("{LIST}/{id}/events");
        assert_missing(&bob.fetch(&events).await.unwrap());
        // The object goes before the precondition.
        let conditional = bob.with("if-match", "\"1\"");
        assert_missing(&conditional.put(id, "two").await.unwrap());
    }
    for path in ["/api/v1/nowhere", "/", "/api/v1/user/secrets/", "/health/"] {
        assert_missing(&bob.fetch(path).await.unwrap());
        assert_missing(&raw(&bob, Method::DELETE, path, b"").await);
    }
    let listed = service.alice.list().await.unwrap().json();
    assert_eq!(listed["secrets"][0]["id"], id.as_str());
}

#[tokio::test]
async fn a_method_that_a_route_lacks_is_answered_with_those_it_has() {
    let service = World::sqlite();
    let one = format!("{LIST}/{ABSENT}");
    for (path, allow) in [
        (LIST, "GET, HEAD, POST"),
        (&one, "GET, HEAD, PUT, DELETE"),
        (&format!("{LIST}/presets"), "GET, HEAD"),
        (&format!("{LIST}/preset"), "POST"),
        (&format!("{one}/events"), "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ] {
        for method in [Method::PATCH, Method::OPTIONS, Method::TRACE] {
            let answer = raw(&service.alice, method, path, b"").await;
            let kind = "method_not_allowed_error";
            assert_error(&answer, 405, kind, "Method not allowed", &[]);
            assert_eq!(answer.header("allow"), Some(allow), "{path}");
        }
    }
}

#[tokio::test]
async fn a_name_that_is_taken_conflicts() {
    let service = World::sqlite();
    created(&service.alice, "Key").await;
    let answer = service.alice.create("kEY", "two").await.unwrap();
    let detail = "A secret of that name already exists";
    assert_error(&answer, 409, "already_exists_error", detail, &[]);
    created(&service.owner("bob"), "KEY").await;
}

#[tokio::test]
async fn an_if_match_decides_and_a_refusal_shows_the_present_tag() {
    let service = World::sqlite();
    let alice = &service.alice;
    let id = created(alice, "A").await;
    let expecting = |tags| alice.with("if-match", tags);
    let updated = expecting("\"1\"").put(&id, "two").await.unwrap();
    assert_eq!(updated.expect(200).header("etag"), Some("\"2\""));
    for tags in ["\"1\"", "W/\"2\"", "\"02\"", "\"x\", \"3\""] {
        let stale = expecting(tags);
        for answer in [stale.put(&id, "three").await, stale.delete(&id).await] {
            let answer = answer.unwrap();
            let detail = "The If-Match precondition does not hold";
            assert_error(&answer, 412, "precondition_failed_error", detail, &[]);
            assert_eq!(answer.header("etag"), Some("\"2\""), "{tags}");
        }
    }
    for (tags, version) in [("*", "\"3\""), ("\"9\", \"3\"", "\"4\"")] {
        let updated = expecting(tags).put(&id, "next").await.unwrap();
        assert_eq!(updated.expect(200).header("etag"), Some(version));
    }
    expecting("\"4\"").delete(&id).await.unwrap().expect(204);
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large_and_every_legal_value_fits() {
    let service = World::sqlite();
    let alice = &service.alice;
    let large = vec![b' '; 512 * 1024 + 1];
    let answer = post_json(alice, LIST, &large).await;
    let kind = "payload_too_large_error";
    assert_error(&answer, 413, kind, "The body is too large", &[]);
    let exact = vec![b' '; 512 * 1024];
    assert_400(&post_json(alice, LIST, &exact).await, NOT_JSON);
    let escaped = format!(r#"{{"name":"A","value":"{}"}}"#, r"\u0001".repeat(65_536));
    post_json(alice, LIST, escaped.as_bytes()).await.expect(201);
}

#[tokio::test]
async fn each_broken_rule_of_a_body_is_named_with_its_place() {
    let service = World::sqlite();
    let alice = &service.alice;
    let name = r#"["body","name"]"#;
    let value = r#"["body","value"]"#;
    let provider = r#"["body","provider"]"#;
    let (long, huge) = ("A".repeat(256), "x".repeat(65_537));
    let wide = "é".repeat(32_769);
    let of = |name: &str, value: &str| json!({"name": name, "value": value});
    let by = |provider: serde_json::Value| json!({"name": "A", "value": "x", "provider": provider});
    for (body, items) in [
        (json!({}), &[(name, MISSING), (value, MISSING)][..]),
        (
            json!({"name": 1, "value": null}),
            &[(name, STRING), (value, STRING)],
        ),
        (of("", ""), &[(name, SHORT), (value, SHORT)]),
        (of(&long, &huge), &[(name, LONG), (value, LONG)]),
        (of("A", &wide), &[(value, LONG)]),
        (of("1A", "x\0y"), &[(name, PATTERN), (value, PATTERN)]),
        (of("A B", "x"), &[(name, PATTERN)]),
        (of("A\n", "x"), &[(name, PATTERN)]),
        (of("É", "x"), &[(name, PATTERN)]),
        (of("Path", "x"), &[(name, VALUE)]),
        (of("ld_preload", "x"), &[(name, VALUE)]),
        (by("Open AI".into()), &[(provider, PATTERN)]),
        (by("".into()), &[(provider, SHORT)]),
        (by(json!([1])), &[(provider, STRING)]),
        (by("a".repeat(65).into()), &[(provider, LONG)]),
    ] {
        assert_422(&alice.post(LIST, &body).await.unwrap(), items);
    }
    let body = json!({"provider": "nobody", "value": "x"});
    let answer = alice.post(&format!("{LIST}/preset"), &body).await.unwrap();
    assert_422(&answer, &[(provider, ENUM)]);
    // Fields go before the object.
    assert_422(&alice.put(ABSENT, "").await.unwrap(), &[(value, SHORT)]);
}

#[tokio::test]
async fn a_path_or_query_that_cannot_be_read_is_named_with_its_place() {
    let service = World::sqlite();
    let alice = &service.alice;
    let id = r#"["path","secret_id"]"#;
    for answer in [
        alice.get("x").await,
        alice.put("x", "").await,
        alice.with("if-match", "1").delete("x").await,
        alice.fetch(&format!("{LIST}/x/events?limit=x")).await,
    ] {
        assert_422(&answer.unwrap(), &[(id, UUID)]);
    }
    let (before, limit) = (r#"["query","before"]"#, r#"["query","limit"]"#);
    for (query, items) in [
        ("limit=x", &[(limit, INT)][..]),
        ("limit=0", &[(limit, VALUE)]),
        ("limit=1001", &[(limit, VALUE)]),
        ("before=7", &[(before, VALUE)]),
        ("before=1-x&limit=", &[(before, VALUE), (limit, INT)]),
    ] {
        let path = format!("{LIST}/{ABSENT}/events?{query}");
        assert_422(&alice.fetch(&path).await.unwrap(), items);
    }
}

#[tokio::test]
async fn an_owner_at_the_limit_is_told_so() {
    let service = World::with(&[("LIMITS__SECRETS_PER_OWNER", "2")]);
    for name in ["A", "B"] {
        created(&service.alice, name).await;
    }
    let answer = service.alice.create("C", "one").await.unwrap();
    assert_422(&answer, &[(r#"["body"]"#, LIMIT)]);
}

#[tokio::test]
async fn plain_http_is_refused_where_tls_is_required() {
    let service = World::with(&[
        ("HTTP__REQUIRE_TLS", "true"),
        ("HTTP__TRUSTED_PROXIES", "127.0.0.1"),
    ]);
    let proxied = |proto| service.alice.with("x-forwarded-proto", proto);
    // Before the credential, and for the API alone.
    for client in [&service.anonymous(), &service.alice, &proxied("http")] {
        assert_upgrade(&client.list().await.unwrap(), "TLS/1.2, HTTP/1.1");
    }
    proxied("https").list().await.unwrap().expect(200);
    let health = service.anonymous().fetch("/health").await;
    health.unwrap().expect(200);
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted_cannot_vouch_for_tls() {
    let service = World::with(&[("HTTP__REQUIRE_TLS", "true")]);
    let proxied = service.alice.with("x-forwarded-proto", "https");
    proxied.list().await.unwrap().expect(426);
}

#[tokio::test]
async fn a_client_below_its_least_version_is_refused() {
    let service = World::with(&[("HTTP__MIN_CLIENT_VERSIONS", "rekey-cli/1.2.0")]);
    let named = |agent| service.alice.with("user-agent", agent);
    let answer = named("rekey-cli/1.1.9").list().await.unwrap();
    assert_upgrade(&answer, "rekey-cli/1.2.0");
    for good in [
        "rekey-cli/1.2.0",
        "rekey-cli/1.10.0",
        "other/0.1.0",
        "rekey-cli",
    ] {
        named(good).list().await.unwrap().expect(200);
    }
}

fn assert_limited(answer: &Answer) {
    assert_error(answer, 429, "rate_limit_error", "Too many requests", &[]);
    assert!(!answer.text().contains("credit"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn an_empty_bucket_is_answered_429_and_is_the_callers_own() {
    let service = World::with(&[("LIMITS__BURST", "3"), ("LIMITS__RATE_PER_SECOND", "1")]);
    let policy = Some("\"caller\";q=3;w=3");
    let mut answer = service.alice.list().await.unwrap().expect(200);
    assert_eq!(answer.header("ratelimit-policy"), policy);
    assert_eq!(answer.header("ratelimit"), Some("\"caller\";r=2;t=1"));
    for _ in 0..20 {
        answer = service.alice.list().await.unwrap();
        if answer.status != 200 {
            break;
        }
    }
    assert_limited(&answer);
    let left = answer.header("ratelimit").unwrap();
    assert!(left.starts_with("\"caller\";r=0;t="), "{left}");
    assert_eq!(answer.header("ratelimit-policy"), policy);
    // An unknown route goes before the bucket; another caller has another bucket.
    let unknown = service.alice.fetch("/api/v1/nowhere").await;
    unknown.unwrap().expect(404);
    service.owner("bob").list().await.unwrap().expect(200);
}

/// A token of the right form that this service has never seen.
fn unknown_token() -> String {
    Deployment::sqlite()
        .prepare()
        .token("mallory", &["events:read"])
}

#[tokio::test]
async fn an_address_whose_look_ups_fail_is_closed_for_bad_credentials_alone() {
    let service = World::with(&[("LIMITS__FAILED_PER_MINUTE", "2")]);
    let guessing = service.replica.client(&unknown_token());
    for _ in 0..2 {
        guessing.list().await.unwrap().expect(401);
    }
    let answer = guessing.list().await.unwrap();
    assert_limited(&answer);
    let policy = answer.header("ratelimit-policy").unwrap();
    assert_eq!(policy, "\"failed-credentials\";q=2;w=60");
    let left = answer.header("ratelimit").unwrap();
    assert!(left.starts_with("\"failed-credentials\";r=0;t="), "{left}");
    // Good ones from the same address, of which one was never seen before.
    service.alice.list().await.unwrap().expect(200);
    service.bob.list().await.unwrap().expect(200);
    let health = service.anonymous().fetch("/health").await;
    health.unwrap().expect(200);
}

#[tokio::test]
async fn a_damaged_credential_costs_no_look_up_and_is_not_counted() {
    let service = World::with(&[("LIMITS__FAILED_PER_MINUTE", "2")]);
    let mut damaged = service.token.clone();
    damaged.pop();
    for text in ["rekey_x_y", &damaged, &format!("{damaged}!")] {
        for _ in 0..3 {
            let answer = service.replica.client(text).list().await;
            answer.unwrap().expect(401);
        }
    }
}

#[tokio::test]
async fn a_sane_request_id_is_taken_over_and_another_is_replaced() {
    let service = World::sqlite();
    let longest = "a".repeat(128);
    for sane in ["a", "Az0._:-9", &longest] {
        for client in [&service.alice, &service.anonymous()] {
            let answer = client.with("x-request-id", sane).list().await.unwrap();
            assert_eq!(answer.header("x-request-id"), Some(sane));
        }
    }
    let too_long = "a".repeat(129);
    for other in ["", "a b", "a/b", "é", &too_long] {
        let client = service.alice.with("x-request-id", other);
        let answer = client.list().await.unwrap().expect(200);
        let id = answer.header("x-request-id").unwrap();
        let made = uuid::Uuid::parse_str(id).unwrap();
        assert_eq!(made.get_version_num(), 7);
    }
}

#[tokio::test]
async fn head_answers_as_get_does_without_the_body() {
    let service = World::sqlite();
    let id = created(&service.alice, "A").await;
    let one = format!("{LIST}/{id}");
    for path in [
        LIST,
        &one,
        &format!("{LIST}/presets"),
        &format!("{one}/events"),
        "/health",
        "/ready",
        "/openapi.json",
    ] {
        let get = service.alice.fetch(path).await.unwrap().expect(200);
        let head = raw(&service.alice, Method::HEAD, path, b"")
            .await
            .expect(200);
        assert!(head.body.is_empty());
        assert_common(&head);
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
    let absent = format!("{LIST}/{ABSENT}");
    let absent = raw(&service.alice, Method::HEAD, &absent, b"").await;
    assert!(absent.expect(404).body.is_empty());
}

const APP: &str = "https://app.example";
const ALLOW_ORIGIN: &str = "access-control-allow-origin";

fn preflight(client: &Client, origin: &str) -> RequestBuilder {
    client
        .with("origin", origin)
        .with("access-control-request-method", "PUT")
        .with("access-control-request-headers", "authorization")
        .request(Method::OPTIONS, &format!("{LIST}/{ABSENT}"))
}

fn assert_no_cors(answer: &Answer) {
    let names = answer
        .headers
        .keys()
        .map(reqwest::header::HeaderName::as_str);
    let cors: Vec<_> = names
        .filter(|name| name.starts_with("access-control-"))
        .collect();
    assert!(cors.is_empty(), "{cors:?}");
}

#[tokio::test]
async fn without_listed_origins_there_is_no_cors() {
    let service = World::sqlite();
    let client = service.alice.with("origin", APP);
    assert_no_cors(&client.list().await.unwrap().expect(200));
    let nobody = service.anonymous();
    let answer = nobody.send(preflight(&nobody, APP)).await.unwrap();
    assert_no_cors(&answer.expect(401));
}

#[tokio::test]
async fn a_listed_origin_gets_its_preflight_before_the_credential_is_asked_for() {
    let service = World::with(&[("HTTP__CORS_ORIGINS", APP)]);
    let nobody = service.anonymous();
    let answer = nobody.send(preflight(&nobody, APP)).await.unwrap();
    let answer = answer.expect(204);
    assert_eq!(answer.header(ALLOW_ORIGIN), Some(APP));
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("PUT") && methods.contains("DELETE"));
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("Authorization") && headers.contains("If-Match"));
    assert_common(&answer);
    // The page can read an error, too.
    let failed = nobody.with("origin", APP).list().await.unwrap();
    assert_eq!(failed.expect(401).header(ALLOW_ORIGIN), Some(APP));
    let other = preflight(&nobody, "https://other.example");
    let other = nobody.send(other).await.unwrap();
    assert_no_cors(&other.expect(401));
}
