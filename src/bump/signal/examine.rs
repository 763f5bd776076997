//! How a target would take the signal, which is not sent: for `configbump doctor`.

use super::refusal::{denied, refused};
use super::{Handle, Handling, Sent, Signaller, Target};
use crate::bump::BumpError;

/// What was found out about a process that would be signalled.
#[derive(Debug)]
pub struct Examined {
    pub target: Target,
    pub user: u32,
    /// Why configbump may not signal it, if so, and what to do about it.
    pub refusal: Option<String>,
    /// Whether it has prepared for the signal, which else would end or stop it.
    pub handling: Handling,
}

impl Signaller {
    /// Looks at every process that is running and would be signalled.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be looked at.
    pub fn examine(&self) -> Result<Vec<Examined>, BumpError> {
        let mut examined = Vec::new();
        for target in self.unwrapped(self.find()?)? {
            let Some(handle) = Handle::open(&target)? else { continue };
            let (Some(user), Some(handling)) = (handle.user(&target)?, self.handling(&handle, &target)?) else {
                continue;
            };
            let own = rustix::process::geteuid().as_raw();
            let refusal = match handle.may_signal(&target)? {
                Sent::Yes => None,
                Sent::Gone => continue,
                Sent::Refused => Some(refused(self.signal, &target, user, own).to_string()),
                Sent::Denied => Some(denied(self.signal, &target).to_string()),
            };
            examined.push(Examined { target, user, refusal, handling });
        }
        Ok(examined)
    }

    /// Returns yes for a signal that does no harm or that is to end the target.
    fn handling(&self, handle: &Handle, target: &Target) -> Result<Option<Handling>, BumpError> {
        let handling = handle.handles(self.signal, target)?;
        Ok(if handling == Some(Handling::No) && !self.would_harm(handle, target)? {
            Some(Handling::Yes)
        } else {
            handling
        })
    }
}
