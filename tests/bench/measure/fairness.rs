//! What one tenant notices while another one, and a stranger, do their worst; with the limits that an operator gets
//! unless a setting says otherwise.

use std::time::{Duration, Instant};

use tokio::{runtime::Runtime, task::JoinSet, time};

use crate::{
    attack::{Answers, Attack},
    load::{Kind, Measured, percentile},
    options::Options,
    support::{postgres::Postgres, service::Deployment},
    table::{Sheet, Table, median, medians, milliseconds, thousands},
    wire::Wire,
    world::{Secrets, address, peak},
};

/// The tenant's requests per second, below its limit: so many clients, and so many of each.
const CLIENTS: usize = 5;
const EACH: u32 = 20;
/// The attackers begin before the tenant is measured, and end after it.
const MARGIN: Duration = Duration::from_secs(1);

struct Tenants {
    deployment: Deployment,
    tenant: Secrets,
    hostile: Secrets,
    guess: String,
}

/// The tenant's requests, and how many of them got another answer than 200.
struct Round {
    measured: Measured,
    refused: usize,
}

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let server = Postgres::shared();
    let deployment = Deployment::postgres(&server.database()).prepare();
    // Its own limits would refuse the many secrets that it begins with.
    let replica = deployment.serve_with(&[
        ("REKEY__LIMITS__RATE_PER_SECOND", "1000000"),
        ("REKEY__LIMITS__BURST", "1000000"),
    ]);
    let secrets = |owner| Secrets::create((&deployment, &replica), owner, 100, options);
    let (tenant, hostile) = (secrets("tenant"), secrets("hostile"));
    drop(replica);
    let tenants = Tenants {
        guess: Deployment::sqlite()
            .prepare()
            .token("mallory", &["secrets:read"]),
        deployment,
        tenant,
        hostile,
    };
    tenants.beside_a_hostile_tenant(options, sheet);
    tenants.beside_a_flood_of_ready(options, sheet);
}

impl Tenants {
    fn beside_a_hostile_tenant(&self, options: &Options, sheet: &mut Sheet) {
        let (mut alone, mut beside, mut refused, mut memory) =
            (Vec::new(), Vec::new(), 0, Vec::new());
        let mut answers = Answers::new();
        for _ in 0..options.rounds {
            let replica = self.deployment.serve();
            let address = address(&replica);
            alone.push(self.round(Kind::Put, &address, options).measured);
            let attackers = self.attack(&address, &self.hostile.token, options).start();
            std::thread::sleep(MARGIN);
            let round = self.round(Kind::Put, &address, options);
            for (status, count) in attackers.finish() {
                *answers.entry(status).or_default() += count;
            }
            beside.push(round.measured);
            refused += round.refused;
            memory.push(peak(replica.id()) / 1024.0);
        }
        let (alone, beside, memory) = (medians(&alone), medians(&beside), median(memory));
        sheet.put("fairness/alone", alone.p99);
        sheet.put("fairness/beside", beside.p99);
        sheet.put("fairness/refused", refused as f64);
        sheet.put("fairness/memory", memory);
        let of = |status: fn(u16) -> bool| {
            let counts = answers.iter().filter(|(known, _)| status(**known));
            thousands(counts.map(|(_, count)| *count as f64).sum())
        };
        let note = format!(
            "{} PUTs a second of one tenant on PostgreSQL, with the default limits. Beside it another tenant resolves 100 \
             names at a time, sends batches of 3 MB and bodies with 30,000 unknown members or one of 500 kB, and a stranger \
             guesses tokens, each with 8 clients without a pause: {} of their requests were answered by 2xx, {} by 401, {} \
             by 429. {refused} of the tenant's requests were refused. The service's peak memory (VmHWM) was {memory:.0} MiB.",
            CLIENTS * EACH as usize,
            of(|status| status / 100 == 2),
            of(|status| status == 401),
            of(|status| status == 429),
        );
        table("Beside a hostile tenant", &note, (&alone, &beside), sheet);
    }

