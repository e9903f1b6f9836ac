//! Keys of JSON Web Tokens at an address: when it is asked, and that no other one is.

use super::issuer::{AUDIENCE, ISSUER, Issuer, claims};
use super::jwt::status;
use crate::support::fixture::World;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An address that answers with a key set, and counts who asks. With a place to go it answers with a redirect there.
struct Keys {
    address: String,
    set: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Keys {
    fn serve(set: String, redirect: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        let (set, asked) = (Arc::new(Mutex::new(set)), Arc::new(AtomicUsize::new(0)));
        let (held, counted) = (set.clone(), asked.clone());
        let place = redirect.map(|place| format!("Location: {place}\r\n"));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut request = [0; 4096];
                if connection.read(&mut request).unwrap_or(0) == 0 {
                    continue;
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let body = held.lock().unwrap().clone();
                let (status, place) = place.as_ref().map_or(("200 OK", ""), |p| ("302 Found", p));
                let length = body.len();
                let _ = write!(
                    connection,
                    "HTTP/1.1 {status}\r\n{place}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        Self {
            address,
            set,
            asked,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn settings(address: &str) -> [(&str, &str); 4] {
    [
        ("AUTH__JWKS_URL", address),
        ("AUTH__ISSUER", ISSUER),
        ("AUTH__AUDIENCE", AUDIENCE),
        ("LIMITS__FAILED_PER_MINUTE", "100000"),
    ]
}

#[tokio::test]
async fn an_address_of_keys_is_asked_at_most_once_a_minute_for_keys_that_are_not_known() {
    let issuer = Issuer::new();
    let keys = Keys::serve(issuer.key_set().to_string(), None);
    let world = World::with(&settings(&keys.address));
    assert_eq!(status(&world, &issuer.token(&claims())).await, 200);
    assert_eq!(keys.asked(), 1);
    // A new key is published a moment later: it has to wait, and however many ask for it, nobody is asked.
    *keys.set.lock().unwrap() = issuer.key_set().to_string().replace("\"ed\"", "\"new\"");
    let header = json!({"alg": "EdDSA", "kid": "new"}).to_string();
    let new = issuer.sign("EdDSA", &header, &claims().to_string());
    for _ in 0..20 {
        assert_eq!(status(&world, &new).await, 401);
    }
    assert_eq!(keys.asked(), 1);
    assert_eq!(status(&world, &issuer.token(&claims())).await, 200);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let both = tokio::join!(status(&world, &new), status(&world, &new));
    assert_eq!(both, (200, 200));
    assert_eq!(keys.asked(), 2);
    // What is no longer in the set is no key.
    assert_eq!(status(&world, &issuer.token(&claims())).await, 401);
}

#[tokio::test]
async fn no_redirect_of_an_address_of_keys_is_followed_and_no_address_of_a_token_is_asked() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let strangers = Keys::serve(stranger.key_set().to_string(), None);
    let keys = Keys::serve(issuer.key_set().to_string(), Some(&strangers.address));
    // It starts all the same: the issuer may be back later.
    let world = World::with(&settings(&keys.address));
    for token in [issuer.token(&claims()), stranger.token(&claims())] {
        assert_eq!(status(&world, &token).await, 401);
    }
    for member in ["jku", "x5u"] {
        let header = json!({"alg": "EdDSA", "kid": "ed", member: strangers.address}).to_string();
        let token = stranger.sign("EdDSA", &header, &claims().to_string());
        assert_eq!(status(&world, &token).await, 401);
    }
    assert_eq!((keys.asked(), strangers.asked()), (1, 0));
    world.alice.list().await.unwrap().expect(200);
}
