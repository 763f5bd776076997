//! From the chunks of a response to documents that a blocking parser reads.
//!
//! A short line of a watch is parsed where it stands. A long one, and a page of a list, is parsed on a thread of its own
//! that takes the chunks as they come, two at a time at most; so it is never whole in memory.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::session::is_of_time;
use super::wire::WireError;
use crate::telemetry::Signs;
use crate::threads::{READERS, ThreadError};

/// A line up to this many bytes is parsed in place.
const SHORT_BYTES_MAX: usize = 64 * 1024;

/// How many chunks may wait for the parser's thread.
const CHUNKS_WAITING_MAX: usize = 2;

/// How long a line may take from its first byte to its last, however busily it drips.
const LINE_TIME_MAX: Duration = Duration::from_secs(150);

/// Why a response ended early.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    #[error("the server has said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the server has not completed an answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The kernel gave it up: nothing came back within the time for it.
    #[error("the connection is dead: {0}")]
    Dead(String),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// The body of a response, and how long it may stay silent.
pub(super) struct Documents<B> {
    body: B,
    silence_max: Duration,
    signs: Signs,
    buffer: BytesMut,
    /// When what is being read has to be complete, if it has to be.
    complete_by: Option<(Instant, Duration)>,
}

impl<B: http_body::Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin> Documents<B> {
    /// Every byte that comes is progress for the `signs`.
    pub fn new(body: B, silence_max: Duration, signs: Signs) -> Self {
        Self { body, silence_max, signs, buffer: BytesMut::new(), complete_by: None }
    }

    /// Changes the limit for the waits that follow.
    pub fn set_silence_max(&mut self, silence_max: Duration) {
        self.silence_max = silence_max;
    }

