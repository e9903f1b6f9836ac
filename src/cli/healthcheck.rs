//! `rekey healthcheck [URL]`: whether the service is ready.

use std::{process::ExitCode, time::Duration};

use super::{Failed, print};
use crate::settings::Settings;

/// How long the service may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn run(settings: &Settings, url: Option<String>) -> Result<ExitCode, Failed> {
    let base = url.unwrap_or_else(|| own_address(settings));
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(DEADLINE)
        .build()?;
    let answer = client
        .get(format!("{}/ready", base.trim_end_matches('/')))
        .send()
        .await?;
    let ready = answer.status() == reqwest::StatusCode::OK;
    print(&answer.text().await?)?;
    Ok(if ready {
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
