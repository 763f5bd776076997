//! The thread from which everything is started once configbump has given up rights.
//!
//! `no_new_privs` and the domain of Landlock are a thread's, and what it starts inherits them (`prctl(2)`, `landlock(7)`). A thread
//! that is there before keeps what the commands may need. All threads share their memory, so this does not hold against who
//! has code run in configbump; it holds against who leads it astray.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::runtime::Handle;

use super::faults;

type Start = Box<dyn FnOnce() + Send>;

/// The process has one, as it has its children.
static STARTER: OnceLock<SyncSender<Start>> = OnceLock::new();

/// From here on, what is started has the rights that the calling thread has now. `runtime` is where children are waited for.
///
/// # Errors
///
/// When there can be no other thread.
pub fn keep_rights_for_children(runtime: Handle) -> io::Result<()> {
    let (sender, starts) = sync_channel::<Start>(0);
    thread::Builder::new().name("starter".to_owned()).spawn(move || {
        let _entered = runtime.enter();
        starts.into_iter().for_each(|start| start());
    })?;
    STARTER.set(sender).map_err(|_| io::Error::other("there is such a thread already"))
}

/// Starts a child, from that thread if there is one.
pub(super) fn start<C: Send + 'static>(spawn: impl FnOnce() -> io::Result<C> + Send + 'static) -> io::Result<C> {
    let spawn = || faults::start_without(spawn);
    let Some(starter) = STARTER.get() else { return spawn() };
    let (sender, outcome) = sync_channel(1);
    // Whoever asked waits for the outcome.
    let start = Box::new(move || drop(sender.send(spawn())));
    let gone = || io::Error::other("the thread that starts programs has ended; this is a bug, please report it");
    starter.send(start).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}
