//! ConfigMaps that change all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use tokio::task::JoinHandle;

use super::namespace::Namespace;
use super::object::config_map;

/// How many objects there are, each with one key of its own name.
const OBJECTS: usize = 10;

/// The time between two changes.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs on the runtime of its test.
pub struct Updates {
    over: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Updates {
    /// Creates the objects, and changes one after the other from then on.
    pub async fn of(namespace: &Namespace) -> Self {
        let names: Vec<String> = (0..OBJECTS).map(|number| format!("changing-{number}")).collect();
        let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, "0")])).collect();
        namespace.create_all(&objects).await;
        let over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(change(namespace.api(), names, Arc::clone(&over)));
        Self { over, task }
    }

    /// Ends them, and gives how many there were.
    pub async fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.expect("updates do not panic")
    }
}

async fn change(api: Api<ConfigMap>, names: Vec<String>, over: Arc<AtomicBool>) -> usize {
    let mut changes = 0;
    for name in names.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let object = config_map(name, [(name, &(changes + 1).to_string())]);
        // A server that is in trouble refuses some.
        if api.replace(name, &PostParams::default(), &object).await.is_ok() {
            changes += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
    changes
}
