//! Contents that are kept aside for claims that wait behind others.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::unwritten::Unwritten;
use super::{Effect, Store, UNKNOWN_BYTES_MAX};
use crate::content::{Content, Digest};
use crate::disk;
use crate::object::{Kind, ObjectKey};
use crate::path::RelPath;
use crate::plan::ClaimId;

/// The prefix of their names in the store's own folder.
pub(super) const PREFIX: &str = "parked-";

/// The name of what is kept for a claim.
pub(super) fn name(claim: ClaimId) -> String {
    format!("{PREFIX}{claim}")
}

impl Store {
    pub(super) fn park(&self, claim: ClaimId, kind: Kind, content: Content) -> io::Result<()> {
        self.temporary(kind, content.body)?.publish(self.own.as_fd(), &name(claim))
    }

    /// Copies the newest file, rather than moving it: there is no moment without it.
    pub(super) fn demote(
        &mut self,
        path: &RelPath,
        kind: Kind,
        claim: ClaimId,
        digest: Option<Digest>,
    ) -> io::Result<()> {
        if let Some(new) = self.unwritten.remove(path) {
            return new.file.publish(self.own.as_fd(), &name(claim));
        }
        let Some(mut file) = self.newest(path)? else { return Err(io::ErrorKind::NotFound.into()) };
        let Some(digest) = known(&mut file, digest)? else {
            return Err(io::Error::other("it has been changed, so there is no copy to keep"));
        };
        file.rewind()?;
        let (temporary, mut copy) = self.spool.create(self.spool.permissions().mode(kind))?;
        disk::crash::point()?;
        io::copy(&mut io::Read::take(file, digest.len_bytes), &mut copy)?;
        temporary.publish(self.own.as_fd(), &name(claim))
    }

    pub(super) fn promote(
        &mut self,
        path: &RelPath,
        owner: &Arc<ObjectKey>,
        claim: ClaimId,
        digest: Option<Digest>,
    ) -> io::Result<Effect> {
        let name = name(claim);
        let Some(mut parked) = disk::open_file(self.own.as_fd(), &name)? else {
            return Err(io::Error::other(format!("what was kept aside of {owner} is gone")));
        };
        let Some(digest) = known(&mut parked, digest)? else {
            return Err(io::Error::other(format!("what was kept aside of {owner} has been changed")));
        };
        self.unwritten.remove(path);
        let settled = self.settled_as(path, owner, &digest);
        if let Ok(Some(effect)) = settled {
            disk::unlink(self.own.as_fd(), name.as_str())?;
            return Ok(effect);
        }
        let file = self.spool.adopt(&name)?;
        self.put_unless_failed(path, Unwritten { owner: Arc::clone(owner), file, digest }, settled)
    }
}

/// The digest of a file that should have this one; nothing if it has another. What an earlier run wrote may have any, but is
/// not larger than what a source can have had.
fn known(file: &mut File, digest: Option<Digest>) -> io::Result<Option<Digest>> {
    match digest {
        Some(digest) => Ok(digest.is_of(file)?.then_some(digest)),
        None => Digest::of(file, UNKNOWN_BYTES_MAX),
    }
}
