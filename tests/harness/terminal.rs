//! A terminal for a sidecar to write to.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Opens one (`pty(7)`), what is written to it going to this file, as it comes.
pub fn open_into(log: &Path) -> OwnedFd {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&screen).and_then(|()| unlockpt(&screen)).expect("a terminal that is ours");
    let name = ptsname(&screen, Vec::new()).expect("its name");
    let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).expect("its other end");
    let (mut screen, mut log) = (File::from(screen), File::create_new(log).expect("a temporary folder takes a file"));
    std::thread::spawn(move || {
        let mut shown = [0; 4096];
        // It fails when nobody has the other end any more.
        while let Ok(len @ 1..) = screen.read(&mut shown) {
            log.write_all(&shown[..len]).expect("a temporary folder takes a file");
        }
    });
    terminal
}
