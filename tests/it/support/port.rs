//! Loopback ports for servers that cannot be asked to choose one themselves.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

/// Below the ports that Linux gives to outgoing connections (from 32,768), so that none of those sits on a
/// server's port while it restarts; and clear of the servers' standard ones.
const RANGE: Range<u16> = 17_000..25_000;

/// A port that nobody listens on, and that no other caller in this process gets.
pub(crate) fn free() -> u16 {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap();
    let taken = taken.get_or_insert_default();
    // Two test processes at once begin at different places.
    let start = u128::from(std::process::id()).wrapping_mul(7_919) ^ uuid::Uuid::new_v4().as_u128();
    let width = u128::from(RANGE.end - RANGE.start);
    (0..width)
        .map(|step| RANGE.start + u16::try_from(start.wrapping_add(step) % width).unwrap())
        .find(|port| {
            !taken.contains(port)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
                && taken.insert(*port)
        })
        .expect("a free port")
}
