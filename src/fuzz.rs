//! Foreign bytes for the tests of whatever reads them: texts as they should be, with faults. `make fuzz` goes on for longer
//! than `make test`.

/// A text's number, and its faults: where, of what kind, and with which byte.
pub type Faults = (u8, Vec<(u16, u8, u8)>);

/// One of the texts with these faults: bytes exchanged, added, taken away, doubled, or all that follows cut off.
pub fn faulty(texts: &[&str], (number, faults): &Faults) -> Vec<u8> {
    let mut bytes = texts[usize::from(*number) % texts.len()].as_bytes().to_vec();
    for (at, kind, byte) in faults {
        let at = usize::from(*at) % (bytes.len() + 1);
        match kind % 6 {
            0 => bytes.insert(at, *byte),
            1 if at < bytes.len() => bytes[at] = *byte,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            // A piece once more, which may be a bracket, a quote or a whole field.
            4 => {
                let piece = bytes[at..(at + usize::from(*byte)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            _ => drop(bytes.drain(at..(at + usize::from(*byte)).min(bytes.len()))),
        }
    }
    bytes
}
