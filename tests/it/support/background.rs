//! A runtime of the harness's own: a test that blocks its runtime (while a server restarts, say) must not
//! stop the proxy or the recording consumer.

use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("harness")
            .enable_all()
            .build()
            .expect("a runtime for the harness")
    })
}
