//! One address can't take all connections.

use crate::support::fixture::{self, World};
use crate::support::service::{Client, Replica};
use crate::support::wire::Wire;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const MOST: usize = 20;
const HALF: &str = "GET /health HTTP/1.1\r\nhost: re";
const WHOLE: &str = "GET /health HTTP/1.1\r\nhost: rekey\r\nconnection: close\r\n\r\n";

/// An address of this machine that is not loopback: limits do not count those. A machine without a network has none; there
/// the units of `http::connection` alone show the limit, and the test says so.
fn own_address() -> Option<IpAddr> {
    // Nothing is sent: the kernel only chooses the address that it would send from.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let chosen = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    let address = chosen.ok().map(|address| address.ip());
    let address = address.filter(|address| !address.is_loopback());
    if address.is_none() {
        eprintln!(
            "this machine has no address but loopback: the limit for an address is not shown here"
        );
    }
    address
}

/// A service on all addresses.
fn world(own: IpAddr, settings: &[(&str, &str)]) -> (World, SocketAddr) {
    let most = MOST.to_string();
    let settings = settings.iter().copied();
    let settings = settings.chain([
        ("SERVER__HOST", "0.0.0.0"),
        ("SERVER__PLAINTEXT", "true"),
        ("LIMITS__CONNECTIONS_PER_ADDRESS", &most),
    ]);
    let deployment = settings.fold(fixture::sqlite(), |all, (key, value)| all.set(key, value));
    let world = World::of(deployment);
    let address = SocketAddr::new(own, port(&world.replica));
    (world, address)
}

fn port(replica: &Replica) -> u16 {
    let (_, port) = replica.base().rsplit_once(':').unwrap();
    port.parse().unwrap()
}

async fn half_heads(address: SocketAddr, count: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::open(address).await;
        wire.send(HALF).await;
        wires.push(wire);
    }
    wires
}

async fn health(address: SocketAddr) -> Option<u16> {
    let mut wire = Wire::open(address).await;
    wire.send(WHOLE).await;
    wire.status().await
}

#[tokio::test(flavor = "multi_thread")]
async fn half_heads_from_one_address_leave_room_for_the_others_and_go_in_time() {
    let Some(own) = own_address() else { return };
    let (world, address) = world(own, &[]);
    let loopback = SocketAddr::new([127, 0, 0, 1].into(), address.port());
    let client = Client::new(&format!("http://{loopback}"), &world.token);
    let began = Instant::now();
    let mut held = half_heads(address, MOST).await;
    // One more is closed without an answer. (Two threads accept: this one may be taken before the last of those.)
    while health(address).await.is_some() {
        held.extend(half_heads(address, 1).await);
        assert!(held.len() < 2 * MOST, "nothing is closed");
    }
    for mut more in half_heads(address, 50).await {
        assert!(more.is_closed_within(Duration::from_secs(3)).await);
    }
    client.list().await.unwrap().expect(200);
    // Loopback is not counted, and its half heads take nobody's place.
    let _many = half_heads(loopback, MOST * 2).await;
    client.list().await.unwrap().expect(200);
    assert_eq!(health(loopback).await, Some(200));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "before the half heads go"
    );
    // A place is free when its connection ends …
    drop(held.drain(..MOST / 2));
    let end = Instant::now() + Duration::from_secs(3);
    while health(address).await != Some(200) {
        assert!(Instant::now() < end, "a place that was left");
    }
    // … and a head that does not come ends it.
    let mut timed_out = 0;
    for wire in &mut held {
        timed_out += usize::from(wire.status().await == Some(408));
    }
    assert!(timed_out > 0);
    for _ in 0..MOST {
        assert_eq!(health(address).await, Some(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_has_as_many_connections_as_it_wants() {
    let Some(own) = own_address() else { return };
    let trusted = own.to_string();
    let (_world, address) = world(own, &[("HTTP__TRUSTED_PROXIES", &trusted)]);
    let _held = half_heads(address, MOST * 3).await;
    assert_eq!(health(address).await, Some(200));
}
