use std::fs::File;
use std::io::Read as _;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe, pipe_with};

use super::*;

/// A sink whose pipe has room for one piece, and the pipe's other end.
fn narrow() -> (Sink, File) {
    let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("a pipe");
    fcntl_setpipe_size(&writer, PIECE_BYTES_MAX).expect("a small pipe");
    (Sink::new(Target::Own(writer)), reader.into())
}

fn line(number: usize) -> String {
    format!("{number:0>99}\n")
}

/// What the reader gets until nothing is left.
fn read(sink: &Sink, reader: &mut File) -> String {
    let mut text = String::new();
    loop {
        let is_empty = sink.write_waiting();
        let mut bytes = [0; PIECE_BYTES_MAX];
        match reader.read(&mut bytes) {
            Ok(length) => text.push_str(std::str::from_utf8(&bytes[..length]).expect("whole lines")),
            Err(_) if is_empty => return text,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn lines_wait_in_order_and_those_without_room_are_counted() {
    let (sink, mut reader) = narrow();
    let room = (PIECE_BYTES_MAX + WAITING_BYTES_MAX) / 100 - 1;
    (0..room + 7).for_each(|number| sink.write(line(number).as_bytes()));
    assert!(sink.is_blocked());
    let dropped = sink.lock().dropped;
    let expected: String = (0..room + 7 - dropped).map(line).collect();
    assert_eq!(read(&sink, &mut reader), expected);
    assert!((5..=7).contains(&dropped), "{dropped}");
    sink.log_dropped();
    sink.write(b"next\n");
    assert_eq!(read(&sink, &mut reader), "next\n");
}

#[test]
fn a_line_longer_than_the_pipe_is_written_whole() {
    let (sink, mut reader) = narrow();
    let long = "x".repeat(3 * PIECE_BYTES_MAX) + "\n";
    sink.write(long.as_bytes());
    sink.write(b"next\n");
    assert_eq!(read(&sink, &mut reader), long + "next\n");
}

#[tokio::test]
async fn what_waits_is_written_when_the_reader_reads() {
    let (sink, mut reader) = narrow();
    let sink: &'static Sink = Box::leak(Box::new(sink));
    tokio::spawn(sink.drain());
    (0..200).for_each(|number| sink.write(line(number).as_bytes()));
    let mut text = String::new();
    while text.len() < 200 * 100 {
        let mut bytes = [0; PIECE_BYTES_MAX];
        match reader.read(&mut bytes) {
            Ok(length) => text.push_str(std::str::from_utf8(&bytes[..length]).expect("text")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(text, (0..200).map(line).collect::<String>());
}

#[test]
fn the_end_waits_for_the_reader_for_a_bounded_time() {
    let (sink, _reader) = narrow();
    (0..200).for_each(|number| sink.write(line(number).as_bytes()));
    let began = Instant::now();
    sink.finish();
    assert!(sink.is_blocked() && began.elapsed() >= FINISH_MAX);
}

#[test]
fn a_reader_that_is_gone_keeps_nothing_waiting() {
    let (sink, reader) = narrow();
    (0..200).for_each(|number| sink.write(line(number).as_bytes()));
    drop(reader);
    assert!(sink.write_waiting());
    sink.write(b"next\n");
    assert!(!sink.is_blocked());
}

#[test]
fn a_description_that_blocks_is_written_only_while_there_is_room() {
    let (reader, writer) = pipe().expect("a pipe");
    fcntl_setpipe_size(&writer, PIECE_BYTES_MAX).expect("a small pipe");
    let target = Target::Own(writer);
    assert!(target.wait(Duration::ZERO));
    assert_eq!(target.write(&[b'x'; PIECE_BYTES_MAX]), Ok(PIECE_BYTES_MAX));
    assert!(!target.wait(Duration::ZERO));
    drop(reader);
    assert!(target.wait(Duration::ZERO), "so that the error is seen");
}
