//! `rekey healthcheck [URL]`: whether the service is ready.

use std::{fs, process::ExitCode};

use zeroize::Zeroizing;

use super::{CommandError, print};
use crate::{
    client::{self, HealthReport, OwnIdentity},
    settings::Settings,
};

pub(super) async fn run(
    settings: &Settings,
    address: Option<String>,
) -> Result<ExitCode, CommandError> {
    let report = match address {
        Some(address) => client::check_health(&address, None).await?,
        None => check_own_health(settings).await?,
    };
    print(report.body)?;
    Ok(if report.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Asks the service that runs with these settings. Under mutual TLS it takes its own certificate for a client's.
async fn check_own_health(settings: &Settings) -> Result<HealthReport, CommandError> {
    let server = &settings.server;
    let mut identity = Zeroizing::new(Vec::new());
    for path in [&server.tls_cert, &server.tls_key].into_iter().flatten() {
        let read = fs::read(path).map(Zeroizing::new);
        let text = read.map_err(|error| format!("can't read {}: {error}", path.display()))?;
        identity.extend_from_slice(&text);
        identity.push(b'\n');
    }
    let identity = (!identity.is_empty()).then_some(identity);
    let own = identity.as_ref().map(|pem| OwnIdentity(pem));
    Ok(client::check_health(&own_address(settings), own).await?)
}

/// The address that `serve` listens on with these settings, as this machine reaches it.
fn own_address(settings: &Settings) -> String {
    let (host, port) = (settings.server.host.as_str(), settings.server.port);
    let scheme = settings.server.scheme();
    match host {
        "0.0.0.0" => format!("{scheme}://127.0.0.1:{port}"),
        "::" => format!("{scheme}://[::1]:{port}"),
        _ if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
        _ => format!("{scheme}://{host}:{port}"),
    }
}
