//! `rekey serve`: runs the service until SIGTERM or SIGINT.

use std::process::ExitCode;

use tokio::runtime::Builder;

use super::{CommandError, embedded, print, shutdown};
use crate::{
    app::{self, Application},
    settings::Settings,
    telemetry::metrics,
};

pub(super) fn run(settings: Settings) -> Result<ExitCode, CommandError> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    // The actors' arbiters need actix's System; database and broker work runs on the runtime's threads.
    let system = actix::System::with_tokio_rt(|| runtime);
    system.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<ExitCode, CommandError> {
    metrics::install()?;
    // Before anything is opened, so that a signal during the start ends the service in good order too.
    let shutdown = shutdown::asked()?;
    let made = if settings.embedded {
        Some(embedded::prepare(&settings).await?)
    } else {
        None
    };
    app::show_tls(settings.database.tls(), settings.broker.tls());
    let application = Application::build(settings).await?;
    if let Some(folder) = made {
        embedded::welcome(application.url(), &folder);
    }
    print(format!("listening on {}", application.url()))?;
    application.run_until(shutdown).await;
    Ok(ExitCode::SUCCESS)
}
