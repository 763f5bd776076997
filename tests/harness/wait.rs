//! Waiting with a deadline, which is the only way in which a test waits for anything.

use std::time::{Duration, Instant};

/// How long a test waits for what takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a test waits for a sidecar that has failed for a while: its longest wait between two tries, and time to spare for what it does
/// then, which may be the sync of ten thousand files on a machine that has much else to do.
pub const LONG_PATIENCE: Duration = Duration::from_secs(30 + 90);

/// How long it rests between two looks.
pub const STEP: Duration = Duration::from_millis(10);

/// Runs the future of a test on a runtime of its own.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// Looks again and again until `look` is content, and gives what it found.
///
/// # Panics
///
/// When `patience` runs out: with `what` was waited for and what `look` found last in its place.
pub async fn until<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) if start.elapsed() > patience => {
                panic!("waited {patience:?} in vain for {what}; instead: {instead}")
            }
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}

/// Lets a fault last for so long. What comes after it is waited for by [`until`].
pub async fn lasting(duration: Duration) {
    tokio::time::sleep(duration).await;
}
