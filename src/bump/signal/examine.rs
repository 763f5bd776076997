//! How a target would take the signal, which is not sent: for `configbump doctor`.

use super::{Handle, Signaller, Target, refused};
use crate::bump::BumpError;

/// What was found out about a process that would be signalled.
#[derive(Debug)]
pub struct Examined {
    pub target: Target,
    pub user: u32,
    /// Why configbump may not signal it, if so, and what to do about it.
    pub refusal: Option<String>,
    /// Whether the signal would not end or stop it.
    pub is_prepared: bool,
}

impl Signaller {
    /// Looks at every process that is running and would be signalled.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be looked at.
    pub fn examine(&self) -> Result<Vec<Examined>, BumpError> {
        let mut examined = Vec::new();
        for target in self.find()? {
            let Some(handle) = Handle::open(&target)? else { continue };
            let (Some(user), Some(may)) = (handle.user(&target)?, handle.may_signal(&target)?) else { continue };
            let own = rustix::process::geteuid().as_raw();
            let refusal = (!may).then(|| refused(self.signal, &target, user, own).to_string());
            let is_prepared = !self.would_harm(&handle, &target)?;
            examined.push(Examined { target, user, refusal, is_prepared });
        }
        Ok(examined)
    }
}
