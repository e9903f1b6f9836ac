//! Metrics in Prometheus' text format: counted where things happen, rendered on request.
//!
//! No label has an ID, an owner or a name: routes are patterns, and there are two logs.

use std::sync::OnceLock;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Buckets of durations, in seconds.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Buckets of batch sizes.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Makes the process record metrics, from now on and once.
///
/// # Errors
/// [`BuildError`] if the buckets are wrong: a bug.
pub(crate) fn install() -> Result<(), BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), &SIZES)?
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() && RECORDER.set(handle).is_ok() {
        describe();
        let commit = option_env!("REKEY_COMMIT").unwrap_or("unknown");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", commit)];
        metrics::gauge!("rekey_build_info", &labels).set(1.0);
    }
    Ok(())
}

fn describe() {
    describe_gauge!("rekey_build_info", "Version and commit of this binary");
    describe_counter!("rekey_http_requests_total", "Requests answered");
    describe_histogram!(
        "rekey_http_request_duration_seconds",
        "Time from the head of a request to the head of its answer"
    );
    describe_counter!(
        "rekey_connections_refused_total",
        "Connections that were closed because their address had as many as it may have"
    );
    describe_histogram!(
        "rekey_commit_batch_size",
        "Changes and records in a transaction"
    );
    describe_histogram!(
        "rekey_commit_duration_seconds",
        "Time from the beginning of a batch to its COMMIT"
    );
    describe_gauge!("rekey_commit_queue_depth", "Commands under way");
    describe_gauge!(
        "rekey_log_broken",
        "1 when a log lost an event that this process had seen in it"
    );
    describe_gauge!(
        "rekey_lockdown",
        "1 while the service is locked down: no value leaves and no change is made"
    );
    describe_counter!(
        "rekey_forged_tokens_total",
        "Look-ups of tokens whose row was not written by rekey, or was changed"
    );
    describe_counter!(
        "rekey_disagreeing_secrets_total",
        "Secrets that were not handed out because their row is not as the log says"
    );
    describe_counter!(
        "rekey_refusals_left_out_total",
        "Refused requests without an event of their own"
    );
    describe_gauge!("rekey_log_position", "Position of a log's last event");
    describe_gauge!(
        "rekey_relay_lag_events",
        "Events that the broker has not confirmed yet (on the replica that holds the lease)"
    );
    describe_gauge!(
        "rekey_relay_lag_seconds",
        "Age of the oldest event that the broker has not confirmed yet"
    );
    describe_counter!(
        "rekey_relay_unroutable_events_total",
        "Events that the broker could not route to any queue"
    );
    describe_gauge!(
        "rekey_broker_connected",
        "1 if the broker is connected, else 0 (absent if none is set)"
    );
    describe_gauge!("rekey_event_streams", "Open streams of events");
    describe_gauge!("rekey_secret_actors", "Actors that are running");
}

/// All metrics as they stand; empty before [`install`].
#[must_use]
pub(crate) fn render() -> String {
    RECORDER.get().map_or_else(String::new, |handle| {
        handle.run_upkeep();
        handle.render()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_with_its_buckets() {
        install().unwrap();
        metrics::histogram!("rekey_commit_batch_size").record(3.0);
        metrics::histogram!("rekey_commit_duration_seconds").record(0.002);
        let text = render();
        for part in [
            "rekey_commit_batch_size_bucket{le=\"4\"}",
            "rekey_commit_duration_seconds_bucket{le=\"0.0025\"}",
            "rekey_build_info{version=",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        // A second one changes nothing.
        install().unwrap();
    }
}