    /// Parses the next line; nothing if the response has ended. Where it is dropped while it waits, the rest
    /// must be dropped too.
    pub async fn line<T: Send + 'static>(
        &mut self,
        parse: impl FnOnce(&mut dyn Read) -> Result<T, WireError> + Send + 'static,
    ) -> Result<Option<T>, BodyError> {
        let mut searched = 0;
        self.complete_by = None;
        loop {
            if let Some(length) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + length);
                self.buffer.advance(1);
                return Ok(Some(parse(&mut &line[..])?));
            }
            searched = self.buffer.len();
            if searched > SHORT_BYTES_MAX {
                return self.stream(Until::Newline, parse).await.map(Some);
            }
            if !self.buffer.is_empty() && self.complete_by.is_none() {
                self.be_complete_within(LINE_TIME_MAX);
            }
            match self.chunk().await? {
                // Does not keep what a longer line once needed.
                Some(chunk) if self.buffer.is_empty() => self.buffer = chunk.into(),
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(BodyError::Broken("it ended in the middle of an event".into())),
            }
        }
    }

    /// Parses the whole response as one document.
    pub async fn whole<T: Send + 'static>(
        mut self,
        parse: impl FnOnce(&mut dyn Read) -> Result<T, WireError> + Send + 'static,
    ) -> Result<T, BodyError> {
        self.stream(Until::End, parse).await
    }

    /// The whole response, or its first bytes if it has more than `bytes_max`. It may take no longer than it may be silent.
    pub async fn beginning(mut self, bytes_max: usize) -> Result<BytesMut, BodyError> {
        self.be_complete_within(self.silence_max);
        while self.buffer.len() < bytes_max
            && let Some(chunk) = self.chunk().await?
        {
            self.buffer.extend_from_slice(&chunk);
        }
        Ok(self.buffer)
    }

    async fn stream<T: Send + 'static>(
        &mut self,
        until: Until,
        parse: impl FnOnce(&mut dyn Read) -> Result<T, WireError> + Send + 'static,
    ) -> Result<T, BodyError> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        let parser = READERS.spawn(move || parse(&mut Chunks { receiver, current: Bytes::new() }))?;
        let mut complete = false;
        let mut next = Some(std::mem::take(&mut self.buffer).freeze());
        while let Some(mut chunk) = next {
            let newline = (until == Until::Newline).then(|| chunk.iter().position(|byte| *byte == b'\n')).flatten();
            let rest = newline.map(|at| chunk.split_off(at));
            // A parser that has given up says why below.
            let given_up = chunks.send(chunk).await.is_err();
            if let Some(rest) = rest {
                self.buffer.extend_from_slice(&rest[1..]);
                complete = true;
                break;
            }
            if given_up {
                break;
            }
            tokio::select! {
                chunk = self.chunk() => next = chunk?,
                () = chunks.closed() => break,
            }
            complete = until == Until::End && next.is_none();
        }
        drop(chunks);
        let parsed = parser.await.map_err(|_| ThreadError::Ended)??;
        if complete { Ok(parsed) } else { Err(BodyError::Broken("there is more in it than there should be".into())) }
    }

    fn be_complete_within(&mut self, time_max: Duration) {
        self.complete_by = Some((Instant::now() + time_max, time_max));
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let silent = (Instant::now() + self.silence_max, BodyError::Silent(self.silence_max));
            let (end, why) = match self.complete_by {
                Some((end, time_max)) if end < silent.0 => (end, BodyError::Slow(time_max)),
                _ => silent,
            };
            match timeout_at(end, self.body.frame()).await.map_err(|_| why)? {
                None => return Ok(None),
                Some(Err(error)) if is_of_time(&error) => return Err(BodyError::Dead(super::causes(&error))),
                Some(Err(error)) => return Err(BodyError::Broken(super::causes(&error))),
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.signs.progress();
                        return Ok(Some(chunk));
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Newline,
    End,
}

/// The chunks of a document, read by a thread that waits for them.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    const SILENCE_MAX: Duration = Duration::from_millis(100);

    /// A response that comes in these chunks and then ends, or falls silent.
    struct Response {
        chunks: VecDeque<Bytes>,
        silent: bool,
    }

    /// A response that never ends, a byte after the other.
    struct Drip(Pin<Box<tokio::time::Sleep>>);

    impl Drip {
        const PAUSE: Duration = Duration::from_secs(29);

        fn documents(silence_max: Duration) -> Documents<Self> {
            Documents::new(Self(Box::pin(tokio::time::sleep(Self::PAUSE))), silence_max, Signs::default())
        }
    }

    impl http_body::Body for Drip {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            std::task::ready!(self.0.as_mut().poll(cx));
            self.0.set(tokio::time::sleep(Self::PAUSE));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    /// A response that breaks.
    struct Failing(io::ErrorKind);

    impl http_body::Body for Failing {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            Poll::Ready(Some(Err(self.0.into())))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_drips_is_given_up_although_it_is_never_silent() {
        let began = Instant::now();
        let read = Drip::documents(Duration::from_secs(30)).beginning(1000).await;
        assert!(matches!(read, Err(BodyError::Slow(_))) && began.elapsed().as_secs() == 30, "{read:?}");
        let began = Instant::now();
        let read = Drip::documents(LINE_TIME_MAX).line(all).await;
        let expected = (Drip::PAUSE + LINE_TIME_MAX).as_secs();
        assert!(matches!(read, Err(BodyError::Slow(_))) && began.elapsed().as_secs() == expected, "{read:?}");
    }

    #[tokio::test]
    async fn a_connection_that_the_kernel_gave_up_is_told_from_one_that_somebody_ended() {
        for (kind, is_dead) in [(io::ErrorKind::TimedOut, true), (io::ErrorKind::ConnectionReset, false)] {
            let read = Documents::new(Failing(kind), SILENCE_MAX, Signs::default()).line(all).await;
            assert_eq!(matches!(read, Err(BodyError::Dead(_))), is_dead, "{read:?}");
        }
    }

    impl http_body::Body for Response {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            match self.chunks.pop_front() {
                None if self.silent => Poll::Pending,
                chunk => Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk)))),
            }
        }
    }

    fn documents(text: &str, chunk_len: usize, silent: bool) -> Documents<Response> {
        let chunks = text.as_bytes().chunks(chunk_len).map(Bytes::copy_from_slice).collect();
        Documents::new(Response { chunks, silent }, SILENCE_MAX, Signs::default())
    }

    fn all(from: &mut dyn Read) -> Result<String, WireError> {
        let mut text = String::new();
        from.read_to_string(&mut text)?;
        Ok(text)
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut_and_however_long_they_are() -> Result<(), BodyError> {
        let long = "x".repeat(3 * SHORT_BYTES_MAX);
        let lines = ["a", "", &long, "bc", &long, &long[..SHORT_BYTES_MAX]];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        for chunk_len in [7, 16_384, text.len()] {
            let mut documents = documents(&text, chunk_len, false);
            for line in lines {
                let read = documents.line(all).await?;
                assert!(read.as_deref() == Some(line), "chunks of {chunk_len}, a line of {}", line.len());
            }
            assert_eq!(documents.line(all).await?, None);
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_line_that_is_cut_is_no_line() {
        for len in [1, 2 * SHORT_BYTES_MAX] {
            let text = "x".repeat(len);
            let json = |from: &mut dyn Read| {
                if all(from)?.ends_with('\n') { Ok(()) } else { Err(io::Error::other("cut").into()) }
            };
            assert!(documents(&text, 1000, false).line(json).await.is_err(), "{len}");
        }
    }

    #[tokio::test]
    async fn silence_is_noticed_in_short_and_in_long_lines() {
        for len in [0, 1, 2 * SHORT_BYTES_MAX] {
            let read = documents(&"x".repeat(len), 1000, true).line(all).await;
            assert!(matches!(read, Err(BodyError::Silent(_))), "{len}: {read:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_gives_up_ends_the_waiting() {
        let give_up = |_: &mut dyn Read| Err::<(), _>(io::Error::other("no more").into());
        let read = documents(&"x".repeat(10 * SHORT_BYTES_MAX), 1000, true).line(give_up).await;
        assert!(matches!(read, Err(BodyError::Wire(_))), "{read:?}");
    }

    #[tokio::test]
    async fn a_response_is_read_as_a_whole_or_in_its_beginning() -> Result<(), BodyError> {
        let text = "a\nb\n".repeat(1000);
        assert_eq!(documents(&text, 100, false).whole(all).await?, text);
        assert_eq!(documents(&text, 100, true).beginning(250).await?.len(), 300);
        assert_eq!(documents(&text, 100, false).beginning(10_000).await?, text);
        Ok(())
    }
}
