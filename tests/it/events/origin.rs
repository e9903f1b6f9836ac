//! Where the request of an event came from, by what the service knows itself.

use crate::support::events::{Logged, all};
use crate::support::fixture::{World, batch};
use serde_json::{Value, json};
use uuid::Uuid;

/// The service's own ID of the event's request.
fn own_id(event: &Logged) -> Uuid {
    let id = Uuid::parse_str(event.text("server_request_id")).unwrap();
    assert_eq!(id.get_version_num(), 7);
    id
}

#[tokio::test]
async fn an_event_names_the_address_of_its_caller_and_an_id_that_no_caller_chooses() {
    let world = World::with(&[("HTTP__TRUSTED_PROXIES", "127.0.0.1")]);
    let proxied = world.alice.with("x-forwarded-for", "192.0.2.7");
    let named = proxied.with("x-request-id", "mine");
    let id = named.create("A", "one").await.unwrap().expect(201).id();
    let other = proxied.create("B", "one").await.unwrap().expect(201).id();
    // What stands to the left of the last untrusted address is the caller's word.
    let v6 = world
        .alice
        .with("x-forwarded-for", "198.51.100.1, 2001:DB8:0::7");
    v6.put(&id, "two").await.unwrap().expect(200);
    let updates = [(&*id, "three".to_owned()), (&*other, "three".to_owned())];
    assert_eq!(batch(&world.alice, &updates).await, 200);
    named.delete(&id).await.unwrap().expect(204);
    let events = all(&world.auditor, "log=changes").await;
    let clients: Vec<_> = events.iter().map(|event| event.text("client")).collect();
    assert_eq!(
        clients,
        [
            "192.0.2.7",
            "192.0.2.7",
            "2001:db8::7",
            "127.0.0.1",
            "127.0.0.1",
            "192.0.2.7"
        ]
    );
    // Two requests of one name are two.
    for index in [0, 5] {
        assert_eq!(events[index].text("request_id"), "mine");
    }
    assert_ne!(own_id(&events[0]), own_id(&events[5]));
    // Without a name, both are the same; and all of a change set is one request.
    assert_eq!(events[1].event["request_id"], json!(own_id(&events[1])));
    assert_eq!(own_id(&events[3]), own_id(&events[4]));
}

#[tokio::test]
async fn what_comes_of_no_request_has_neither() {
    let world = World::both();
    for world in world {
        world.alice.create("A", "one").await.unwrap().expect(201);
        let asking = world.alice.with("x-request-id", "read");
        let names = json!({"names": ["A"]});
        asking.resolve(&names).await.unwrap().expect(200);
        let events = all(&world.auditor, "log=activity").await;
        let (accessed, others): (Vec<_>, Vec<_>) = events
            .iter()
            .partition(|event| event.text("type") == "secret.accessed");
        assert_eq!(accessed.len(), 1);
        assert_eq!(accessed[0].text("client"), "127.0.0.1");
        assert_eq!(accessed[0].text("request_id"), "read");
        own_id(accessed[0]);
        assert!(others.len() >= 3, "the tokens of this world");
        for event in others {
            for field in ["client", "server_request_id", "request_id"] {
                assert_eq!(event.event.get(field), Some(&Value::Null), "{field}");
            }
        }
    }
}
