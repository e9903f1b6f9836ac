//! `rekey serve`: runs the service until SIGTERM or SIGINT.

use std::process::ExitCode;

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use super::{CommandError, embedded, print};
use crate::{app::Application, settings::Settings, telemetry::metrics};

pub(super) fn run(settings: Settings) -> Result<ExitCode, CommandError> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    // The actors' arbiters need actix's System; database and broker work runs on the runtime's threads.
    let system = actix::System::with_tokio_rt(|| runtime);
    system.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<ExitCode, CommandError> {
    metrics::install()?;
    // Before anything is opened: a signal that comes meanwhile ends the service in good order.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = if settings.embedded {
        Some(embedded::prepare(&settings).await?)
    } else {
        None
    };
    let application = Application::build(settings).await?;
    let address = application.address();
    if let Some(token) = token {
        embedded::welcome(address, &token);
    }
    print(&format!("listening on http://{address}"))?;
    application
        .run_until(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(ExitCode::SUCCESS)
}
