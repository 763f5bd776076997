//! What travels through the pipeline in place of a value: its digest and length, and where its bytes are.

mod spool;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

pub(crate) use self::spool::TEMPORARY_PREFIX;
pub use self::spool::{ContentWriter, Modes, Spool, Spooled};

/// The SHA-256 of a content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of what is left of a file; read in bounded memory.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn of(file: &mut File) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Self(hash.finalize().into())),
                Ok(len) => hash.update(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Enough of it to tell contents apart.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One value, spooled by a source and not yet placed. Dropping it drops its bytes, wherever they are.
#[derive(Debug)]
pub struct Content {
    pub digest: Digest,
    pub len_bytes: u64,
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
