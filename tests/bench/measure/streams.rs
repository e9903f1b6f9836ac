//! Open streams: the memory of each, and whether the statements per commit grow with them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    time::sleep,
};

use crate::{
    load::Kind,
    options::Options,
    support::{
        postgres::{Postgres, psql},
        service::Deployment,
    },
    table::{Sheet, Table, thousands},
    world::{World, address, resident},
};

const CALLS: &str = "SELECT sum(calls) FROM pg_stat_statements \
     WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let (streams, puts) = (options.scaled(1000, 100), options.scaled(400, 40));
    let server = Postgres::start_private_with(&["shared_preload_libraries=pg_stat_statements"]);
    let url = server.database();
    psql(&url, "CREATE EXTENSION pg_stat_statements");
    let world = World::start(
        Deployment::postgres(&url).raised_limits().prepare(),
        10,
        options,
    );
    world.fill(options);
    let statements = || {
        psql(&url, "SELECT pg_stat_statements_reset()");
        let job = world.job(Kind::Put, &world.secrets.ids, 1, options);
        job.of_count(puts).run();
        let calls: f64 = psql(&url, CALLS).parse().expect("a count");
        calls / puts as f64
    };
    let runtime = Runtime::new().expect("a runtime");
    let alone = statements();
    let before = resident(world.replica.id());
    let events = Arc::new(AtomicUsize::new(0));
    let each = || (resident(world.replica.id()) - before).max(0.0) / streams as f64;
    runtime.block_on(async {
        for _ in 0..streams {
            open(&world, Arc::clone(&events)).await;
        }
        sleep(Duration::from_secs(options.scaled(3, 1) as u64)).await;
    });
    let idle = each();
    let together = statements();
    let all = streams * puts;
    runtime.block_on(async {
        let mut patience = 0..200;
        while events.load(Ordering::Relaxed) < all && patience.next().is_some() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let got = events.load(Ordering::Relaxed);
    assert_eq!(got, all, "every stream gets every event");
    let busy = each();
    sheet.put("streams/memory", busy);
    sheet.put("streams/statements-none", alone);
    sheet.put("streams/statements-all", together);
    let memory = format!("{idle:.1} KiB, {busy:.1} KiB");
    let statements = format!("{alone:.2}, {together:.2}");
    let note = "Resident memory of each, idle and under load; statements per commit without a stream and with all.";
    let mut table = Table::new("Open streams", note, &["streams", "memory", "statements"]);
    table.row(vec![thousands(streams as f64), memory, statements]);
    sheet.add(table);
}

/// Opens a stream that counts the events that it gets.
async fn open(world: &World, events: Arc<AtomicUsize>) {
    let socket = TcpStream::connect(address(&world.replica)).await;
    let mut socket = socket.expect("a connection");
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\
         authorization: Bearer {}\r\n\r\n",
        world.secrets.token
    );
    let sent = socket.write_all(request.as_bytes()).await;
    sent.expect("the service takes a request");
    let mut buffer = vec![0; 4096];
    let count = socket.read(&mut buffer).await.expect("an answer");
    assert!(buffer[..count].starts_with(b"HTTP/1.1 200"), "a stream");
    tokio::spawn(async move {
        let mut last = 0;
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            for byte in &buffer[..count] {
                // `data:` stands once in each event's block, at the begin of a line.
                if *byte == b'd' && last == b'\n' {
                    events.fetch_add(1, Ordering::Relaxed);
                }
                last = *byte;
            }
        }
    });
}
