//! What the service does by itself: it removes what is kept no longer, and tells that secrets expire.

use crate::{
    actor::ExpirySweep,
    settings::Settings,
    store::{Committer, Reader, RetentionPolicy},
};

/// Does it until it is dropped. A batch that was handed to the committer runs to its end.
pub(super) fn run(
    settings: &Settings,
    reader: &Reader,
    committer: &Committer,
) -> impl Future<Output = ()> + use<> {
    let sweep = ExpirySweep {
        reader: reader.clone(),
        committer: committer.clone(),
        lead: settings.expiry.lead,
    };
    let retention = retention(settings).run(committer.clone());
    async {
        tokio::join!(retention, sweep.run());
    }
}

/// How long each log is kept, as the settings say.
fn retention(settings: &Settings) -> RetentionPolicy {
    let broker = &settings.broker;
    RetentionPolicy {
        changes: settings.events.retain,
        activity: settings.activity.retain,
        exchange: broker.url.as_ref().map(|_| broker.exchange.clone()),
    }
}