    fn beside_a_flood_of_ready(&self, options: &Options, sheet: &mut Sheet) {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let mut asked = 0;
        for _ in 0..options.rounds {
            let replica = self.deployment.serve();
            let address = address(&replica);
            alone.push(self.round(Kind::Get, &address, options).measured);
            let attackers = self.attack(&address, "", options).start();
            std::thread::sleep(MARGIN);
            beside.push(self.round(Kind::Get, &address, options).measured);
            asked += attackers.finish().values().sum::<usize>();
        }
        let (alone, beside) = (medians(&alone), medians(&beside));
        sheet.put("fairness/get-alone", alone.p99);
        sheet.put("fairness/get-beside", beside.p99);
        let note = format!(
            "{} GETs a second of one tenant. Beside it 8 clients asked for `/ready` {} times without a pause.",
            CLIENTS * EACH as usize,
            thousands(asked as f64)
        );
        table("Beside a flood of /ready", &note, (&alone, &beside), sheet);
    }

    fn attack(&self, address: &str, token: &str, options: &Options) -> Attack {
        Attack {
            address: address.to_owned(),
            token: token.to_owned(),
            guess: self.guess.clone(),
            ids: self.hostile.ids.clone(),
            seconds: options.warm_up() + options.seconds() + MARGIN * 2,
        }
    }

    fn round(&self, kind: Kind, address: &str, options: &Options) -> Round {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut clients = JoinSet::new();
            for number in 0..CLIENTS {
                let secrets = self.tenant.ids.iter().skip(number).step_by(CLIENTS);
                let requests = secrets.map(|id| kind.request(&self.tenant.token, id));
                let times = (options.warm_up(), options.seconds());
                clients.spawn(client(address.to_owned(), requests.collect(), times));
            }
            let (mut all, mut refused) = (Vec::new(), 0);
            for (times, own_refused) in clients.join_all().await {
                all.extend(times);
                refused += own_refused;
            }
            all.sort_unstable();
            let measured = Measured {
                rate: all.len() as f64 / options.seconds().as_secs_f64(),
                p50: percentile(&all, 50),
                p99: percentile(&all, 99),
                count: all.len(),
                created: Vec::new(),
            };
            Round { measured, refused }
        })
    }
}

/// Sends its requests evenly; how long each took, in microseconds, and how many were refused.
async fn client(
    address: String,
    requests: Vec<Vec<u8>>,
    (warm_up, seconds): (Duration, Duration),
) -> (Vec<u32>, usize) {
    let mut wire = Wire::connect(&address).await;
    let (mut times, mut refused) = (Vec::new(), 0);
    let from = Instant::now() + warm_up;
    let mut tick = time::interval(Duration::from_secs(1) / EACH);
    // A late answer delays those after it; it does not make a burst.
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    for request in requests.iter().cycle() {
        tick.tick().await;
        let began = Instant::now();
        if began >= from + seconds {
            break;
        }
        let status = wire.ask(request).await;
        if began >= from {
            times.push(began.elapsed().as_micros() as u32);
            refused += usize::from(status != 200);
        }
    }
    (times, refused)
}

fn table(title: &str, note: &str, (alone, beside): (&Measured, &Measured), sheet: &mut Sheet) {
    let mut table = Table::new(
        title,
        note,
        &["", "requests/s", "p50", "p99", "p99 / alone"],
    );
    for (name, one) in [("alone", alone), ("beside", beside)] {
        let ratio = format!("{:.2}", one.p99 / alone.p99);
        let cells = [
            thousands(one.rate),
            milliseconds(one.p50),
            milliseconds(one.p99),
            ratio,
        ];
        let cells = std::iter::once(name.to_owned()).chain(cells);
        table.row(cells.collect());
    }
    sheet.add(table);
}
