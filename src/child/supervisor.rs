//! The task that owns the program.

use std::collections::HashSet;
use std::future::{Future, pending};
use std::mem;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::family::{self, Family};
use super::{ChildConfig, ChildError, Farewell, Handle, Message, shares_terminal, starter};

/// More would be waiting only while the runtime's thread is busy elsewhere.
const MESSAGES_MAX: usize = 16;

/// How long a killed process may take to go. Only the kernel can keep it, as in a read from a file server that is gone.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// The exit code after a SIGKILL that did not help.
const KILLED: u8 = 128 + 9;

const NO_LIST: &str = "cannot list its processes in /proc";

/// Makes a supervisor, and the handle to talk to it. The supervisor is a future that does nothing until it is asked to
/// [`start`](Handle::start) the program, and is done when the program has ended, with its exit code (128+N after signal
/// N), or when it is asked to stop before, with 0. It stops the program if all handles are dropped.
///
/// From now on this process adopts and reaps the orphans of all that it starts. One supervisor a process.
///
/// # Errors
///
/// When the system does not let it look after children. The future: when the program cannot be started.
pub fn supervise(
    config: ChildConfig,
) -> Result<(Handle, impl Future<Output = Result<u8, ChildError>> + Send), ChildError> {
    let setup = |what| move |error| ChildError::Setup { what, error };
    let ended = unix::signal(SignalKind::child()).map_err(setup("cannot wait for SIGCHLD"))?;
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        warn!(
            "cannot call prctl(PR_SET_CHILD_SUBREAPER): {error}; allow it in the seccomp profile, until then a command that puts itself in \
             the background is not followed"
        );
    }
    family::children().map_err(setup(NO_LIST))?;

    let (sender, messages) = mpsc::channel(MESSAGES_MAX);
    let (processes, seen) = watch::channel(Vec::new());
    let supervisor = Supervisor { config, processes, program: None, ending: None };
    Ok((Handle { messages: sender, processes: seen }, supervisor.run(messages, ended)))
}

struct Supervisor {
    config: ChildConfig,
    processes: watch::Sender<Vec<Pid>>,
    /// None until it is started.
    program: Option<Program>,
    ending: Option<Ending>,
}

/// What was started.
struct Program {
    command: Pid,
    /// COMMAND has not ended.
    runs: bool,
    /// COMMAND has ended with 0 and left processes.
    daemonised: bool,
    /// How COMMAND ended; of a daemon, how the last of its processes did.
    code: u8,
    /// What a signal is sent to; see [`Handle::processes`].
    roots: HashSet<Pid>,
    /// Children that were there before it, so no part of it: of a shell that became configbump, or of a hook.
    strangers: HashSet<Pid>,
}

/// A program that has been asked to end.
struct Ending {
    then: Then,
    signal: Signal,
    /// Who has had the signal.
    told: HashSet<Pid>,
    killed: bool,
    /// When patience is over; none if it has no end, or there is nothing more to do.
    deadline: Option<Instant>,
}

impl Ending {
    /// Whether even SIGKILL has not helped.
    fn is_kept(&self) -> bool {
        self.killed && self.deadline.is_none()
    }
}

enum Then {
    End,
    Start(Vec<oneshot::Sender<Result<(), ChildError>>>),
}

/// Whether the supervisor goes on, or is done with this exit code.
type Turn = Result<Option<u8>, ChildError>;

