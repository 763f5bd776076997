//! What travels through the pipeline in place of a value: its digest, and where its bytes are.

mod permissions;
mod spool;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

pub use self::permissions::Modes;
pub(crate) use self::permissions::Permissions;
pub(crate) use self::spool::TEMPORARY_PREFIX;
pub use self::spool::{ContentWriter, Spool, Spooled};

/// What is read of a file at once, at the most.
const CHUNK_BYTES: usize = 16 * 1024;

/// What is read at once of one that is smaller than this.
const SMALL_BYTES: usize = 2 * 1024;

/// What tells one content from another: its SHA-256, and its length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    pub sha256: [u8; 32],
    pub len_bytes: u64,
}

impl Digest {
    /// Whether the content is what is left of the file. No more is read than that takes: the file may be anybody's, of any
    /// length, and may grow meanwhile.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn is_of(&self, file: &mut File) -> io::Result<bool> {
        Ok(file.metadata()?.len() == self.len_bytes && Self::of(file, self.len_bytes)? == Some(*self))
    }

    /// Of what is left of a file; nothing if that is more than this many bytes. Read in bounded memory.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn of(file: &mut File, bytes_max: u64) -> io::Result<Option<Self>> {
        // For a small file, making all of a large buffer zeros would be a tenth of the work.
        if bytes_max < SMALL_BYTES as u64 {
            Self::through(&mut [0; SMALL_BYTES], file, bytes_max)
        } else {
            Self::through(&mut [0; CHUNK_BYTES], file, bytes_max)
        }
    }

    fn through(buffer: &mut [u8], file: &mut File, bytes_max: u64) -> io::Result<Option<Self>> {
        let mut hash = Sha256::new();
        let mut len_bytes = 0;
        let mut from = file.take(bytes_max.saturating_add(1));
        loop {
            match from.read(buffer) {
                Ok(0) if len_bytes > bytes_max => return Ok(None),
                Ok(0) => return Ok(Some(Self { sha256: hash.finalize().into(), len_bytes })),
                Ok(len) => {
                    hash.update(&buffer[..len]);
                    len_bytes += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Enough of it to tell contents apart.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sha256[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One value, spooled by a source and not yet placed. Dropping it drops its bytes, wherever they are.
#[derive(Debug)]
pub struct Content {
    pub digest: Digest,
    pub body: Body,
}

/// Where the bytes of a [`Content`] are.
pub enum Body {
    /// Small: no disk write is needed unless it turns out to be a change.
    Memory(Box<[u8]>),
    /// Large: in a temporary file of the store, which only needs a rename to become the file.
    Spooled(Spooled),
    /// The disk took no more while it was spooled. Enough to see that nothing changed, not enough to write it.
    Lost(io::Error),
}

/// Never shows the bytes: they may be a Secret's.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(_) => f.write_str("Memory"),
            Self::Spooled(_) => f.write_str("Spooled"),
            Self::Lost(error) => write!(f, "Lost({error})"),
        }
    }
}
