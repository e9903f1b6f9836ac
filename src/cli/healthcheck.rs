//! `rekey healthcheck [URL]`: whether the service is ready.

use std::process::ExitCode;

use super::{CommandError, print};
use crate::{client, settings::Settings};

pub(super) async fn run(
    settings: &Settings,
    address: Option<String>,
) -> Result<ExitCode, CommandError> {
    let address = address.unwrap_or_else(|| own_address(settings));
    let report = client::check_health(&address).await?;
    print(report.body)?;
    Ok(if report.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The address that `serve` listens on with these settings, as this machine reaches it.
fn own_address(settings: &Settings) -> String {
    let (host, port) = (settings.server.host.as_str(), settings.server.port);
    match host {
        "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "::" => format!("http://[::1]:{port}"),
        _ if host.contains(':') => format!("http://[{host}]:{port}"),
        _ => format!("http://{host}:{port}"),
    }
}