impl Supervisor {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, mut ended: unix::Signal) -> Result<u8, ChildError> {
        let mut heard = true;
        loop {
            let deadline = self.ending.as_ref().and_then(|ending| ending.deadline);
            let turn = tokio::select! {
                message = messages.recv(), if heard => {
                    heard = message.is_some();
                    self.obey(message.unwrap_or(Message::Stop(Farewell::Usual)))
                }
                _ = ended.recv() => self.look(),
                () = at(deadline) => self.lose_patience(),
            };
            if let Some(code) = turn? {
                return Ok(code);
            }
        }
    }

    fn obey(&mut self, message: Message) -> Turn {
        match (message, &self.program) {
            (Message::Start, None) => self.start(),
            (Message::Start, Some(_)) => Ok(None),
            (Message::Signal(signal), None) => {
                debug!(signal = signal.as_raw(), "not passed on: the program has not been started");
                Ok(None)
            }
            (Message::Signal(signal), Some(program)) => {
                program.roots.iter().for_each(|pid| send(*pid, signal));
                Ok(None)
            }
            (Message::Restart { done }, None) => {
                let turn = self.start();
                // Whoever asked may have gone.
                let _ = done.send(if turn.is_ok() { Ok(()) } else { Err(ChildError::Over) });
                turn
            }
            (Message::Restart { done }, Some(_)) => self.restart(done),
            (Message::Stop(_) | Message::StopNow, None) => Ok(Some(0)),
            (Message::Stop(farewell), Some(_)) => self.stop(farewell),
            (Message::StopNow, Some(_)) => {
                let ended = self.stop(Farewell::Usual)?;
                if ended.is_some() { Ok(ended) } else { self.kill() }
            }
        }
    }

    fn start(&mut self) -> Turn {
        let strangers = family::look().map_err(|error| ChildError::Setup { what: NO_LIST, error })?.alive;
        let mut command = Command::new(&self.config.program);
        command.args(&self.config.arguments);
        if !shares_terminal() {
            command.process_group(0);
        }
        let child = starter::start(move || command.spawn())
            .map_err(|error| ChildError::Start { program: self.config.program.display().to_string(), error })?;
        let command = Pid::from_child(&child);
        let (program, pid) = (self.config.program.display(), command.as_raw_pid());
        info!(%program, pid, "started {program} as PID {pid}");
        let roots = HashSet::from([command]);
        self.program = Some(Program { command, runs: true, daemonised: false, code: 0, roots, strangers });
        self.publish();
        Ok(None)
    }

    fn restart(&mut self, done: oneshot::Sender<Result<(), ChildError>>) -> Turn {
        match &mut self.ending {
            // Whoever asked may have gone.
            Some(ending) if ending.is_kept() => _ = done.send(Err(ChildError::Kept)),
            // The program that is about to be started will read what has changed until then.
            Some(Ending { then: Then::Start(waiting), .. }) => waiting.push(done),
            Some(Ending { then: Then::End, .. }) => _ = done.send(Err(ChildError::Over)),
            None => self.ending = Some(self.ending(Then::Start(vec![done]), Farewell::Usual)),
        }
        self.look()
    }

    fn stop(&mut self, farewell: Farewell) -> Turn {
        match &mut self.ending {
            // It has been asked to end already; whoever waits for the restart hears that there will be none.
            Some(ending) => {
                ending.then = Then::End;
                if ending.is_kept() {
                    // There is nothing more to do about it.
                    return Ok(self.look()?.or(Some(KILLED)));
                }
            }
            None => self.ending = Some(self.ending(Then::End, farewell)),
        }
        self.look()
    }

    fn ending(&self, then: Then, farewell: Farewell) -> Ending {
        let (signal, told) = match farewell {
            Farewell::Usual => (self.config.stop_signal, HashSet::new()),
            Farewell::This(signal) => (signal, HashSet::new()),
            Farewell::Had(signal) => (signal, self.program.iter().flat_map(|p| p.roots.clone()).collect()),
        };
        Ending { then, signal, told, killed: false, deadline: Instant::now().checked_add(self.config.grace) }
    }

    /// The grace is over, or even SIGKILL has not helped.
    fn lose_patience(&mut self) -> Turn {
        let Some(ending) = &mut self.ending else { return Ok(None) };
        if !ending.killed {
            warn!("the program has not ended within {:?}: killing it", self.config.grace);
            return self.kill();
        }
        ending.deadline = None;
        match &mut ending.then {
            Then::End => {
                warn!(
                    "the program has been killed, and the kernel keeps it: it may wait for a file server or a device"
                );
                Ok(Some(KILLED))
            }
            Then::Start(waiting) => {
                for done in waiting.drain(..) {
                    // Whoever asked may have gone.
                    let _ = done.send(Err(ChildError::Kept));
                }
                Ok(None)
            }
        }
    }

    fn kill(&mut self) -> Turn {
        if let Some(ending) = &mut self.ending
            && !mem::replace(&mut ending.killed, true)
        {
            ending.deadline = Some(Instant::now() + KILL_WAIT);
            ending.told.clear();
        }
        self.look()
    }

    /// Sees who has ended and who has been left behind, and does what follows from it.
    fn look(&mut self) -> Turn {
        let mut family = match family::look() {
            Ok(family) => family,
            Err(error) => {
                warn!("cannot see which processes have ended: {error}");
                return Ok(None);
            }
        };
        let Some(program) = &mut self.program else { return Ok(None) };
        family.ended.retain(|(pid, _)| !program.strangers.remove(pid));
        family.alive.retain(|pid| !program.strangers.contains(pid));
        let died = program.update(&family);
        let gone = program.roots.is_empty();
        if died && !gone && self.ending.is_none() {
            self.ending = Some(self.ending(Then::End, Farewell::Usual));
        }
        self.part_with();
        self.publish();
        if gone { self.gone() } else { Ok(None) }
    }

    /// Tells everybody who has not been told yet that it is time to end.
    fn part_with(&mut self) {
        let (Some(program), Some(ending)) = (&self.program, &mut self.ending) else { return };
        ending.told.retain(|pid| program.roots.contains(pid));
        // Those below the roots are roots themselves as soon as they are orphans.
        for pid in &program.roots {
            if !ending.told.insert(*pid) {
                continue;
            }
            if ending.killed {
                send(*pid, Signal::KILL);
            } else {
                send(*pid, ending.signal);
                // One that has been stopped would not notice.
                send(*pid, Signal::CONT);
            }
        }
    }

    /// Nothing is left of the program.
    fn gone(&mut self) -> Turn {
        let code = self.program.take().map_or(0, |program| program.code);
        match self.ending.take().map(|ending| ending.then) {
            Some(Then::Start(waiting)) => {
                let turn = self.start();
                for done in waiting {
                    // Whoever asked may have gone.
                    let _ = done.send(if turn.is_ok() { Ok(()) } else { Err(ChildError::Over) });
                }
                turn
            }
            Some(Then::End) => Ok(Some(code)),
            None => {
                info!(code, "the program has ended with code {code}");
                Ok(Some(code))
            }
        }
    }

    fn publish(&self) {
        let roots = self.program.iter().flat_map(|program| program.roots.iter().copied()).collect();
        self.processes.send_replace(roots);
    }
}

impl Program {
    /// Takes in what was seen. Whether COMMAND has just ended otherwise than as a daemon does.
    fn update(&mut self, family: &Family) -> bool {
        let ran = self.runs;
        for (pid, code) in &family.ended {
            if *pid == self.command && self.runs {
                self.runs = false;
                self.code = *code;
            } else if self.daemonised {
                self.code = *code;
            }
        }
        if self.runs {
            return false;
        }
        self.roots.clone_from(&family.alive);
        let died = ran && self.code != 0;
        if died && !self.roots.is_empty() {
            warn!("the program has ended with code {} and left processes: ending them", self.code);
        }
        if ran && !died && !self.roots.is_empty() {
            self.daemonised = true;
            let processes = self.roots.len();
            info!(
                processes,
                "the program has put itself in the background: following the {processes} processes that it left"
            );
        }
        died
    }
}

/// Sends a signal to a child that has not been waited for: so the PID is still its own, if only as a zombie's, which takes
/// every signal. Nobody but this task waits for it, and not while it is here.
fn send(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal) {
        warn!("cannot send signal {} to PID {} of the program: {error}", signal.as_raw(), pid.as_raw_pid());
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
